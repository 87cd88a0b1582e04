package inside

import (
	"fmt"
	"syscall"
	"time"
)

// exitStatus is how a process ended, as it is told on the wire.
type exitStatus struct {
	Code   *int    `json:"code"`
	Signal *string `json:"signal"`
}

func (e exitStatus) String() string {
	if e.Signal != nil {
		return "killed by " + *e.Signal
	}
	return fmt.Sprintf("exit code %d", *e.Code)
}

// spawn starts a process as the app with its output kept in out.
func (a *agent) spawn(out *output, stdout, stderr string, c command) (int, <-chan exitStatus, error) {
	var err error
	if c.stdout, err = out.pipe(stdout); err != nil {
		return 0, nil, err
	}
	defer func() { _ = syscall.Close(c.stdout) }()
	if c.stderr, err = out.pipe(stderr); err != nil {
		return 0, nil, err
	}
	defer func() { _ = syscall.Close(c.stderr) }()
	a.reaper.begin()
	defer a.reaper.begun()
	pid, err := start(c, a.who, a.nulls)
	if err != nil {
		return 0, nil, err
	}
	status := a.reaper.exit(pid)
	result := make(chan exitStatus, 1)
	go func() { result <- describe(<-status) }()
	return pid, result, nil
}

func describe(s syscall.WaitStatus) exitStatus {
	if s.Signaled() {
		name := signalName(s.Signal())
		return exitStatus{Signal: &name}
	}
	code := s.ExitStatus()
	return exitStatus{Code: &code}
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGABRT: "SIGABRT", syscall.SIGALRM: "SIGALRM", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE",
	syscall.SIGHUP: "SIGHUP", syscall.SIGILL: "SIGILL", syscall.SIGINT: "SIGINT", syscall.SIGKILL: "SIGKILL",
	syscall.SIGPIPE: "SIGPIPE", syscall.SIGQUIT: "SIGQUIT", syscall.SIGSEGV: "SIGSEGV", syscall.SIGSYS: "SIGSYS",
	syscall.SIGTERM: "SIGTERM", syscall.SIGTRAP: "SIGTRAP", syscall.SIGUSR1: "SIGUSR1", syscall.SIGUSR2: "SIGUSR2",
	syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ",
}

func signalName(s syscall.Signal) string {
	if n, ok := signalNames[s]; ok {
		return n
	}
	return fmt.Sprintf("SIG%d", int(s))
}

// watch waits for the app's end. A first process that ends with 0 and leaves others behind has made itself a daemon:
// then the app ends with the last of them.
func (a *agent) watch(pid int, exit <-chan exitStatus) {
	status := <-exit
	if status.Code != nil && *status.Code == 0 && a.init {
		for alive() {
			select {
			case <-a.nobodyLeft:
			case <-time.After(time.Second):
			}
		}
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	a.killAll(syscall.SIGKILL)
	a.finish(&status)
}

func (a *agent) finish(status *exitStatus) {
	a.mu.Lock()
	if a.state == "exited" {
		a.mu.Unlock()
		return
	}
	if status == nil {
		code := 127
		status = &exitStatus{Code: &code}
	}
	a.state, a.exit, a.pid = "exited", status, 0
	zygotes := a.zygotes
	a.zygotes = nil
	close(a.done)
	a.mu.Unlock()
	for _, z := range zygotes {
		z.kill()
	}
	a.relay.point(nil)
	a.out.end()
}

// killAll signals every process of the sandbox but the agent. Only an init may: elsewhere -1 would mean the machine.
func (a *agent) killAll(s syscall.Signal) {
	if a.init {
		_ = syscall.Kill(-1, s)
	}
}

// stop ends the app: SIGTERM to its process group, after the grace SIGKILL to everything.
func (a *agent) stop(grace time.Duration) {
	a.mu.Lock()
	a.stopped = true
	pid, zygotes, started := a.pid, a.zygotes, a.started
	a.zygotes = nil
	a.mu.Unlock()
	for _, z := range zygotes {
		z.kill()
	}
	if !started {
		code := 0
		a.finish(&exitStatus{Code: &code})
		return
	}
	if pid == 0 { // between two steps of a start, which sees that it is to end
		a.killAll(syscall.SIGKILL)
		return
	}
	a.relay.hold(nil) // a server that drains would wait for it
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	select {
	case <-a.done:
		return
	case <-time.After(grace):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	a.killAll(syscall.SIGKILL)
	select {
	case <-a.done:
	case <-time.After(5 * time.Second): // in the kernel, out of reach: the supervisor ends the sandbox
	}
}
