// Package confine runs a program in namespaces, with a root file system, a uid, limits and a system call filter
// of its own. docs/reference/supervisor.md, section Confine spec, is its contract.
package confine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"vibed.dev/agent/launch"
)

const usage = "usage: vibed-agent confine SPEC.json -- argv…"

// Main is the mode "confine". It ends as the program does (same code, same signal), or with 125 if that never ran.
func Main(args []string) int {
	debug.SetGCPercent(-1) // it lives for milliseconds, or sleeps
	if len(args) < 3 || args[1] != "--" {
		fmt.Fprintln(os.Stderr, usage)
		return launch.Failed
	}
	spec, err := readSpec(args[0])
	if err != nil {
		return fail(err)
	}
	c := &confinement{spec: spec, argv: args[2:], p: launch.New(), parent: os.Getppid(), self: args}
	return c.run()
}

func fail(err error) int {
	var step *launch.StepError
	if errors.As(err, &step) {
		if cure := cureFor(step); cure != "" {
			err = fmt.Errorf("%w (%s)", err, cure)
		}
	}
	fmt.Fprintln(os.Stderr, "vibed-agent confine: "+err.Error())
	return launch.Failed
}

// cureFor says what usually has to change when a step fails.
func cureFor(e *launch.StepError) string {
	is := func(prefix string) bool { return strings.HasPrefix(e.Step, prefix) }
	switch {
	case e.Errno == syscall.ENOSYS:
		return "the kernel is too old: 5.12 or newer is needed"
	case is("start a process") || is("namespaces") || is("user namespace"):
		switch e.Errno {
		case syscall.EPERM:
			return "user namespaces are not allowed here: sysctl kernel.unprivileged_userns_clone=1, " +
				"kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
		case syscall.ENOSPC, syscall.EUSERS:
			return "raise sysctl user.max_user_namespaces"
		case syscall.EAGAIN:
			return "the limit on processes of this user is reached"
		}
	case is("exec "):
		switch e.Errno {
		case syscall.ENOENT:
			return "the program, or the loader that it names, is not in the root that the spec describes"
		case syscall.EACCES:
			return "the sandbox's uid may not execute it"
		}
	case is("mount proc") && e.Errno == syscall.EPERM:
		return "/proc is partly hidden here, as in a container: give it an unmasked /proc, or run as root"
	case is("target ") && (e.Errno == syscall.EROFS || e.Errno == syscall.ENOENT):
		return "the directory must exist in the image below it"
	case is("cgroup ") && (e.Errno == syscall.EACCES || e.Errno == syscall.EPERM):
		return "the cgroup is not delegated to this user"
	case is("the parent is gone"):
		return "die_with_parent: what started confine has ended"
	case is("bind ") && e.Errno == syscall.EACCES:
		return "this user may not search the directories above it"
	}
	return ""
}

// confinement is one run of the mode.
type confinement struct {
	spec   *Spec
	argv   []string
	self   []string
	p      *launch.Program
	parent int

	privileged bool // root with CAP_SYS_ADMIN where the host's mounts live
	forked     bool
	keep       uint64 // capabilities
	uid, gid   int    // outside
	uidMap     [][3]int
	gidMap     [][3]int

	ask, answer, alive [2]int // pipes: child ▸ parent, parent ▸ child, and one that only the parent writes

	oldRoot launch.Reg
	loops   []*os.File // held until the child has mounted them
}

func (c *confinement) run() int {
	runtime.LockOSThread() // the death of the thread that forks is what a parent-death signal means
	if err := c.prepare(); err != nil {
		return fail(err)
	}
	if !c.forked {
		return fail(c.p.Become())
	}
	// Signals are held back from here on, so that none is lost between the fork and its forwarding.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGCONT)
	child, err := c.p.Fork(c.cloneFlags())
	if err != nil {
		return fail(err)
	}
	_ = syscall.Close(c.answer[0])
	_ = syscall.Close(c.ask[1])
	_ = syscall.Close(c.alive[0])
	go func() {
		for s := range signals {
			_ = syscall.Kill(child.Pid, s.(syscall.Signal))
		}
	}()
	if c.spec.UserNS {
		if err := c.mapIDs(child.Pid); err != nil {
			_ = syscall.Kill(child.Pid, syscall.SIGKILL)
			wait(child.Pid)
			return fail(err)
		}
	}
	if err := child.Wait(); err != nil {
		wait(child.Pid)
		return fail(err)
	}
	c.letGo()
	status := wait(child.Pid)
	if status.Signaled() {
		dieOf(status.Signal())
	}
	return status.ExitStatus()
}

