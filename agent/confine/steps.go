package confine

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"vibed.dev/agent/launch"
)

// System call numbers that package syscall does not have; from 424 on they are the same everywhere.
const (
	sysOpenTree     = 428
	sysMoveMount    = 429
	sysFsopen       = 430
	sysFsconfig     = 431
	sysFsmount      = 432
	sysMountSetattr = 442
)

const (
	prSetPdeathsig  = 1
	prSetKeepcaps   = 8
	prSetSeccomp    = 22
	prCapbsetDrop   = 24
	prSetNoNewPrivs = 38
	prCapAmbient    = 47
)

// prepare writes the whole program. The order matters, and is the order of the contract.
func (c *confinement) prepare() error {
	s, p := c.spec, c.p
	if err := c.whoami(); err != nil {
		return err
	}
	if s.DieWithParent {
		if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prSetPdeathsig, uintptr(syscall.SIGKILL), 0); e != 0 {
			return fmt.Errorf("parent-death signal: %w", e)
		}
		if os.Getppid() != c.parent {
			return errors.New("die_with_parent: what started confine has ended")
		}
	}
	if s.OOMScoreAdj != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*s.OOMScoreAdj)), 0); err != nil {
			return fmt.Errorf("oom_score_adj %d: %w", *s.OOMScoreAdj, err)
		}
	}
	for _, pair := range []*[2]int{&c.ask, &c.answer, &c.alive} {
		if err := syscall.Pipe2(pair[:], syscall.O_CLOEXEC); err != nil {
			return fmt.Errorf("pipe: %w", err)
		}
	}
	if c.forked {
		p.Step("session")
		p.Sys(syscall.SYS_SETSID)
		p.Step("close the parent's ends")
		p.Sys(syscall.SYS_CLOSE, c.alive[1])
		p.Sys(syscall.SYS_CLOSE, c.answer[1])
	}
	for _, file := range s.CgroupProcs {
		fd, err := syscall.Open(file, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return &launch.StepError{Step: "cgroup " + file, Errno: asErrno(err)}
		}
		p.Step("cgroup %s", file)
		p.Sys(syscall.SYS_WRITE, fd, "0", 1).Want(1)
	}

	if c.privileged {
		c.limits() // raising a hard limit needs the host's capability
		first := c.flags("mount", "cgroup")
		if !s.UserNS {
			first |= c.flags("net", "ipc", "uts")
		}
		c.unshare(first)
		if err := c.mounts(); err != nil {
			return err
		}
		if s.UserNS {
			second := c.flags("net", "ipc", "uts") | syscall.CLONE_NEWUSER
			if c.keep&(1<<capSysAdmin) != 0 {
				second |= c.flags("mount") // it is to mount things itself: the mount namespace must be its own
			}
			c.becomeOwner()
			p.Step("user namespace")
			p.Sys(syscall.SYS_UNSHARE, second)
			c.handshake()
		}
	} else {
		if s.UserNS {
			c.handshake()
		}
		c.limits()
		c.unshare(c.flags("mount", "cgroup", "net", "ipc", "uts"))
		if err := c.mounts(); err != nil {
			return err
		}
	}
	if s.has("net") {
		c.loopback()
	}
	if s.Hostname != "" {
		p.Step("hostname")
		p.Sys(syscall.SYS_SETHOSTNAME, s.Hostname, len(s.Hostname))
	}
	if n, ok := s.Rlimits["nproc"]; ok {
		// After the user namespace: the kernel would make it the bound of all processes of its creator, root's too.
		c.limit("nproc", n)
	}
	c.credentials()

	cwd := s.Cwd
	if cwd == "" {
		cwd = "/"
	}
	p.Step("working directory %s", cwd)
	p.Sys(syscall.SYS_CHDIR, cwd)

	if s.DieWithParent {
		c.dieWithParent()
	}
	if s.noNewPrivs() || s.Seccomp != "none" || s.Landlock != nil {
		p.Step("no_new_privs")
		p.Sys(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0)
	}
	if s.Landlock != nil {
		if err := c.landlock(); err != nil {
			return err
		}
	}
	if s.Init {
		p.Step("init")
		p.Init(append(append([]string{}, c.self...), os.Environ()...))
		p.Sys(syscall.SYS_SETSID)
	}
	p.Step("signals")
	p.Unmask()
	p.Step("descriptors")
	p.CloseFrom(s.KeepFDs)
	if s.Seccomp != "none" {
		c.seccomp()
	}
	p.Step("exec %s", c.argv[0])
	p.Exec(candidates(c.argv[0], s.Env["PATH"]), c.argv, s.environ())
	return nil
}

