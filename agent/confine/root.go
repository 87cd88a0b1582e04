package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"vibed.dev/agent/launch"
)

const (
	atFdcwd       = ^uintptr(99) // -100
	atEmptyPath   = 0x1000
	atRecursive   = 0x8000
	openTreeClone = 1
	moveEmptyFrom = 4

	attrRdonly = 1
	attrNosuid = 2
	attrNodev  = 4
	attrNoexec = 8
)

// aside is a directory of the host's root, covered in this namespace only. Any will do.
const aside = "tmp"

// attach is a mount that has been made aside and waits for its place.
type attach struct {
	fd     launch.Reg
	target string
	step   string
}

// mounts builds the root. Whatever the spec names of the host is taken hold of first, as detached copies: afterwards
// paths are looked up in the new root only, and a link in it cannot lead out of it. A detached mount has one place only:
// Linux clones one since 6.15, so what is needed twice is cloned twice, from where it is mounted.
func (c *confinement) mounts() error {
	s, p := c.spec, c.p
	if !s.has("mount") {
		return nil
	}
	p.Step("mount propagation")
	p.Sys(syscall.SYS_MOUNT, 0, "/", 0, uint64(syscall.MS_REC|syscall.MS_SLAVE), 0)

	held := map[int]launch.Reg{}
	for i, m := range s.Root {
		var err error
		switch m.Type {
		case "bind":
			held[i], err = c.hold("bind "+m.Source, m.Source, m.attributes(), syscall.MS_PRIVATE)
		case "erofs":
			held[i], err = c.erofs(m)
		}
		if err != nil {
			return err
		}
	}
	var slots []attach
	for _, l := range s.Slots {
		fd, err := c.hold("slot "+l.Source, l.Source, attrNosuid|attrNodev, syscall.MS_SLAVE)
		if err != nil {
			return err
		}
		slots = append(slots, attach{fd, l.Target, "slot " + l.Target})
	}
	p.Step("the host's root")
	c.oldRoot = p.Sys(syscall.SYS_OPENAT, atFdcwd, "/", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0).Out()

	covering := covers{}
	if s.Root != nil {
		c.enterRoot(held, covering)
	} else {
		covering["/"] = false
	}
	for i, m := range s.Root {
		if m.Target == "/" {
			continue
		}
		c.entry(m, held[i], covering)
	}
	for _, slot := range slots {
		c.mountpoint(slot.target, covering)
		c.attach(slot)
		covering[slot.target] = false
	}
	if s.Root == nil && s.has("pid") {
		c.proc("/proc")
	}
	if s.Root != nil {
		if implicit(s.Root) {
			p.Step("read-only root")
			c.setattr("/", attrRdonly, 0, 0)
		}
		p.Step("leave the host's root")
		p.Sys(syscall.SYS_FCHDIR, c.oldRoot)
		p.Sys(syscall.SYS_UMOUNT2, ".", syscall.MNT_DETACH)
		p.Sys(syscall.SYS_CHDIR, "/")
	}
	return nil
}

func implicit(root []Mount) bool { return len(root) == 0 || root[0].Target != "/" }

func (m *Mount) attributes() uint64 {
	attr := uint64(attrNosuid | attrNodev)
	if m.RO {
		attr |= attrRdonly
	}
	if m.Exec != nil && !*m.Exec {
		attr |= attrNoexec
	}
	return attr
}

// covers remembers where new mount points can be made: true for a tmpfs of the sandbox, false for everything else.
type covers map[string]bool

func (v covers) writable(target string) bool {
	for dir := path.Dir(target); ; dir = path.Dir(dir) {
		if w, ok := v[dir]; ok {
			return w
		}
		if dir == "/" {
			return false
		}
	}
}

// hold makes a detached copy of a host directory or file, with everything mounted below it.
func (c *confinement) hold(step, source string, attr uint64, propagation uint64) (launch.Reg, error) {
	c.p.Step("%s", step)
	fd := c.p.Sys(sysOpenTree, atFdcwd, source, openTreeClone|syscall.O_CLOEXEC|atRecursive).Out()
	c.setattrFD(fd, attr, 0, propagation, true)
	return fd, nil
}

