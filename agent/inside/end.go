package inside

import (
	"fmt"
	"slices"
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

// watch waits for the app's end: that of its first process, and of those that it leaves behind while they are the app.
func (a *agent) watch(pid int, exit <-chan exitStatus) {
	status := <-exit
	told := false
	for a.init && alive() {
		goesOn, serves := a.livesOn(status)
		if !goesOn {
			break
		}
		if serves && !told {
			told = true
			a.out.system("the first process of the app ended (%s); another one serves on", status)
		}
		select {
		case <-a.nobodyLeft:
		case <-time.After(time.Second):
		}
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	a.killAll(syscall.SIGKILL)
	a.mu.Lock()
	if a.verdict != nil {
		status = *a.verdict
	}
	a.mu.Unlock()
	a.finish(&status)
}

// livesOn says whether what the first process left behind is still the app: a daemon, when it ended well; a server that
// is given time to end, when it was told to (a shell that is told ends at once); and whoever serves (serves is true then).
func (a *agent) livesOn(status exitStatus) (goesOn, serves bool) {
	a.mu.Lock()
	stopping, running, port := a.stopped, a.state == "running", a.port
	a.mu.Unlock()
	if status.Code != nil && *status.Code == 0 || stopping {
		return true, false
	}
	serves = running && slices.Contains(portsOf(listeners(a.sockets())), port)
	return serves, serves
}

// mournAfter is how long nothing may listen: what restarts its server takes less.
const mournAfter = 10 * time.Second

// mourn ends an app whose server has ended while another of its processes runs on: a worker beside it, a shell that waits.
func (a *agent) mourn() {
	for end := time.Now().Add(mournAfter); time.Now().Before(end); {
		select {
		case <-a.done:
			return
		case <-time.After(mournAfter / 20):
		}
		if len(listeners(a.sockets())) > 0 {
			a.mu.Lock()
			a.mourning = false
			a.mu.Unlock()
			return
		}
	}
	a.condemn("no process of the app listens any more, although others run")
}

// condemn ends an app that serves nobody and would go on so.
func (a *agent) condemn(why string) {
	a.out.system("%s: it is ended", why)
	code := 1
	a.mu.Lock()
	pid := a.pid
	a.verdict = &exitStatus{Code: &code}
	a.mu.Unlock()
	if pid != 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	a.killAll(syscall.SIGKILL)
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

// stopSignal is that of a name; SIGTERM where the name is none that tells a program to stop.
func stopSignal(name string) syscall.Signal {
	for _, one := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1} {
		if signalNames[one] == name {
			return one
		}
	}
	return syscall.SIGTERM
}

// stop ends the app: its signal to its process group, after the grace SIGKILL to everything.
func (a *agent) stop(grace time.Duration) {
	a.mu.Lock()
	a.stopped = true
	pid, zygotes, started, signal := a.pid, a.zygotes, a.started, a.stopSignal
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
	_ = syscall.Kill(-pid, signal)
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
