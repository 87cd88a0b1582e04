package inside

import (
	"encoding/hex"
	"fmt"
	"os"
	"sort"
	"syscall"
	"time"
	"unsafe"
)

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

	// Links are made in the app's directory where it has nothing of that name: path below it, and where the link leads.
	Links map[string]string `json:"links"`

	// ExpectedPorts are those on which the source says that its site listens, the likeliest first.
	ExpectedPorts []int `json:"expected_ports"`

	// StopSignal tells it to stop; empty: SIGTERM.
	StopSignal string `json:"stop_signal"`
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

// wireError is a refusal with a stable code.
type wireError struct {
	status  int
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Exit    *exitStatus    `json:"exit,omitempty"`
	Details map[string]any `json:"details,omitempty"`
}

func refusal(status int, code, message string, exit *exitStatus) *wireError {
	return &wireError{status: status, Code: code, Message: message, Exit: exit}
}

func (e *wireError) Error() string { return e.Code + ": " + e.Message }

// run is POST /start: build steps, the app, and the wait for its port. Without an app it is a job, and ends with its last
// step.
func (a *agent) run(s startSpec) (started, error) {
	job := len(s.Argv) == 0 && s.Shell == "" && len(s.Build) > 0
	if !job && (len(s.Argv) == 0) == (s.Shell == "") {
		return started{}, refusal(422, "StartFailed", "start needs either argv or shell", nil)
	}
	if !job && a.builder {
		return started{}, refusal(422, "StartFailed", "a builder sandbox runs no app", nil)
	}
	if s.UID != 0 && s.UID != a.who.UID && !a.who.Same {
		return started{}, refusal(422, "StartFailed", fmt.Sprintf("this sandbox was booted for uid %d, not %d", a.who.UID, s.UID), nil)
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
		return started{}, refusal(409, "AlreadyStarted", "an app is started once", nil)
	}
	if a.state == "exited" {
		exit := a.exit
		a.mu.Unlock()
		return started{}, refusal(422, "StartFailed", "stopped before it was started", exit)
	}
	a.started, a.state, a.port, a.stopSignal = true, "starting", 0, stopSignal(s.StopSignal)
	if s.Limits != nil {
		a.limits = *s.Limits
	}
	limits, entropy, zygotes := a.limits, a.entropy, a.zygotes
	a.zygotes = nil
	a.mu.Unlock()

	a.link(s.Links)
	pages := siteOf(s)
	base := a.baseEnv(s.Port)
	kind, target := warmable(s, base)
	env := base
	for k, v := range s.Env {
		env[k] = v
	}
	end := time.Now().Add(timeout)
	for _, step := range s.Build {
		left := timeout
		if job {
			left = max(0, time.Until(end)) // it has one for all of its steps
		}
		if err := a.build(step, environ(env), limits, left, timeout); err != nil {
			a.killAll(syscall.SIGKILL)
			a.finish(err.(*wireError).Exit)
			return started{}, err
		}
	}
	if job {
		a.killAll(syscall.SIGKILL) // what a step has left behind
		code := 0
		a.finish(&exitStatus{Code: &code})
		return started{}, nil
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
		return started{}, refusal(422, "StartFailed", "stopped before it was started", status)
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
		return started{}, refusal(422, "StartFailed", "the app could not be started: "+err.Error(), status)
	}
	a.mu.Lock()
	a.pid, a.site = pid, pages
	a.noWorkers = map[int]bool{pid: true}
	for _, z := range zygotes {
		a.noWorkers[z.pid] = true
	}
	a.singular = s.Shell == "" && (s.Kind == "python" || s.Kind == "go")
	a.mu.Unlock()
	if a.isStopped() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	go a.watch(pid, exit)
	return a.await(pages, timeout)
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

func prlimit(pid, resource int, n uint64) error {
	v := [2]uint64{n, n}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), uintptr(resource), uintptr(unsafe.Pointer(&v)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// build runs one step to its end, for as long as is left of what it was given.
func (a *agent) build(argv, env []string, limits Limits, left, given time.Duration) error {
	if len(argv) == 0 {
		return refusal(422, "StartFailed", "an empty build step", nil)
	}
	if a.isStopped() {
		return refusal(422, "BuildFailed", fmt.Sprintf("stopped before build step %q", argv[0]), nil)
	}
	pid, exit, err := a.spawn(a.out, "build", "build", command{argv: argv, env: env, dir: a.appDir, extra: -1, limits: limits})
	if err != nil {
		return refusal(422, "BuildFailed", fmt.Sprintf("build step %q: %v", argv[0], err), nil)
	}
	a.mu.Lock()
	a.pid = pid
	a.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case status := <-exit:
		a.mu.Lock()
		a.pid = 0
		a.mu.Unlock()
		if status.Code == nil || *status.Code != 0 {
			return refusal(422, "BuildFailed", fmt.Sprintf("build step %q ended with %s", argv[0], status), &status)
		}
		return nil
	case <-timer.C:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		status := <-exit
		return refusal(422, "BuildFailed", fmt.Sprintf("build step %q was not done within %s", argv[0], given), &status)
	}
}