// letGo closes what was kept for the program only: while this process holds a copy of a listening socket or a pipe,
// its peer cannot see the program's end of it closed.
func (c *confinement) letGo() {
	for _, loop := range c.loops {
		_ = loop.Close()
	}
	for _, fd := range c.spec.KeepFDs {
		_ = syscall.Close(fd)
	}
	if null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0); err == nil {
		_ = syscall.Dup3(null, 0, 0)
		_ = syscall.Dup3(null, 1, 0)
		_ = syscall.Close(null)
	}
}

func wait(pid int) syscall.WaitStatus {
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			return status
		}
	}
}

// dieOf ends this process by the signal that ended the program, so that whoever waits for it sees the same.
func dieOf(s syscall.Signal) {
	var none syscall.Rlimit
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &none)
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s)
	if s != syscall.SIGKILL {
		// A Go program turns some signals into traces of its own; the code says the same in the shell's way.
		os.Exit(128 + int(s))
	}
	select {}
}

func (c *confinement) cloneFlags() uintptr {
	var flags uintptr
	if c.spec.has("pid") {
		flags |= syscall.CLONE_NEWPID
	}
	if c.spec.UserNS && !c.privileged {
		flags |= syscall.CLONE_NEWUSER
	}
	return flags
}

// mapIDs waits until the child has its user namespace and gives it its uids.
func (c *confinement) mapIDs(pid int) error {
	var b [1]byte
	for {
		n, err := syscall.Read(c.ask[0], b[:])
		if err == syscall.EINTR {
			continue
		}
		if n != 1 {
			return nil // it failed before; its report says where
		}
		break
	}
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	if !c.privileged {
		if err := os.WriteFile(proc+"setgroups", []byte("deny"), 0); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
	}
	if err := os.WriteFile(proc+"gid_map", mapText(c.gidMap), 0); err != nil {
		return fmt.Errorf("gid map %v: %w", c.gidMap, err)
	}
	if err := os.WriteFile(proc+"uid_map", mapText(c.uidMap), 0); err != nil {
		return fmt.Errorf("uid map %v: %w", c.uidMap, err)
	}
	_, err := syscall.Write(c.answer[1], b[:])
	return err
}

func mapText(m [][3]int) []byte {
	var b strings.Builder
	for _, r := range m {
		fmt.Fprintf(&b, "%d %d %d\n", r[0], r[1], r[2])
	}
	return []byte(b.String())
}

// outside translates an id of the sandbox to the host's, or returns -1.
func outside(m [][3]int, id int) int {
	for _, r := range m {
		if id >= r[0] && id < r[0]+r[2] {
			return r[1] + id - r[0]
		}
	}
	return -1
}

// whoami settles ids and privileges.
func (c *confinement) whoami() error {
	s := c.spec
	c.keep, _ = s.capabilities()
	c.privileged = os.Geteuid() == 0 && effectiveCapabilities()&(1<<capSysAdmin) != 0
	c.forked = s.UserNS || s.has("pid")
	c.uid, c.gid = os.Geteuid(), os.Getegid()
	if s.UID != nil {
		c.uid = *s.UID
	}
	c.gid = c.gidOrUID()
	if !c.privileged {
		if c.uid != os.Geteuid() || c.gid != os.Getegid() {
			return fmt.Errorf("uid %d, gid %d: only root can give a sandbox another uid than its own (%d, %d); leave them out",
				c.uid, c.gid, os.Geteuid(), os.Getegid())
		}
		if !s.UserNS && len(s.Namespaces) > 0 {
			return errors.New("namespaces need root, or userns: true")
		}
		if len(s.UIDMap) > 0 || len(s.GIDMap) > 0 {
			return errors.New("uid_map and gid_map need root; without it a sandbox has one uid, the caller's own")
		}
	}
	c.uidMap, c.gidMap = s.UIDMap, s.GIDMap
	if len(c.uidMap) == 0 {
		c.uidMap = [][3]int{{s.InnerUID, c.uid, 1}}
	}
	if len(c.gidMap) == 0 {
		c.gidMap = [][3]int{{s.InnerGID, c.gid, 1}}
	}
	if s.UserNS && (outside(c.uidMap, s.InnerUID) < 0 || outside(c.gidMap, s.InnerGID) < 0) {
		return fmt.Errorf("inner_uid %d and inner_gid %d must be in uid_map and gid_map", s.InnerUID, s.InnerGID)
	}
	return nil
}

func (c *confinement) gidOrUID() int {
	switch {
	case c.spec.GID != nil:
		return *c.spec.GID
	case c.spec.UID != nil && c.privileged:
		return *c.spec.UID
	}
	return os.Getegid()
}

func effectiveCapabilities() uint64 {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			return v
		}
	}
	return 0
}

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
