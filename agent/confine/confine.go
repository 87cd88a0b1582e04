// Package confine runs a program in namespaces, with a root file system, a uid, limits and a system call filter
// of its own. docs/reference/supervisor.md, section Confine spec, is its contract.
package confine

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

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
