// Package launch starts a process whose whole way to exec is a list of system calls, prepared before the fork.
//
// A Go program has several threads from its first moment, and the kernel refuses some calls to such a process
// (unshare of a user namespace) and applies others to one thread only (capabilities, no_new_privs, seccomp,
// Landlock). A forked copy has exactly one thread, but no working Go runtime: it may only make system calls. So
// the parent writes them down, arguments and all, and the child performs them one by one. There is no second start
// of a runtime and no helper in another language.
package launch

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// Failed is the exit status of a process that did not get as far as its exec.
const Failed = 125

// Reg names the result of an earlier step (usually a descriptor) that a later one takes as an argument.
type Reg int

// op is one system call. The child reads it only: writing a pointer would need the runtime's write barrier.
type op struct {
	nr     uintptr
	arg    [6]uintptr
	reg    [6]int16       // register that replaces the argument, or -1
	out    int16          // register that receives the result, or -1
	store  unsafe.Pointer // an int32 that receives the result, or nil
	allow  [4]syscall.Errno
	want   uintptr // exact result, when wanted
	wanted bool
	step   int32
	kind   int32
}

const (
	kindCall = iota
	kindInit // fork: the parent of the two becomes a reaping init, the child goes on
)

type memory struct {
	at   unsafe.Pointer
	size int
}

// Program is a list of system calls in the making.
type Program struct {
	ops     []op
	regs    [256]uintptr
	nregs   int
	steps   []string
	pins    []any
	report  int // descriptor that failures are written to
	message [2]int32
	all     uint64 // signal mask with everything set
	none    uint64
	saved   uint64
	dfl     [4]uint64 // struct sigaction of SIG_DFL
	blank   []memory  // command line and environment, for an init to wipe
}

// New returns an empty program.
func New() *Program {
	return &Program{report: -1, all: ^uint64(0), steps: []string{"start"}}
}

// Step names what the following calls are for; failures are reported under this name.
func (p *Program) Step(format string, args ...any) {
	p.steps = append(p.steps, fmt.Sprintf(format, args...))
}

// Call is one system call that has been added to a program.
type Call struct {
	p *Program
	i int
}

// Sys adds a system call. Arguments are integers, strings (passed as C strings), byte slices, registers, unsafe
// pointers to memory that the caller pins, or nil.
func (p *Program) Sys(nr uintptr, args ...any) Call {
	o := op{nr: nr, out: -1, step: int32(len(p.steps) - 1), reg: [6]int16{-1, -1, -1, -1, -1, -1}}
	for i, a := range args {
		switch v := a.(type) {
		case nil:
		case int:
			o.arg[i] = uintptr(v)
		case uint32:
			o.arg[i] = uintptr(v)
		case uint64:
			o.arg[i] = uintptr(v)
		case uintptr:
			o.arg[i] = v
		case string:
			o.arg[i] = p.CString(v)
		case []byte:
			o.arg[i] = p.Bytes(v)
		case Reg:
			o.reg[i] = int16(v)
		case unsafe.Pointer:
			o.arg[i] = uintptr(v)
		default:
			panic(fmt.Sprintf("launch: argument of type %T", a))
		}
	}
	p.ops = append(p.ops, o)
	return Call{p, len(p.ops) - 1}
}

// Allow lists errors (at most four in all) after which the program goes on.
func (c Call) Allow(errs ...syscall.Errno) Call {
	o := &c.p.ops[c.i]
	for _, e := range errs {
		placed := false
		for j := range o.allow {
			if o.allow[j] == 0 {
				o.allow[j], placed = e, true
				break
			}
		}
		if !placed {
			panic("launch: too many allowed errors")
		}
	}
	return c
}

// AnyError lets the program go on whatever the call returns.
func (c Call) AnyError() Call {
	c.p.ops[c.i].allow[0] = anyError
	return c
}

const anyError = syscall.Errno(0xffff)

// Want makes every result but this one a failure.
func (c Call) Want(result int) Call {
	c.p.ops[c.i].want, c.p.ops[c.i].wanted = uintptr(result), true
	return c
}

// Out keeps the result for later calls.
func (c Call) Out() Reg {
	p := c.p
	if p.nregs == len(p.regs) {
		panic("launch: too many registers")
	}
	r := Reg(p.nregs)
	p.nregs++
	p.regs[r] = ^uintptr(0)
	p.ops[c.i].out = int16(r)
	return r
}

// Into writes the result, as an int32, into pinned memory.
func (c Call) Into(address unsafe.Pointer) { c.p.ops[c.i].store = address }

// CString pins a NUL-terminated copy of s and returns its address.
func (p *Program) CString(s string) uintptr {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return p.Bytes(b)
}

