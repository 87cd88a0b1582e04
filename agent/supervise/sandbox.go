package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vibed.dev/agent/ingress"
)

const (
	healthTimeout  = 2 * time.Second
	outputPatience = time.Second // for the last words, after the command is gone
	// wordsPatience is for those that the agent passes on: on a busy machine a second was too short, and an app that had
	// said why it ended was told to have written nothing.
	wordsPatience  = 5 * time.Second
	logPatience    = 2 * time.Second
	cleanupTimeout = 10 * time.Second
	// sandboxOOMScore makes apps go first when the whole machine is out of memory, whatever vibeD itself is given: a unit
	// may protect it (OOMScoreAdjust), and a child inherits that.
	sandboxOOMScore = 500
)

// sandbox is the one that this process owns.
type sandbox struct {
	spec    *spec
	dir     string
	state   *stateFile
	events  func(event any) // to every control connection, must not block
	spawn   *spawner
	oomBase int

	door   door
	agent  *socketClient // or the worker's admin socket
	app    func(context.Context) (net.Conn, error)
	boot   *bootLog
	log    atomic.Pointer[runLog]
	output *outputs

	command *process
	booted  chan struct{}   // closed when command is set, or never will be
	died    context.Context // ends with the command
	dead    context.CancelFunc
	exited  chan struct{} // closed after state exited has been made known

	handing sync.Mutex
	handed  int64 // the order of the last hand_over

	claimed  atomic.Bool
	job      atomic.Bool // it runs build steps alone
	follows  atomic.Bool
	followed chan struct{} // closed when the agent has no more of the app's output
	stopping atomic.Bool
	draining sync.Once
	drained  chan struct{}
	drainEnd drainResult

	mu       sync.Mutex
	ingress  *ingress.Ingress
	ourFault string   // why we killed it, when we did of our own accord
	appExit  *appExit // what the agent said of the app
}

func newSandbox(spec *spec, dir string) *sandbox {
	s := &sandbox{
		spec: spec, dir: dir, events: func(any) {}, spawn: newSpawner(),
		boot:   openBootLog(filepath.Join(dir, "boot.log")),
		booted: make(chan struct{}), followed: make(chan struct{}), exited: make(chan struct{}), drained: make(chan struct{}),
	}
	s.door = socketDoor{s}
	s.died, s.dead = context.WithCancel(context.Background())
	s.state = newStateFile(filepath.Join(dir, "state.json"), state{
		ID: spec.ID, Driver: spec.Driver, Template: spec.Template, TemplateDigest: spec.TemplateDigest, State: stateBooting,
	})
	if spec.Kind == kindAgent {
		s.agent = newSocketClient((&appSocket{path: spec.AgentSocket}).dial)
		s.app = (&appSocket{path: spec.AppSocket}).dial
	} else {
		s.agent = newSocketClient((&appSocket{path: spec.Sockets.Admin}).dial)
		s.app = (&appSocket{path: spec.Sockets.HTTP}).dial
	}
	return s
}

// live boots the sandbox and returns when it is gone and everything of it cleared away.
func (s *sandbox) live() {
	s.oomBase = oomKills(s.spec.CgroupOOM)
	s.state.update(func(*state) bool { return true })
	err := s.start()
	close(s.booted)
	if err != nil {
		s.boot.add(err.Error())
		log.Print(err)
		s.finish(nil)
		return
	}
	s.state.update(func(st *state) bool { st.CommandPID = s.command.pid; return true })
	go s.waitWarm()
	status := <-s.command.ended
	s.dead()
	s.finish(&status)
}

func (s *sandbox) start() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	if s.output, err = newOutputs(); err != nil {
		return err
	}
	files := []*os.File{null, s.output.writers[0], s.output.writers[1]}
	command := append([]string{}, s.spec.Command...)
	if s.spec.Kind == kindWorker {
		sockets := []string{s.spec.Sockets.HTTP, s.spec.Sockets.Admin}
		for i, placeholder := range []string{"{http_fd}", "{admin_fd}"} {
			l, err := listenUnix(sockets[i], 0o600, owner{os.Geteuid(), os.Getegid()})
			if err != nil {
				return err
			}
			// The worker alone holds the sockets, so that they refuse connections the moment it is gone.
			f, err := l.File()
			l.Close()
			if err != nil {
				return err
			}
			defer f.Close()
			for j := range command {
				command[j] = strings.ReplaceAll(command[j], placeholder, strconv.Itoa(len(files)))
			}
			files = append(files, f)
		}
	}
	if command, err = s.launcher(command, len(files)); err != nil {
		return err
	}
	if s.command, err = s.spawn.start(command, commandEnv(), files); err != nil {
		return fmt.Errorf("the command does not start: %w", err)
	}
	s.output.read(s.emit)
	return nil
}

// launcher puts what confines the command, or at least takes it into its cgroups, before it.
func (s *sandbox) launcher(command []string, files int) ([]string, error) {
	const self = "/proc/self/exe"
	if s.spec.Confine == nil {
		if len(s.spec.CgroupProcs) == 0 {
			return command, nil
		}
		join := append([]string{self, "supervise", "--join"}, s.spec.CgroupProcs...)
		return append(append(join, "--"), command...), nil
	}
	var confine map[string]any
	if err := json.Unmarshal(s.spec.Confine, &confine); err != nil {
		return nil, fmt.Errorf("confine: %w", err)
	}
	if confine["oom_score_adj"] == nil {
		confine["oom_score_adj"] = sandboxOOMScore
	}
	if confine["cgroup_procs"] == nil {
		confine["cgroup_procs"] = s.spec.CgroupProcs
	}
	if confine["keep_fds"] == nil && files > 3 {
		var keep []int
		for fd := 3; fd < files; fd++ {
			keep = append(keep, fd)
		}
		confine["keep_fds"] = keep
	}
	data, err := json.Marshal(confine)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.dir, "confine.json")
	if err := replaceFile(file, data); err != nil {
		return nil, err
	}
	return append([]string{self, "confine", file, "--"}, command...), nil
}

