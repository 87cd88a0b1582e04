// Package inside is the agent: PID 1 of a sandbox of the general lane. It takes the source, starts the app as a uid
// of its own, finds the port that the app listens on, relays to it, and keeps what the app writes.
// docs/reference/supervisor.md, section Agent, is its contract.
package inside

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sort"
	"sync"
	"syscall"
	"time"
	"unsafe"
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

// startSpec is the "start" object of the contract.
type startSpec struct {
	Argv     []string          `json:"argv"`
	Shell    string            `json:"shell"`
	Env      map[string]string `json:"env"`
	Port     int               `json:"port"`
	Kind     string            `json:"kind"`
	TimeoutS float64           `json:"timeout_s"`
	Warm     *bool             `json:"warm"`
	UID      int               `json:"uid"`
	Build    [][]string        `json:"build"`
	Limits   *Limits           `json:"limits"`

	// ExpectedPorts are those on which the source says that its site listens, the likeliest first.
	ExpectedPorts []int `json:"expected_ports"`
}

// agent is the whole state. mu guards the fields below it and is never held while anything is waited for.
type agent struct {
	appDir, home string
	who          Identity
	templateEnv  map[string]string
	nulls        int
	reaper       *reaper
	out          *output
	relay        *relay
	init         bool
	nobodyLeft   chan struct{} // a token whenever children were reaped

	mu      sync.Mutex
	state   string // warm, injecting, starting, running, exited
	claimed bool
	started bool
	stopped bool
	reading bool
	entropy string
	limits  Limits
	pid     int
	port    int
	exit    *exitStatus
	done    chan struct{} // closed when the app has ended
	zygotes []*zygote
}

const (
	defaultUID  = 1000
	defaultPort = 8080
)

// Main is the mode "agent".
func Main(args []string) int {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	socketPath := flags.String("socket", "/run/vibed/agent.sock", "where the agent listens")
	appSocket := flags.String("app-socket", "/run/vibed/app.sock", "where connections to the app arrive")
	appDir := flags.String("app", "/app", "the source, working directory of the app")
	home := flags.String("home", "/home/app", "home directory of the app")
	uid := flags.Int("uid", defaultUID, "uid and gid of the app")
	zygotes := flags.String("zygotes", "/etc/vibed/zygotes.json", "warm processes of the template")
	env := flags.String("env", "/etc/vibed/env.json", "environment variables of the template")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "vibed-agent agent:", err)
		return 1
	}
	// Small and steady: the agent is in every sandbox.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(24 << 20)
	syscall.Umask(0o022)
	// The app may share the agent's uid: its memory and descriptors are nobody else's.
	const prSetDumpable, prSetChildSubreaper = 4, 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)

	a := &agent{appDir: *appDir, home: *home, who: identity(*uid), reaper: newReaper(), out: newOutput(), relay: &relay{},
		init: os.Getpid() == 1, state: "warm", nobodyLeft: make(chan struct{}, 1), done: make(chan struct{})}
	a.relay.again = a.look
	a.reaper.onReaped = func() {
		select {
		case a.nobodyLeft <- struct{}{}:
		default:
		}
	}
	var err error
	if a.templateEnv, err = readEnv(*env); err != nil {
		return fail(err)
	}
	if a.nulls, err = syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0); err != nil {
		return fail(fmt.Errorf("/dev/null: %w", err))
	}
	for _, dir := range []string{*appDir, *home} {
		if err := a.own(dir); err != nil {
			return fail(err)
		}
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // all: as PID 1, and against an app of the same uid
	specs, err := readZygotes(*zygotes)
	if err != nil {
		return fail(err)
	}
	control, err := listen(*socketPath)
	if err != nil {
		return fail(err)
	}
	traffic, err := listen(*appSocket)
	if err != nil {
		return fail(err)
	}
	go a.relay.serve(traffic)
	server := a.server()
	go func() { _ = server.Serve(control) }()
	a.mu.Lock()
	for _, s := range specs {
		a.zygotes = append(a.zygotes, a.startZygote(s))
	}
	a.mu.Unlock()
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			a.reaper.collect()
		case syscall.SIGTERM, syscall.SIGINT:
			go func() {
				a.stop(5 * time.Second)
				os.Exit(0)
			}()
		}
	}
	return 0
}

func listen(file string) (net.Listener, error) {
	_ = os.Remove(file)
	l, err := net.Listen("unix", file)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func readEnv(file string) (map[string]string, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var env map[string]string
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return env, nil
}

// own makes a directory of the app the app's.
func (a *agent) own(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) == a.who.UID && int(st.Gid) == a.who.GID || a.who.Same {
		return nil
	}
	return os.Lchown(dir, a.who.UID, a.who.GID)
}