func (c *confinement) flags(names ...string) uintptr {
	var flags uintptr
	for _, n := range names {
		if c.spec.has(n) {
			flags |= namespaceFlags[n]
		}
	}
	return flags
}

func (c *confinement) unshare(flags uintptr) {
	if flags != 0 {
		c.p.Step("namespaces %s", strings.Join(c.spec.Namespaces, ","))
		c.p.Sys(syscall.SYS_UNSHARE, flags)
	}
}

// becomeOwner makes the sandbox's uid on the host the creator of its user namespace: what the kernel counts by user
// (inotify and fanotify, queued signals, message queues, locked memory) would otherwise be counted as root's, and one
// sandbox could leave none to root and all others. It keeps the capabilities that the namespaces need.
func (c *confinement) becomeOwner() {
	p := c.p
	uid, gid := outside(c.uidMap, c.spec.InnerUID), outside(c.gidMap, c.spec.InnerGID)
	p.Step("the sandbox's uid %d", uid)
	p.Sys(syscall.SYS_PRCTL, prSetKeepcaps, 1, 0, 0, 0)
	p.Sys(syscall.SYS_SETGROUPS, 0, 0)
	p.Sys(syscall.SYS_SETRESGID, gid, gid, gid)
	p.Sys(syscall.SYS_SETRESUID, uid, uid, uid)
	c.capset(effectiveCapabilities(), 0) // a change of uid makes none of those that are kept effective
}

// handshake tells the parent that the user namespace is there and waits for its maps.
func (c *confinement) handshake() {
	c.p.Step("user namespace: maps")
	c.p.Sys(syscall.SYS_WRITE, c.ask[1], "u", 1).Want(1)
	buf := make([]byte, 1)
	c.p.Sys(syscall.SYS_READ, c.answer[0], buf, 1).Want(1)
}

func (c *confinement) limits() {
	for name, n := range c.spec.Rlimits {
		if name != "nproc" {
			c.limit(name, n)
		}
	}
}

func (c *confinement) limit(name string, n uint64) {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(rlimits[name], &now); err == nil && n > now.Max && (!c.privileged || name == "nproc") {
		n = now.Max
	}
	v := &[2]uint64{n, n}
	c.p.Pin(v)
	c.p.Step("rlimit %s=%d", name, n)
	c.p.Sys(syscall.SYS_SETRLIMIT, rlimits[name], unsafe.Pointer(v))
}

func (c *confinement) loopback() {
	ifreq := make([]byte, 40)
	copy(ifreq, "lo")
	ifreq[16] = syscall.IFF_UP | syscall.IFF_RUNNING
	c.p.Step("loopback interface")
	sock := c.p.Sys(syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0).Out()
	c.p.Sys(syscall.SYS_IOCTL, sock, syscall.SIOCSIFFLAGS, ifreq)
	c.p.Sys(syscall.SYS_CLOSE, sock)
}