func (c *confinement) mountAttr(set, clear, propagation uint64) unsafe.Pointer {
	v := &[4]uint64{set, clear, propagation, 0}
	c.p.Pin(v)
	return unsafe.Pointer(v)
}

func (c *confinement) setattrFD(fd launch.Reg, set, clear, propagation uint64, recursive bool) {
	flags := atEmptyPath
	if recursive {
		flags |= atRecursive
	}
	c.p.Sys(sysMountSetattr, fd, "", flags, c.mountAttr(set, clear, propagation), 32)
}

func (c *confinement) setattr(target string, set, clear, propagation uint64) {
	c.p.Sys(sysMountSetattr, atFdcwd, target, 0, c.mountAttr(set, clear, propagation), 32)
}

// filesystem makes a detached mount of a new file system.
func (c *confinement) filesystem(kind string, options [][2]string, attr uint64) launch.Reg {
	const setString, create = 1, 6
	p := c.p
	fs := p.Sys(sysFsopen, kind, 1).Out()
	for _, o := range options {
		p.Sys(sysFsconfig, fs, setString, o[0], o[1], 0)
	}
	p.Sys(sysFsconfig, fs, create, 0, 0, 0)
	fd := p.Sys(sysFsmount, fs, 1, attr).Out()
	p.Sys(syscall.SYS_CLOSE, fs)
	return fd
}

// enterRoot makes the root and moves into it; the host's root stays mounted over it until everything is in place.
func (c *confinement) enterRoot(held map[int]launch.Reg, covering covers) {
	p, s := c.p, c.spec
	p.Step("root")
	var root launch.Reg
	switch {
	case implicit(s.Root):
		root = c.filesystem("tmpfs", [][2]string{{"size", "1m"}, {"mode", "0755"}}, attrNosuid|attrNodev)
		covering["/"] = true
	case s.Root[0].Type == "tmpfs":
		root = c.tmpfs(s.Root[0])
		covering["/"] = true
	default:
		root = held[0]
		covering["/"] = false
	}
	p.Sys(sysMoveMount, root, "", atFdcwd, "/"+aside, moveEmptyFrom)
	p.Sys(syscall.SYS_CHDIR, "/"+aside)
	p.Sys(syscall.SYS_PIVOT_ROOT, ".", ".")
	p.Step("umask")
	p.Sys(syscall.SYS_UMASK, 0o022)
}

func (c *confinement) attach(a attach) {
	c.p.Step("target %s", a.target)
	c.p.Sys(sysMoveMount, a.fd, "", atFdcwd, a.target, moveEmptyFrom)
	c.p.Sys(syscall.SYS_CLOSE, a.fd)
}

// parents makes the directories above a target, where the file system below is the sandbox's own.
func (c *confinement) parents(target string, covering covers) {
	parts := strings.Split(strings.Trim(path.Dir(target), "/"), "/")
	at := ""
	for _, part := range parts {
		if part == "" {
			continue
		}
		at += "/" + part
		if covering.writable(at) {
			if _, mounted := covering[at]; !mounted {
				c.p.Step("directory %s", at)
				c.p.Sys(syscall.SYS_MKDIRAT, atFdcwd, at, 0o755).Allow(syscall.EEXIST)
			}
		}
	}
}

func (c *confinement) mountpoint(target string, covering covers) {
	c.parents(target, covering)
	if covering.writable(target) {
		c.p.Step("directory %s", target)
		c.p.Sys(syscall.SYS_MKDIRAT, atFdcwd, target, 0o755).Allow(syscall.EEXIST)
	}
}

func (c *confinement) filepoint(target string, covering covers) {
	c.parents(target, covering)
	if covering.writable(target) {
		c.p.Step("file %s", target)
		fd := c.p.Sys(syscall.SYS_OPENAT, atFdcwd, target, syscall.O_CREAT|syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o644).Out()
		c.p.Sys(syscall.SYS_CLOSE, fd)
	}
}

