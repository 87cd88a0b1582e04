package inside

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"vibed.dev/agent/launch"
)

// Identity is whom the app runs as.
type Identity struct {
	UID, GID int
	// Same is set when the sandbox has one uid only (user namespace made without root): agent and app share it.
	Same bool
}

// Limits are the bounds that a claim or a start brings. Zero means none.
type Limits struct {
	DiskBytes int64  `json:"disk_bytes"`
	Nproc     uint64 `json:"nproc"`
	Nofile    uint64 `json:"nofile"`
}

// reaper collects every child, those that the agent started and those that were orphaned to it. Nothing is held
// while a process is being started: a status that comes before its process is known waits for it.
type reaper struct {
	mu       sync.Mutex
	waiting  map[int]chan syscall.WaitStatus
	early    map[int]syscall.WaitStatus
	starting int // processes whose numbers are not known yet: only one of these can be in early
	onReaped func()
}

func newReaper() *reaper {
	return &reaper{waiting: map[int]chan syscall.WaitStatus{}, early: map[int]syscall.WaitStatus{}}
}

// collect reaps what there is to reap. Called after each SIGCHLD.
func (r *reaper) collect() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			break
		}
		r.mu.Lock()
		if ch, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			ch <- status
		} else if r.starting > 0 {
			r.early[pid] = status
		}
		r.mu.Unlock()
	}
	if r.onReaped != nil {
		r.onReaped()
	}
}

// begin and begun are around the start of a process. The status of an orphan of long ago is kept by nobody: its number
// may be the next process's.
func (r *reaper) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting++
}

func (r *reaper) begun() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.starting--; r.starting == 0 {
		clear(r.early)
	}
}

// exit returns where the status of a process will arrive. pid must have just been started.
func (r *reaper) exit(pid int) <-chan syscall.WaitStatus {
	ch := make(chan syscall.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if status, ok := r.early[pid]; ok {
		delete(r.early, pid)
		ch <- status
	} else {
		r.waiting[pid] = ch
	}
	return ch
}

// alive says whether the agent has any child left, orphans included.
func alive() bool {
	var info [128]byte
	const pAll, wNohang, wExited, wNowait = 0, 1, 4, 0x01000000
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, uintptr(unsafe.Pointer(&info)), wNohang|wExited|wNowait, 0, 0)
		if e != syscall.EINTR {
			return e != syscall.ECHILD
		}
	}
}

// command is a process to start as the app.
type command struct {
	argv   []string
	env    []string
	dir    string
	stdout int // descriptors of the agent
	stderr int
	extra  int // becomes descriptor 3, or -1
	limits Limits
}