// Bytes pins b and returns its address.
func (p *Program) Bytes(b []byte) uintptr {
	if len(b) == 0 {
		b = make([]byte, 1)
	}
	p.pins = append(p.pins, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// Pin keeps memory alive whose address was passed as an unsafe pointer.
func (p *Program) Pin(v any) { p.pins = append(p.pins, v) }

// Strings pins a NULL-terminated vector of C strings, as execve takes it.
func (p *Program) Strings(list []string) uintptr {
	v := make([]uintptr, len(list)+1)
	for i, s := range list {
		v[i] = p.CString(s)
	}
	p.pins = append(p.pins, v)
	return uintptr(unsafe.Pointer(&v[0]))
}

// Init splits the process in two: the older one becomes a small init that forwards signals to the younger, reaps
// whatever is orphaned, and ends with the younger one's status; the younger one goes on with the program.
func (p *Program) Init(blank []string) {
	for _, s := range blank {
		if len(s) > 0 {
			p.blank = append(p.blank, memory{unsafe.Pointer(unsafe.StringData(s)), len(s)})
		}
	}
	p.ops = append(p.ops, op{kind: kindInit, out: -1, step: int32(len(p.steps) - 1)})
}

// Unmask gives the process the signal dispositions and the mask of a fresh one. It belongs right before the exec.
func (p *Program) Unmask() {
	for sig := 1; sig <= 64; sig++ {
		if s := syscall.Signal(sig); s != syscall.SIGKILL && s != syscall.SIGSTOP {
			p.Sys(syscall.SYS_RT_SIGACTION, sig, unsafe.Pointer(&p.dfl), 0, 8).AnyError()
		}
	}
	p.Sys(syscall.SYS_RT_SIGPROCMASK, sigSetMask, unsafe.Pointer(&p.none), 0, 8)
}

// Exec ends the program: the candidates are tried in order until one can be executed.
func (p *Program) Exec(candidates, argv, env []string) {
	av, ev := p.Strings(argv), p.Strings(env)
	for i, path := range candidates {
		c := p.Sys(syscall.SYS_EXECVE, path, av, ev)
		if i < len(candidates)-1 {
			c.Allow(syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES)
		}
	}
}

const (
	sigSetMask   = 2
	sigSetMaskBl = 0
)

// StepError says which step of a program failed.
type StepError struct {
	Step  string
	Errno syscall.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }

// Unwrap gives the errno to errors.Is.
func (e *StepError) Unwrap() error { return e.Errno }

// Child is a process that is on its way through a program.
type Child struct {
	Pid    int
	p      *Program
	report int
}

// Fork starts the program in a new process, a copy of this one; cloneflags may hold namespaces to be made with it.
// The calling goroutine must be locked to its thread if the program arms a parent-death signal.
func (p *Program) Fork(cloneflags uintptr) (*Child, error) { return p.start(cloneflags, false) }

// Vfork is Fork without copying the memory: the calling thread sleeps until the child has exec'ed or failed.
// The program must not hold an Init.
func (p *Program) Vfork() (*Child, error) {
	return p.start(syscall.CLONE_VFORK|syscall.CLONE_VM, true)
}

func (p *Program) start(flags uintptr, vfork bool) (*Child, error) {
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	// Programs rearrange the low descriptors; the report stays out of their way.
	const firstReport = 64
	high, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(pipe[1]), syscall.F_DUPFD_CLOEXEC, firstReport)
	_ = syscall.Close(pipe[1])
	if e != 0 {
		_ = syscall.Close(pipe[0])
		return nil, fmt.Errorf("pipe: %w", e)
	}
	pipe[1] = int(high)
	p.report = pipe[1]
	runtime.LockOSThread()
	var pid uintptr
	var errno syscall.Errno
	if vfork {
		pid, errno = p.vfork(flags | uintptr(syscall.SIGCHLD))
	} else {
		pid, errno = p.fork(flags | uintptr(syscall.SIGCHLD))
	}
	runtime.UnlockOSThread()
	runtime.KeepAlive(p)
	_ = syscall.Close(pipe[1])
	if errno != 0 {
		_ = syscall.Close(pipe[0])
		return nil, &StepError{"start a process", errno}
	}
	return &Child{Pid: int(pid), p: p, report: pipe[0]}, nil
}

// Wait returns nil when the program has been executed to its exec, otherwise the step that failed. It does not reap.
func (c *Child) Wait() error {
	defer func() { _ = syscall.Close(c.report) }()
	var b [8]byte
	for n := 0; n < len(b); {
		m, err := syscall.Read(c.report, b[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return nil
		}
		n += m
	}
	return c.p.stepError(int32(binary.NativeEndian.Uint32(b[:4])), int32(binary.NativeEndian.Uint32(b[4:])))
}

func (p *Program) stepError(index, errno int32) error {
	return &StepError{p.steps[p.ops[index].step], syscall.Errno(errno)}
}

// Become runs the program in the calling thread, which then is the process: after success it does not return.
func (p *Program) Become() error {
	runtime.LockOSThread()
	i, errno := p.perform()
	return p.stepError(i, errno)
}

//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) fork(flags uintptr) (uintptr, syscall.Errno) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetMaskBl, uintptr(unsafe.Pointer(&p.all)), uintptr(unsafe.Pointer(&p.saved)), 8, 0, 0)
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		p.child()
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(&p.saved)), 0, 8, 0, 0)
	return pid, errno
}