// owner gives host ids (while root builds) or inner ids (without root) for an entry; the default is the sandbox's
// uid 0 if it has one, else the uid that the program runs as.
func (c *confinement) owner(m Mount) (uid, gid int) {
	s := c.spec
	uid, gid = 0, 0
	if s.UserNS {
		if outside(c.uidMap, 0) < 0 {
			uid = s.InnerUID
		}
		if outside(c.gidMap, 0) < 0 {
			gid = s.InnerGID
		}
	}
	if m.UID != nil {
		uid, gid = *m.UID, *m.UID
	}
	if m.GID != nil {
		gid = *m.GID
	}
	if s.UserNS && c.privileged {
		uid, gid = outside(c.uidMap, uid), outside(c.gidMap, gid)
	}
	return uid, gid
}

func (c *confinement) tmpfs(m Mount) launch.Reg {
	mode, _ := m.mode(0o755)
	uid, gid := c.owner(m)
	options := [][2]string{{"mode", fmt.Sprintf("%o", mode)}, {"uid", fmt.Sprint(uid)}, {"gid", fmt.Sprint(gid)}}
	if m.Size > 0 {
		// A page a file is the least that data costs; without a bound on inodes empty files would cost nothing.
		options = append(options, [2]string{"size", fmt.Sprint(m.Size)}, [2]string{"nr_inodes", fmt.Sprint(max(1024, m.Size/4096))})
	}
	attr := uint64(attrNosuid | attrNodev)
	if m.Exec != nil && !*m.Exec {
		attr |= attrNoexec
	}
	return c.filesystem("tmpfs", options, attr)
}

func (c *confinement) entry(m Mount, held launch.Reg, covering covers) {
	p := c.p
	switch m.Type {
	case "bind":
		if info, err := os.Stat(m.Source); err == nil && !info.IsDir() {
			c.filepoint(m.Target, covering)
		} else {
			c.mountpoint(m.Target, covering)
		}
		c.attach(attach{held, m.Target, ""})
		covering[m.Target] = false
	case "erofs":
		c.mountpoint(m.Target, covering)
		c.attach(attach{held, m.Target, ""})
		covering[m.Target] = false
	case "tmpfs":
		c.mountpoint(m.Target, covering)
		p.Step("mount tmpfs %s", m.Target)
		c.attach(attach{c.tmpfs(m), m.Target, ""})
		covering[m.Target] = true
	case "proc":
		c.mountpoint(m.Target, covering)
		c.proc(m.Target)
		covering[m.Target] = false
	case "dev":
		c.mountpoint(m.Target, covering)
		c.dev(m)
		covering[m.Target] = false
	case "dir":
		c.mountpoint(m.Target, covering)
		if covering.writable(m.Target) {
			c.own(m, 0o755)
		}
	case "symlink":
		c.parents(m.Target, covering)
		p.Step("symlink %s", m.Target)
		call := p.Sys(syscall.SYS_SYMLINKAT, m.Source, atFdcwd, m.Target)
		if !covering.writable(m.Target) {
			call.Allow(syscall.EEXIST)
		}
	case "file":
		c.file(m, covering)
	}
}

func (c *confinement) own(m Mount, otherwise uint32) {
	mode, _ := m.mode(otherwise)
	uid, gid := c.owner(m)
	c.p.Step("owner and mode of %s", m.Target)
	c.p.Sys(syscall.SYS_FCHOWNAT, atFdcwd, m.Target, uid, gid, 0)
	c.p.Sys(syscall.SYS_FCHMODAT, atFdcwd, m.Target, mode)
}