// start runs a command as the app: own session, the app's uid, no capabilities, no_new_privs, limits, and nothing
// open but its standard streams.
func start(c command, who Identity, nulls int) (int, error) {
	p := launch.New()
	p.Step("session")
	p.Sys(syscall.SYS_SETSID)
	p.Step("standard streams")
	// Copies above 9 first: the sources may be any of the targets.
	const spare, dupfd = 10, 1030 // F_DUPFD_CLOEXEC
	in := p.Sys(syscall.SYS_FCNTL, nulls, dupfd, spare).Out()
	out := p.Sys(syscall.SYS_FCNTL, c.stdout, dupfd, spare).Out()
	err := p.Sys(syscall.SYS_FCNTL, c.stderr, dupfd, spare).Out()
	keep := []int{}
	var extra launch.Reg
	if c.extra >= 0 {
		extra = p.Sys(syscall.SYS_FCNTL, c.extra, dupfd, spare).Out()
		keep = append(keep, 3)
	}
	p.Sys(syscall.SYS_DUP3, in, 0, 0)
	p.Sys(syscall.SYS_DUP3, out, 1, 0)
	p.Sys(syscall.SYS_DUP3, err, 2, 0)
	if c.extra >= 0 {
		p.Sys(syscall.SYS_DUP3, extra, 3, 0)
	}
	for _, l := range []struct {
		name     string
		resource int
		n        uint64
	}{{"nproc", rlimitNproc, c.limits.Nproc}, {"nofile", syscall.RLIMIT_NOFILE, c.limits.Nofile}, {"core", syscall.RLIMIT_CORE, 0}} {
		if l.n == 0 && l.name != "core" {
			continue
		}
		v := &[2]uint64{l.n, l.n}
		p.Pin(v)
		p.Step("limit %s=%d", l.name, l.n)
		p.Sys(syscall.SYS_SETRLIMIT, l.resource, unsafe.Pointer(v))
	}
	const prCapbsetDrop, prSetNoNewPrivs, prCapAmbient = 24, 38, 47
	p.Step("capabilities")
	for bit := 0; bit < 64; bit++ {
		p.Sys(syscall.SYS_PRCTL, prCapbsetDrop, bit, 0, 0, 0).AnyError() // needs a right that the agent may lack; no_new_privs is what counts
	}
	p.Sys(syscall.SYS_PRCTL, prCapAmbient, 4, 0, 0, 0).AnyError()
	if !who.Same {
		p.Step("become gid %d", who.GID)
		p.Sys(syscall.SYS_SETGROUPS, 0, 0)
		p.Sys(syscall.SYS_SETRESGID, who.GID, who.GID, who.GID)
		p.Step("become uid %d", who.UID)
		p.Sys(syscall.SYS_SETRESUID, who.UID, who.UID, who.UID)
	}
	header := &[2]uint32{0x20080522, 0}
	none := &[6]uint32{}
	p.Pin(header)
	p.Pin(none)
	p.Step("drop capabilities")
	p.Sys(syscall.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(none))
	p.Step("no_new_privs")
	p.Sys(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0)
	p.Step("working directory %s", c.dir)
	p.Sys(syscall.SYS_CHDIR, c.dir)
	p.Step("umask")
	p.Sys(syscall.SYS_UMASK, 0o022)
	p.Step("signals")
	p.Unmask()
	p.Step("descriptors")
	p.CloseFrom(keep)
	p.Step("run %s", c.argv[0])
	p.Exec(lookPath(c.argv[0], c.env, c.dir), c.argv, c.env)
	child, e := p.Vfork()
	if e != nil {
		return 0, e
	}
	if e := child.Wait(); e != nil {
		return child.Pid, e // it is reaped like any other
	}
	return child.Pid, nil
}

const rlimitNproc = 6

// lookPath lists the paths at which a program may be, by the PATH that it is to run with.
func lookPath(program string, env []string, dir string) []string {
	if strings.Contains(program, "/") {
		return []string{program}
	}
	var out []string
	for _, e := range env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			out = nil
			for _, d := range strings.Split(list, ":") {
				if d == "" {
					d = dir
				}
				out = append(out, d+"/"+program)
			}
		}
	}
	if len(out) == 0 {
		out = []string{"/usr/bin/" + program}
	}
	return out
}

// lockedAs runs f on a thread of its own, never the first, whose credentials are the app's. The thread ends with it.
func lockedAs(who Identity, f func() error) error {
	if who.Same || os.Getuid() == who.UID {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not be used by anyone else
		if syscall.Gettid() == os.Getpid() {
			// The first thread stands for the process, and would lose the signal by which it dies with its parent. As long
			// as it waits here, another one does it.
			defer runtime.UnlockOSThread()
			result <- lockedAs(who, f)
			return
		}
		for _, step := range []struct {
			name    string
			nr      uintptr
			a, b, c int
		}{{"setgroups", syscall.SYS_SETGROUPS, 0, 0, 0}, {"setresgid", syscall.SYS_SETRESGID, who.GID, who.GID, who.GID},
			{"setresuid", syscall.SYS_SETRESUID, who.UID, who.UID, who.UID}} {
			if _, _, e := syscall.RawSyscall(step.nr, uintptr(step.a), uintptr(step.b), uintptr(step.c)); e != 0 {
				result <- fmt.Errorf("%s: %w", step.name, e)
				return
			}
		}
		result <- f()
	}()
	return <-result
}

// identity settles whom the app runs as in this sandbox.
func identity(uid int) Identity {
	who := Identity{UID: uid, GID: uid}
	if os.Getuid() != 0 || !mapped("/proc/self/uid_map", uid) || !mapped("/proc/self/gid_map", uid) {
		return Identity{UID: os.Getuid(), GID: os.Getgid(), Same: true}
	}
	return who
}

func mapped(file string, id int) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return true // no user namespaces here
	}
	for _, line := range strings.Split(string(text), "\n") {
		var inner, outer, count int
		if n, _ := fmt.Sscan(line, &inner, &outer, &count); n == 3 && id >= inner && id < inner+count {
			return true
		}
	}
	return false
}