// baseEnv is what every app's environment begins with. Nothing of the agent's own is in it.
func (a *agent) baseEnv(port int) map[string]string {
	if port == 0 {
		port = defaultPort
	}
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": a.home,
		"LANG": "C.UTF-8", "PORT": fmt.Sprint(port), "HOST": "0.0.0.0", "TMPDIR": "/tmp"}
	for k, v := range a.templateEnv {
		env[k] = v
	}
	return env
}

func environ(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return out
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

// wireError is a refusal with a stable code.
type wireError struct {
	status  int
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Exit    *exitStatus `json:"exit,omitempty"`
}

func (e *wireError) Error() string { return e.Code + ": " + e.Message }

// run is POST /start: build steps, the app, and the wait for its port.
func (a *agent) run(s startSpec) (int, error) {
	if (len(s.Argv) == 0) == (s.Shell == "") {
		return 0, &wireError{422, "StartFailed", "start needs either argv or shell", nil}
	}
	if s.UID != 0 && s.UID != a.who.UID && !a.who.Same {
		return 0, &wireError{422, "StartFailed", fmt.Sprintf("this sandbox was booted for uid %d, not %d", a.who.UID, s.UID), nil}
	}
	if s.Port == 0 {
		s.Port = defaultPort
	}
	if s.TimeoutS <= 0 {
		s.TimeoutS = 60
	}
	timeout := time.Duration(s.TimeoutS * float64(time.Second))
	a.mu.Lock()
	if a.started {
		a.mu.Unlock()
		return 0, &wireError{409, "AlreadyStarted", "an app is started once", nil}
	}
	if a.state == "exited" {
		exit := a.exit
		a.mu.Unlock()
		return 0, &wireError{422, "StartFailed", "stopped before it was started", exit}
	}
	a.started, a.state, a.port = true, "starting", 0
	if s.Limits != nil {
		a.limits = *s.Limits
	}
	limits, entropy, zygotes := a.limits, a.entropy, a.zygotes
	a.zygotes = nil
	a.mu.Unlock()

	base := a.baseEnv(s.Port)
	kind, target := warmable(s, base)
	env := base
	for k, v := range s.Env {
		env[k] = v
	}
	for _, step := range s.Build {
		if err := a.build(step, environ(env), limits, timeout); err != nil {
			a.finish(err.(*wireError).Exit)
			return 0, err
		}
	}
	var chosen *zygote
	if kind != "" {
		chosen = pick(zygotes, kind, imported(kind, a.appDir, target))
	}
	for _, z := range zygotes {
		if z != chosen {
			z.kill()
		}
	}
	var pid int
	var exit <-chan exitStatus
	var err error
	if a.isStopped() {
		if chosen != nil {
			chosen.kill()
		}
		code := 0
		status := &exitStatus{Code: &code}
		a.finish(status)
		return 0, &wireError{422, "StartFailed", "stopped before it was started", status}
	}
	if chosen != nil {
		if pid, exit, err = a.wake(chosen, orders{s.Argv, env, a.appDir, entropy}, limits); err != nil {
			a.out.system("the warm process %s could not be used (%v), a fresh one is started", chosen.spec.Name, err)
			chosen.kill()
			chosen = nil
		}
	}
	if chosen == nil {
		argv := s.Argv
		if s.Shell != "" {
			argv = []string{"/bin/sh", "-c", s.Shell}
		}
		pid, exit, err = a.spawn(a.out, "stdout", "stderr", command{argv: argv, env: environ(env), dir: a.appDir, extra: -1, limits: limits})
	}
	if err != nil {
		a.out.system("the app could not be started: %v", err)
		code := 127
		status := &exitStatus{Code: &code}
		a.finish(status)
		return 0, &wireError{422, "StartFailed", "the app could not be started: " + err.Error(), status}
	}
	a.mu.Lock()
	a.pid = pid
	a.mu.Unlock()
	if a.isStopped() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	go a.watch(pid, exit)
	return a.await(s.Port, timeout)
}

func (a *agent) isStopped() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
}

// wake turns a zygote into the app.
func (a *agent) wake(z *zygote, o orders, limits Limits) (int, <-chan exitStatus, error) {
	if o.Entropy == "" {
		var b [32]byte
		if f, err := os.Open("/dev/urandom"); err == nil {
			_, _ = f.Read(b[:])
			_ = f.Close()
		}
		o.Entropy = hex.EncodeToString(b[:])
	}
	for _, l := range []struct {
		resource int
		n        uint64
	}{{rlimitNproc, limits.Nproc}, {syscall.RLIMIT_NOFILE, limits.Nofile}} {
		if l.n == 0 {
			continue
		}
		if err := prlimit(z.pid, l.resource, l.n); err != nil {
			return 0, nil, fmt.Errorf("limits: %w", err)
		}
	}
	// What it wrote while it warmed up is the template's, not the app's.
	z.out.redirect(a.out)
	if err := z.command(o); err != nil {
		return 0, nil, err
	}
	return z.pid, z.exit, nil
}