// file writes content where the sandbox's own tmpfs is, and elsewhere binds a file over one that exists.
func (c *confinement) file(m Mount, covering covers) {
	p := c.p
	mode, _ := m.mode(0o644)
	uid, gid := c.owner(m)
	write := func(fd launch.Reg) {
		if len(m.Content) > 0 {
			p.Sys(syscall.SYS_WRITE, fd, []byte(m.Content), len(m.Content)).Want(len(m.Content))
		}
		p.Sys(syscall.SYS_FCHOWN, fd, uid, gid)
		p.Sys(syscall.SYS_FCHMOD, fd, mode)
		p.Sys(syscall.SYS_CLOSE, fd)
	}
	const create = syscall.O_CREAT | syscall.O_EXCL | syscall.O_WRONLY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	c.parents(m.Target, covering)
	if covering.writable(m.Target) {
		p.Step("file %s", m.Target)
		write(p.Sys(syscall.SYS_OPENAT, atFdcwd, m.Target, create, 0o600).Out())
		return
	}
	p.Step("file %s", m.Target)
	scratch := c.filesystem("tmpfs", [][2]string{{"size", fmt.Sprint(len(m.Content) + 8192)}, {"mode", "0755"}}, attrNosuid|attrNodev)
	// It goes with the host's root; what is mounted can be cloned.
	p.Sys(sysMoveMount, scratch, "", c.oldRoot, aside, moveEmptyFrom)
	write(p.Sys(syscall.SYS_OPENAT, scratch, "file", create, 0o600).Out())
	fd := p.Sys(sysOpenTree, scratch, "file", openTreeClone|syscall.O_CLOEXEC).Out()
	c.setattrFD(fd, attrRdonly, 0, 0, false)
	p.Sys(syscall.SYS_CLOSE, scratch)
	c.attach(attach{fd, m.Target, ""})
}

// proc mounts the processes of the pid namespace. Other uids' processes are hidden, except from the sandbox's root
// group; what only an administrator of the host would read or write is covered.
func (c *confinement) proc(target string) {
	p := c.p
	_, gid := c.owner(Mount{})
	p.Step("mount proc at %s", target)
	fd := c.filesystem("proc", [][2]string{{"hidepid", "invisible"}, {"gid", fmt.Sprint(gid)}}, attrNosuid|attrNodev|attrNoexec)
	c.attach(attach{fd, target, ""})
	if c.keep&(1<<capSysAdmin) != 0 {
		return // it may mount a proc of its own, which the kernel allows only where none of this one is covered
	}
	for _, name := range []string{"sys", "irq", "bus", "sysrq-trigger", "fs"} {
		p.Step("read-only %s/%s", target, name)
		full := target + "/" + name
		fd := p.Sys(sysOpenTree, atFdcwd, full, openTreeClone|syscall.O_CLOEXEC).Allow(syscall.ENOENT).Out()
		p.Sys(sysMountSetattr, fd, "", atEmptyPath, c.mountAttr(attrRdonly|attrNosuid|attrNodev|attrNoexec, 0, 0), 32).Allow(syscall.EBADF)
		p.Sys(sysMoveMount, fd, "", atFdcwd, full, moveEmptyFrom).Allow(syscall.EBADF, syscall.ENOENT)
		p.Sys(syscall.SYS_CLOSE, fd).Allow(syscall.EBADF)
	}
	for _, name := range []string{"kcore", "keys", "kmsg", "timer_list", "sched_debug", "kallsyms", "kpagecount", "kpageflags"} {
		p.Step("hide %s/%s", target, name)
		fd := c.device("null", attrRdonly)
		p.Sys(sysMoveMount, fd, "", atFdcwd, target+"/"+name, moveEmptyFrom).Allow(syscall.ENOENT)
		p.Sys(syscall.SYS_CLOSE, fd)
	}
}

// device is a detached mount of one of the host's: a bind works without the right to make nodes, too.
func (c *confinement) device(name string, attr uint64) launch.Reg {
	fd := c.p.Sys(sysOpenTree, c.oldRoot, "dev/"+name, openTreeClone|syscall.O_CLOEXEC).Out()
	c.setattrFD(fd, attrNosuid|attrNoexec|attr, 0, syscall.MS_PRIVATE, false)
	return fd
}