//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) vfork(flags uintptr) (uintptr, syscall.Errno) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetMaskBl, uintptr(unsafe.Pointer(&p.all)), uintptr(unsafe.Pointer(&p.saved)), 8, 0, 0)
	pid, errno := rawVfork(syscall.SYS_CLONE, flags)
	if errno == 0 && pid == 0 {
		p.child()
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(&p.saved)), 0, 8, 0, 0)
	return pid, errno
}

// child performs the program and never returns.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) child() {
	i, errno := p.perform()
	p.message[0], p.message[1] = i, errno
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(p.report), uintptr(unsafe.Pointer(&p.message)), 8)
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, Failed, 0, 0)
	}
}

// perform runs until a call fails, and returns its index and the error.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) perform() (int32, int32) {
	for i := 0; i < len(p.ops); i++ {
		o := &p.ops[i]
		if o.kind == kindInit {
			pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
			if errno != 0 {
				return int32(i), int32(errno)
			}
			if pid != 0 {
				p.reap(pid)
			}
			continue
		}
		a0, a1, a2, a3, a4, a5 := o.arg[0], o.arg[1], o.arg[2], o.arg[3], o.arg[4], o.arg[5]
		if o.reg[0] >= 0 {
			a0 = p.regs[o.reg[0]]
		}
		if o.reg[1] >= 0 {
			a1 = p.regs[o.reg[1]]
		}
		if o.reg[2] >= 0 {
			a2 = p.regs[o.reg[2]]
		}
		if o.reg[3] >= 0 {
			a3 = p.regs[o.reg[3]]
		}
		if o.reg[4] >= 0 {
			a4 = p.regs[o.reg[4]]
		}
		if o.reg[5] >= 0 {
			a5 = p.regs[o.reg[5]]
		}
		var r uintptr
		var errno syscall.Errno
		for {
			r, _, errno = syscall.RawSyscall6(o.nr, a0, a1, a2, a3, a4, a5)
			if errno != syscall.EINTR {
				break
			}
		}
		if errno != 0 {
			if o.allow[0] != anyError && o.allow[0] != errno && o.allow[1] != errno && o.allow[2] != errno && o.allow[3] != errno {
				return int32(i), int32(errno)
			}
			continue
		}
		if o.wanted && r != o.want {
			return int32(i), int32(syscall.ECANCELED)
		}
		if o.out >= 0 {
			p.regs[o.out] = r
		}
		if o.store != nil {
			*(*int32)(o.store) = int32(r)
		}
	}
	return int32(len(p.ops) - 1), int32(syscall.ENOEXEC)
}

// reap is the init of a sandbox: all signals are blocked and taken from the queue one at a time.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) reap(pid uintptr) {
	const prSetDumpable, prSetName = 4, 15
	syscall.RawSyscall6(syscall.SYS_PRCTL, prSetDumpable, 0, 0, 0, 0, 0)
	for i := 0; i < len(p.blank); i++ { // the command line names host paths, and /proc/1/cmdline is for all to read
		for j := 0; j < p.blank[i].size; j++ {
			*(*byte)(unsafe.Add(p.blank[i].at, j)) = 0
		}
	}
	syscall.RawSyscall(sysCloseRange, 3, 0xffffffff, 0) // the report, too: its end tells the parent that all went well
	var status int32
	var usage [18]int64
	for {
		sig, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&p.all)), 0, 0, 8, 0, 0)
		if errno != 0 {
			continue
		}
		if syscall.Signal(sig) != syscall.SIGCHLD {
			syscall.RawSyscall(syscall.SYS_KILL, pid, sig, 0)
			continue
		}
		for {
			w, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), 1, uintptr(unsafe.Pointer(&usage)), 0, 0)
			if errno != 0 || w == 0 {
				break
			}
			if w == pid {
				code := uintptr(status>>8) & 0xff
				if s := uintptr(status) & 0x7f; s != 0 {
					code = 128 + s
				}
				for {
					syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
				}
			}
		}
	}
}

const sysCloseRange = 436

// CloseFrom adds the closing of every descriptor from 3 on but those in keep (sorted or not), which survive the exec.
func (p *Program) CloseFrom(keep []int) {
	next := 3
	for _, fd := range sorted(keep) {
		p.Sys(syscall.SYS_FCNTL, fd, syscall.F_SETFD, 0)
		if fd < next {
			next = max(next, fd+1)
			continue
		}
		if fd > next {
			p.markCloexec(next, fd-1)
		}
		next = fd + 1
	}
	p.markCloexec(next, 0xffffffff)
}

// markCloexec leaves descriptors open until the exec, so that its failure can still be reported.
func (p *Program) markCloexec(first, last int) {
	const closeRangeCloexec = 4
	p.Sys(sysCloseRange, first, last, closeRangeCloexec)
}

func sorted(list []int) []int {
	out := append([]int(nil), list...)
	for i := range out {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}