// credentials drops capabilities and becomes the uid of the sandbox, or what that is inside of a user namespace.
func (c *confinement) credentials() {
	p, s := c.p, c.spec
	uid, gid := c.uid, c.gid
	if s.UserNS {
		uid, gid = s.InnerUID, s.InnerGID
	}
	full := c.privileged || s.UserNS
	if full {
		p.Step("capability bounding set")
		for bit := 0; bit <= capMax; bit++ {
			if c.keep&(1<<bit) == 0 {
				p.Sys(syscall.SYS_PRCTL, prCapbsetDrop, bit, 0, 0, 0).Allow(syscall.EINVAL) // above the kernel's last one
			}
		}
		p.Step("keep capabilities")
		p.Sys(syscall.SYS_PRCTL, prSetKeepcaps, 1, 0, 0, 0)
		if c.privileged {
			p.Step("groups")
			p.Sys(syscall.SYS_SETGROUPS, 0, 0)
		}
		p.Step("gid %d", gid)
		p.Sys(syscall.SYS_SETRESGID, gid, gid, gid)
		p.Step("uid %d", uid)
		p.Sys(syscall.SYS_SETRESUID, uid, uid, uid)
	}
	keep := c.keep
	if !full {
		keep = 0
	}
	p.Step("capabilities")
	// Dropping the ambient ones comes first, they are bounded by the inheritable ones.
	p.Sys(syscall.SYS_PRCTL, prCapAmbient, 4, 0, 0, 0)
	c.capset(keep, keep).Allow(bounded(c.keep)...)
	if full && uid != 0 {
		for bit := 0; bit <= capMax; bit++ {
			if c.keep&(1<<bit) != 0 {
				p.Sys(syscall.SYS_PRCTL, prCapAmbient, 2, bit, 0, 0)
			}
		}
	}
}

// capset makes set the permitted and the effective capabilities.
func (c *confinement) capset(set, inheritable uint64) launch.Call {
	const version3 = 0x20080522
	header := &struct {
		version uint32
		pid     int32
	}{version3, 0}
	low, high := uint32(set), uint32(set>>32)
	data := &[6]uint32{low, low, uint32(inheritable), high, high, uint32(inheritable >> 32)}
	c.p.Pin(header)
	c.p.Pin(data)
	return c.p.Sys(syscall.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(data))
}

// bounded allows "ALL" to ask for more than a kernel or its container has.
func bounded(keep uint64) []syscall.Errno {
	if keep == 1<<len(capabilityNames)-1 {
		return []syscall.Errno{syscall.EPERM}
	}
	return nil
}

// dieWithParent comes after the last change of credentials, which disarms the signal.
func (c *confinement) dieWithParent() {
	p := c.p
	p.Step("parent-death signal")
	p.Sys(syscall.SYS_PRCTL, prSetPdeathsig, int(syscall.SIGKILL), 0, 0, 0)
	if !c.forked {
		return
	}
	// Across pid namespaces getppid says nothing. A pipe that only the parent can write hangs up with it.
	fds := &struct {
		fd              int32
		events, revents int16
	}{int32(c.alive[0]), 1, 0}
	now := &syscall.Timespec{}
	p.Pin(fds)
	p.Pin(now)
	p.Step("the parent is gone")
	p.Sys(syscall.SYS_PPOLL, unsafe.Pointer(fds), 1, unsafe.Pointer(now), 0, 0).Want(0)
}

func (c *confinement) seccomp() {
	code := filter()
	prog := &struct {
		length uint16
		_      [6]byte
		filter unsafe.Pointer
	}{length: uint16(len(code) / 8), filter: unsafe.Pointer(&code[0])}
	c.p.Pin(prog)
	c.p.Step("seccomp")
	c.p.Sys(syscall.SYS_PRCTL, prSetSeccomp, 2, unsafe.Pointer(prog), 0, 0)
}

func candidates(program, search string) []string {
	if strings.Contains(program, "/") {
		return []string{program}
	}
	if search == "" {
		search = "/usr/local/bin:/usr/bin:/bin"
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if strings.HasPrefix(dir, "/") {
			out = append(out, path.Join(dir, program))
		}
	}
	if len(out) == 0 {
		out = []string{program}
	}
	return out
}

func asErrno(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return syscall.EINVAL
}