// dev mounts a directory with the harmless devices of the host.
func (c *confinement) dev(m Mount) {
	p := c.p
	p.Step("mount dev at %s", m.Target)
	fd := c.filesystem("tmpfs", [][2]string{{"size", "64k"}, {"mode", "0755"}}, attrNosuid|attrNoexec)
	c.attach(attach{fd, m.Target, ""})
	const create = syscall.O_CREAT | syscall.O_EXCL | syscall.O_WRONLY | syscall.O_CLOEXEC
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		p.Step("device %s/%s", m.Target, name)
		node := p.Sys(syscall.SYS_OPENAT, atFdcwd, m.Target+"/"+name, create, 0o666).Out()
		p.Sys(syscall.SYS_CLOSE, node)
		c.attach(attach{c.device(name, 0), m.Target + "/" + name, ""})
	}
	for _, link := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		p.Step("symlink %s/%s", m.Target, link[1])
		p.Sys(syscall.SYS_SYMLINKAT, link[0], atFdcwd, m.Target+"/"+link[1])
	}
	p.Step("mount tmpfs %s/shm", m.Target)
	p.Sys(syscall.SYS_MKDIRAT, atFdcwd, m.Target+"/shm", 0o755)
	size := m.Size
	if size == 0 {
		size = 64 << 20
	}
	noexec := false
	c.attach(attach{c.tmpfs(Mount{Size: size, Mode: "1777", Exec: &noexec}), m.Target + "/shm", ""})
	p.Step("read-only %s", m.Target)
	c.setattr(m.Target, attrRdonly, 0, 0)
}

// erofs mounts an image through a loop device. Many sandboxes of one image share its page cache only when it is
// mounted once on the host, and bound.
func (c *confinement) erofs(m Mount) (launch.Reg, error) {
	if !c.privileged {
		return 0, fmt.Errorf("erofs %s: only root can mount an image; without root unpack it and bind the directory", m.Source)
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	device, loop, err := loopDevice(source)
	if err != nil {
		return 0, fmt.Errorf("erofs %s: %w", m.Source, err)
	}
	c.loops = append(c.loops, loop)
	c.p.Step("mount erofs %s", m.Source)
	const setFlag = 0
	fs := c.p.Sys(sysFsopen, "erofs", 1).Out()
	c.p.Sys(sysFsconfig, fs, setFlag, "ro", 0, 0)
	c.p.Sys(sysFsconfig, fs, 1, "source", device, 0)
	c.p.Sys(sysFsconfig, fs, 6, 0, 0, 0)
	fd := c.p.Sys(sysFsmount, fs, 1, attrRdonly|attrNosuid|attrNodev).Out()
	c.p.Sys(syscall.SYS_CLOSE, fs)
	return fd, nil
}

// loopDevice attaches a file, read-only, to a free loop device, which frees itself after its last user.
func loopDevice(file string) (string, *os.File, error) {
	const (
		ctlGetFree = 0x4c82
		configure  = 0x4c0a
		readOnly   = 1
		autoclear  = 4
	)
	image, err := os.OpenFile(file, os.O_RDONLY, 0)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = image.Close() }()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", nil, fmt.Errorf("no loop devices: %w (modprobe loop)", err)
	}
	defer func() { _ = control.Close() }()
	for try := 0; ; try++ {
		n, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, control.Fd(), ctlGetFree, 0)
		if e != 0 {
			return "", nil, fmt.Errorf("no free loop device: %w", e)
		}
		device := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(device, os.O_RDONLY, 0)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				// A container's /dev does not follow the kernel's.
				_ = syscall.Mknod(device, syscall.S_IFBLK|0o600, int(7<<8|n))
				dev, err = os.OpenFile(device, os.O_RDONLY, 0)
			}
			if err != nil {
				return "", nil, err
			}
		}
		config := make([]byte, 304) // struct loop_config: fd, block size, struct loop_info64, reserved
		binary.NativeEndian.PutUint32(config, uint32(image.Fd()))
		binary.NativeEndian.PutUint32(config[8+52:], readOnly|autoclear) // lo_flags
		_, _, e = syscall.RawSyscall(syscall.SYS_IOCTL, dev.Fd(), configure, uintptr(unsafe.Pointer(&config[0])))
		if e == 0 {
			return device, dev, nil
		}
		_ = dev.Close()
		if e != syscall.EBUSY || try == 64 {
			return "", nil, fmt.Errorf("%s: %w", device, e)
		}
	}
}