// build runs one step to its end.
func (a *agent) build(argv, env []string, limits Limits, timeout time.Duration) error {
	if len(argv) == 0 {
		return &wireError{422, "StartFailed", "an empty build step", nil}
	}
	pid, exit, err := a.spawn(a.out, "build", "build", command{argv: argv, env: env, dir: a.appDir, extra: -1, limits: limits})
	if err != nil {
		return &wireError{422, "BuildFailed", fmt.Sprintf("build step %q: %v", argv[0], err), nil}
	}
	a.mu.Lock()
	a.pid = pid
	a.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case status := <-exit:
		a.mu.Lock()
		a.pid = 0
		a.mu.Unlock()
		if status.Code == nil || *status.Code != 0 {
			return &wireError{422, "BuildFailed", fmt.Sprintf("build step %q ended with %s", argv[0], status), &status}
		}
		return nil
	case <-timer.C:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		status := <-exit
		return &wireError{422, "BuildFailed", fmt.Sprintf("build step %q took longer than %s", argv[0], timeout), &status}
	}
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

const settle = 30 * time.Millisecond

// await returns the port once the app listens.
func (a *agent) await(wanted int, timeout time.Duration) (int, error) {
	deadline := time.Now().Add(timeout)
	pause := time.Millisecond
	var since time.Time
	var candidate int
	for {
		sockets := a.sockets()
		if port, ok := choose(sockets, wanted); ok {
			if port != candidate {
				candidate, since = port, time.Now()
			}
			if port == wanted || time.Since(since) >= settle {
				a.serveOn(port, sockets)
				if port != wanted {
					go a.prefer(wanted, port)
				}
				return port, nil
			}
			pause = 5 * time.Millisecond
		}
		if time.Now().After(deadline) {
			go a.later(wanted)
			return 0, &wireError{504, "StartTimeout", fmt.Sprintf("the app did not listen on any port within %s", timeout), nil}
		}
		select {
		case <-a.done:
			a.mu.Lock()
			exit := a.exit
			a.mu.Unlock()
			return 0, &wireError{422, "StartFailed", "the app ended before it listened on a port: " + exit.String(), exit}
		case <-time.After(pause):
		}
		pause = min(pause+pause/4, 20*time.Millisecond)
	}
}

// sockets lists who listens, without sockets of uids that are not the app's where the kernel tells uids.
func (a *agent) sockets() []socket {
	if !a.init {
		return a.ownSockets()
	}
	return listening()
}

// ownSockets is for an agent that is not alone in its network (tests).
func (a *agent) ownSockets() []socket {
	var out []socket
	for _, s := range listening() {
		if s.uid == a.who.UID {
			out = append(out, s)
		}
	}
	return out
}

func (a *agent) serveOn(port int, sockets []socket) {
	a.relay.point(targets(sockets, port))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != "exited" {
		a.port, a.state = port, "running"
	}
}

// prefer lets a listener on PORT that comes later take over: some servers open a port for metrics first.
func (a *agent) prefer(wanted, current int) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		select {
		case <-a.done:
			return
		case <-time.After(500 * time.Millisecond):
		}
		sockets := a.sockets()
		if port, ok := choose(sockets, wanted); ok && port == wanted && port != current {
			a.serveOn(port, sockets)
			return
		}
	}
}

// later goes on looking after a start has timed out: the supervisor decides what becomes of the app.
func (a *agent) later(wanted int) {
	for {
		select {
		case <-a.done:
			return
		case <-time.After(500 * time.Millisecond):
		}
		sockets := a.sockets()
		if port, ok := choose(sockets, wanted); ok {
			a.serveOn(port, sockets)
			return
		}
	}
}

// look is asked for when the app's port does not answer: a server that restarts may listen elsewhere.
func (a *agent) look() {
	a.mu.Lock()
	port, running := a.port, a.state == "running"
	a.mu.Unlock()
	if !running {
		return
	}
	sockets := a.sockets()
	if chosen, ok := choose(sockets, port); ok {
		a.serveOn(chosen, sockets)
	}
}

func prlimit(pid, resource int, n uint64) error {
	v := [2]uint64{n, n}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), uintptr(resource), uintptr(unsafe.Pointer(&v)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}