// emit takes a line of the command's own output.
func (s *sandbox) emit(stream, text string, more bool) {
	l := s.log.Load()
	switch {
	case l == nil:
		if s.spec.Kind == kindWorker {
			_, text = workerLine(stream, text)
		}
		s.boot.add(text)
	case s.spec.Kind == kindAgent:
		// The app's output comes over the agent's stream; this is the sandbox speaking.
		l.app(streamSystem, text, more)
	case l.flooded(stream, text, more):
	default:
		stream, lines := workerLines(stream, text)
		for i, line := range lines {
			l.app(stream, line, more && i == len(lines)-1)
		}
	}
}

// waitWarm waits until the sandbox can be claimed, and ends it when that takes too long.
func (s *sandbox) waitWarm() {
	ctx, cancel := context.WithTimeout(s.died, time.Duration(s.spec.BootTimeoutS*float64(time.Second)))
	defer cancel()
	path := "/health"
	if s.spec.Kind == kindWorker {
		path = "/"
	}
	var last error
	ready := poll(ctx, func() bool {
		try, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		status, _, err := s.agent.do(try, http.MethodGet, path, nil, 0)
		if last = err; err == nil && status != http.StatusOK {
			last = fmt.Errorf("GET %s answers %d", path, status)
		}
		return err == nil && (status == http.StatusOK || s.spec.Kind == kindWorker)
	})
	if !ready {
		if s.died.Err() == nil {
			s.boot.add(fmt.Sprintf("not warm after %.0f s: %v", s.spec.BootTimeoutS, last))
			s.kill("")
		}
		return
	}
	s.state.update(func(st *state) bool {
		if st.State != stateBooting {
			return false
		}
		st.State, st.WarmAt = stateWarm, ptr(unixSeconds(time.Now()))
		return true
	})
}

// kill ends the whole sandbox; why goes into the app's log when it was our own decision.
func (s *sandbox) kill(why string) {
	if why != "" {
		s.mu.Lock()
		s.ourFault = why
		s.mu.Unlock()
	}
	killAll(s.spec.CgroupProcs)
}

// finish records how it ended, clears everything away, and only then tells: exited means that nothing is left.
func (s *sandbox) finish(status *syscall.WaitStatus) {
	oom := oomKills(s.spec.CgroupOOM) > s.oomBase
	in := s.front()
	// First of all: the proxy must not send more here, and what is open must learn that there is no answer.
	if run := s.state.get().Run; run != nil {
		s.door.shut(run)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if in != nil {
			in.Close()
		}
	}()
	s.lastWords()
	killAll(s.spec.CgroupProcs)
	if s.output != nil {
		within(outputPatience, s.output.reading.Wait)
		for _, r := range s.output.readers {
			r.Close()
		}
	}
	s.mu.Lock()
	why, reported := s.ourFault, s.appExit
	s.mu.Unlock()
	result := &exit{OOM: oom, At: unixSeconds(time.Now()), Tail: s.boot.tail.get()}
	switch {
	case reported != nil:
		result.Code, result.Signal = reported.Code, reported.Signal
	case status != nil:
		result.Code, result.Signal = readStatus(*status, s.spec.Kind == kindAgent)
	}
	if l := s.log.Load(); l != nil {
		l.lastWords()
		if why != "" {
			l.system("%s", why)
		}
		if !s.job.Load() { // how a job ended concerns who gave it, who may have another one after it
			l.system("%s", result.describe())
		}
		result.Tail = l.tail.get()
		l.close(logPatience)
	}
	if s.spec.Kind == kindWorker {
		os.Remove(s.spec.Sockets.HTTP)
		os.Remove(s.spec.Sockets.Admin)
	}
	s.cleanup()
	<-closed
	s.boot.close()
	s.state.update(func(st *state) bool {
		st.State, st.Exit = stateExited, result
		return true
	})
	close(s.exited)
}

func (s *sandbox) cleanup() {
	for _, argv := range s.spec.Cleanup {
		if len(argv) == 0 {
			continue
		}
		// Its output is ours: supervisor.log.
		p, err := s.spawn.start(argv, commandEnv(), []*os.File{devNull(), os.Stdout, os.Stderr})
		if err != nil {
			log.Printf("cleanup %q: %v", argv, err)
			continue
		}
		select {
		case status := <-p.ended:
			if status != 0 {
				log.Printf("cleanup %q: status %d", argv, status.ExitStatus())
			}
		case <-time.After(cleanupTimeout):
			log.Printf("cleanup %q: not done after %v", argv, cleanupTimeout)
			killAll(nil)
		}
	}
}

func devNull() *os.File {
	f, _ := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	return f
}

// lastWords waits until the agent has told all that the app had to say.
func (s *sandbox) lastWords() {
	if s.follows.Load() {
		within(wordsPatience, func() { <-s.followed })
	}
}

// within waits for something that may never come.
func within(patience time.Duration, wait func()) {
	done := make(chan struct{})
	go func() { defer close(done); wait() }()
	select {
	case <-done:
	case <-time.After(patience):
	}
}
