package supervise

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
)

// spawner starts processes and collects every child that ends, ours or inherited as a subreaper. os/exec is not used to
// wait: two that wait for any child take each other's.
type spawner struct {
	mu      sync.Mutex // from fork to registration, so that no status arrives unclaimed
	waiting map[int]chan syscall.WaitStatus
	jobs    chan func()
}

// process is one that we started. ended delivers its status once.
type process struct {
	pid   int
	ended chan syscall.WaitStatus
}

func newSpawner() *spawner {
	s := &spawner{waiting: map[int]chan syscall.WaitStatus{}, jobs: make(chan func())}
	go func() {
		// The parent-death signal of a child is sent when the *thread* that forked it ends. This one never does.
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			s.reap()
		}
	}()
	return s
}

func (s *spawner) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			return
		}
		if ended, ok := s.waiting[pid]; ok {
			delete(s.waiting, pid)
			ended <- status
		}
	}
}

// start runs argv in a session of its own, killed when this process dies. files become its descriptors 0, 1, 2, …
func (s *spawner) start(argv, env []string, files []*os.File) (*process, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{
		Dir: "/", Env: env,
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	p := &process{ended: make(chan syscall.WaitStatus, 1)}
	done := make(chan struct{})
	s.jobs <- func() {
		defer close(done)
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.pid, err = syscall.ForkExec(path, argv, attr); err == nil {
			s.waiting[p.pid] = p.ended
		}
	}
	<-done
	runtime.KeepAlive(files)
	return p, err
}

// commandEnv is all of our environment that a command gets: the rest is the control plane's.
func commandEnv() []string {
	env := []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
