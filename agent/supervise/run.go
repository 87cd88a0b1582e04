package supervise

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"vibed.dev/agent/ingress"
)

const (
	claimTimeout = 10 * time.Second
	// injectTimeout is for a stuck sandbox; a source is some tens of megabytes at most.
	injectTimeout = 120 * time.Second
	workerTimeout = 30 * time.Second
	// startMargin is what the agent's own timeouts get on top: it knows better why a start took too long.
	startMargin = 5 * time.Second
	buildMargin = 15 * time.Minute
)

// runRequest is the op run.
type runRequest struct {
	AppID   string          `json:"app_id"`
	AppKey  string          `json:"app_key"`
	Layer   string          `json:"layer"`
	Version int             `json:"version"`
	Run     int             `json:"run"`
	Socket  string          `json:"socket"`
	LogDir  string          `json:"log_dir"`
	Source  string          `json:"source"`
	Strip   string          `json:"strip"`
	Start   json.RawMessage `json:"start"`
	Worker  string          `json:"worker"`
	Limits  json.RawMessage `json:"limits"`
}

type runAnswer struct {
	Port    *int       `json:"port"`
	Note    string     `json:"note,omitempty"` // why this port, where the app listens on several
	Timings runTimings `json:"timings"`
}

// runTimings are milliseconds.
type runTimings struct {
	Claim  float64 `json:"claim"`
	Inject float64 `json:"inject"`
	Start  float64 `json:"start"`
	// Fetch is what getting the source and what was installed for it took, where that is done here (agent/pod).
	Fetch float64 `json:"fetch,omitempty"`
}

// run claims the sandbox for one version of one app and starts it. It works once; a sandbox whose run failed is of no use
// to anybody, and is ended.
func (s *sandbox) run(req *runRequest) (*runAnswer, error) {
	if err := s.check(req); err != nil {
		return nil, err
	}
	if s.state.get().State != stateWarm || !s.claimed.CompareAndSwap(false, true) {
		return nil, faultf("AlreadyClaimed", "a sandbox runs once, and this one is %s", s.state.get().State)
	}
	answer, err := s.runClaimed(req)
	if err != nil {
		f := asFault(err)
		if l := s.log.Load(); l != nil && !s.job.Load() {
			l.system("%s: %s", f.Code, f.Message)
		}
		go func() {
			if f.Code == "StartFailed" || f.Code == "BuildFailed" {
				s.lastWords()
			}
			s.stop(0)
		}()
		return nil, f
	}
	return answer, nil
}

func (s *sandbox) check(req *runRequest) error {
	kind := s.spec.Kind
	switch {
	case req.AppID == "" || !filepath.IsAbs(req.LogDir) || s.door.needsPath() && !filepath.IsAbs(req.Socket):
		return faultf("BadRequest", "run needs app_id, and absolute paths as socket and log_dir")
	case kind == kindAgent && (!filepath.IsAbs(req.Source) || len(req.Start) == 0):
		return faultf("BadRequest", "run needs source and start for this kind of sandbox")
	case kind == kindWorker && !filepath.IsAbs(req.Worker):
		return faultf("BadRequest", "run needs worker for this kind of sandbox")
	}
	return nil
}

// isJob tells whether it is build steps alone, without an app after them.
func (req *runRequest) isJob() bool {
	var start struct {
		Argv  []string          `json:"argv"`
		Shell string            `json:"shell"`
		Build []json.RawMessage `json:"build"`
	}
	return json.Unmarshal(req.Start, &start) == nil && len(start.Argv) == 0 && start.Shell == "" && len(start.Build) > 0
}

func (s *sandbox) runClaimed(req *runRequest) (*runAnswer, error) {
	begun := time.Now()
	claimed := s.state.update(func(st *state) bool {
		if st.State != stateWarm {
			return false
		}
		st.State = stateInjecting
		st.Run = &runState{req.AppID, req.AppKey, req.Layer, req.Version, req.Run, req.LogDir, req.Socket}
		return true
	})
	if !claimed {
		return nil, faultf("StartFailed", "the sandbox ended before it was claimed")
	}
	l, err := openRunLog(req.LogDir, s.spec.LogOwner)
	if err != nil {
		return nil, faultf("InjectFailed", "the log cannot be opened: %v", err)
	}
	s.log.Store(l)
	s.job.Store(req.isJob())
	var timings runTimings
	var port *int
	var note string
	if s.spec.Kind == kindAgent {
		port, note, err = s.runAgent(req, begun, &timings)
	} else {
		err = s.runWorker(req, begun, &timings)
	}
	if err != nil {
		return nil, err
	}
	if s.job.Load() {
		// It ends by itself, and is said to have ended when all that it said is in its log.
		within(cleanupTimeout, func() { <-s.exited })
		return &runAnswer{Port: port, Timings: timings}, nil
	}
	if err := s.openIngress(s.state.get().Run); err != nil {
		return nil, faultf("StartFailed", "the ingress cannot be opened: %v", err)
	}
	s.stage("listening", begun)
	running := s.state.update(func(st *state) bool {
		if st.State != stateStarting {
			return false
		}
		st.State, st.Port, st.StartedAt = stateRunning, port, ptr(unixSeconds(time.Now()))
		return true
	})
	if !running || s.died.Err() != nil {
		return nil, s.endedEarly()
	}
	if s.spec.Kind == kindWorker {
		go s.watchWorker()
	}
	return &runAnswer{Port: port, Note: note, Timings: timings}, nil
}

func (s *sandbox) runAgent(req *runRequest, begun time.Time, timings *runTimings) (*int, string, error) {
	s.follows.Store(true)
	go s.follow()
	entropy := make([]byte, 64)
	rand.Read(entropy)
	ctx, cancel := context.WithTimeout(s.died, claimTimeout)
	defer cancel()
	limits := req.Limits
	if len(limits) == 0 {
		limits = json.RawMessage("{}")
	}
	status, answer, err := s.agent.post(ctx, "/claim", map[string]any{
		"hostname": req.AppID, "entropy": hex.EncodeToString(entropy), "time": unixSeconds(time.Now()), "limits": limits,
	})
	if err != nil {
		return nil, "", s.lost("claim", err)
	}
	if status != http.StatusOK {
		return nil, "", agentFault("InjectFailed", answer)
	}
	timings.Claim = s.stage("claimed", begun)

	injecting := time.Now()
	ctx, cancel = context.WithTimeout(s.died, injectTimeout)
	defer cancel()
	if err := s.agent.inject(ctx, req.Source, req.Strip); err != nil {
		if errors.Is(err, errBrokeOff) {
			return nil, "", s.lost("inject", err)
		}
		return nil, "", err
	}
	timings.Inject = sinceMS(injecting)
	s.stage("injected", begun)

	starting := time.Now()
	s.advance(stateInjecting, stateStarting)
	s.stage("started", begun)
	ctx, cancel = context.WithTimeout(s.died, startTimeout(req.Start))
	defer cancel()
	status, answer, err = s.agent.post(ctx, "/start", req.Start)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, "", faultf("StartTimeout", "the agent did not answer in time")
	case err != nil && s.jobIsDone():
		// It was heard to have ended before its answer was read.
		return nil, "", nil
	case err != nil:
		return nil, "", s.lost("start", err)
	case status == http.StatusInternalServerError:
		return nil, "", faultf("SandboxLost", "start: %s", agentFault("", answer).Message)
	case status == http.StatusGatewayTimeout:
		return nil, "", agentFault("StartTimeout", answer)
	case status != http.StatusOK:
		return nil, "", agentFault("StartFailed", answer)
	}
	var listening struct {
		Port int    `json:"port"`
		Note string `json:"note"`
	}
	if err := json.Unmarshal(answer, &listening); err != nil {
		return nil, "", faultf("StartFailed", "the agent's answer makes no sense: %v", err)
	}
	timings.Start = sinceMS(starting)
	if listening.Note != "" {
		s.log.Load().system("the app %s", listening.Note)
	}
	return &listening.Port, listening.Note, nil
}

// jobIsDone waits for the account of how a job's sandbox ended, and says whether its last step ended well.
func (s *sandbox) jobIsDone() bool {
	if !s.job.Load() {
		return false
	}
	within(cleanupTimeout, func() { <-s.exited })
	ended := s.state.get().Exit
	return ended != nil && ended.Code != nil && *ended.Code == 0
}

func startTimeout(start json.RawMessage) time.Duration {
	var said struct {
		TimeoutS float64           `json:"timeout_s"`
		Build    []json.RawMessage `json:"build"`
	}
	json.Unmarshal(start, &said)
	if said.TimeoutS <= 0 {
		said.TimeoutS = 60
	}
	timeout := time.Duration(said.TimeoutS*float64(time.Second)) + startMargin
	if len(said.Build) > 0 {
		timeout += buildMargin
	}
	return timeout
}

// gone is how long the end of a sandbox may take to be told after its sockets have closed: much, on a busy machine.
const gone = 3 * time.Second

// lost tells why the agent did not answer: most often because the sandbox is gone, and then how it ended is the reason.
// One that lives on has an agent that is of no use any more, which is not the app's fault: another sandbox may do.
func (s *sandbox) lost(step string, err error) error {
	select {
	case <-s.died.Done():
		return s.endedEarly()
	case <-time.After(gone):
		return faultf("SandboxLost", "%s: %v", step, err)
	}
}

// endedEarly waits for the account of how the sandbox ended.
func (s *sandbox) endedEarly() error {
	select {
	case <-s.exited:
	case <-time.After(cleanupTimeout):
	}
	st := s.state.get()
	f, what := faultf("StartFailed", "the sandbox ended before the app listened"), "the app did not come to listen: "
	if s.job.Load() {
		f, what = faultf("BuildFailed", "the sandbox ended before the build did"), "the build did not end: "
	}
	if st.Exit != nil {
		f.Message = what + st.Exit.describe()
		f.Details = map[string]any{"exit": st.Exit}
	}
	return f
}

func (s *sandbox) advance(from, to string) {
	s.state.update(func(st *state) bool {
		if st.State != from {
			return false
		}
		st.State = to
		return true
	})
}

// stage makes a step of the run known, and returns its milliseconds since the beginning.
func (s *sandbox) stage(name string, begun time.Time) float64 {
	ms := sinceMS(begun)
	s.events(map[string]any{"event": "stage", "stage": name, "ms": ms})
	return ms
}

func sinceMS(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }

// logTries is how often what an app that has ended said is asked for when it cannot be read to its end.
const logTries = 10

// follow takes the app's output from the agent until the app has ended, learns how, and then ends the sandbox. That the
// app has ended does not mean that all of its output has come: the connection may have broken off before.
func (s *sandbox) follow() {
	defer close(s.followed)
	l := s.log.Load()
	for tries := 0; ; {
		err := s.agent.logs(s.died, l.app)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		ended, statusErr := s.agent.status(ctx)
		cancel()
		if ended != nil {
			s.mu.Lock()
			s.appExit = ended
			s.mu.Unlock()
			if tries++; err != nil && tries < logTries && s.pause(100*time.Millisecond) {
				continue
			}
			if err != nil && s.died.Err() == nil {
				l.system("the rest of what the app said could not be read: %v", err)
			}
			if !s.stopping.Load() {
				go s.kill("")
			}
			return
		}
		if s.died.Err() != nil || statusErr != nil && err != nil && !s.pause(time.Second) {
			return
		}
		if !s.pause(100 * time.Millisecond) {
			return
		}
	}
}

// pause tells whether the command lives on after d.
func (s *sandbox) pause(d time.Duration) bool {
	select {
	case <-s.died.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// connectionsSocket is where a later version's supervisor takes over the proxy's connections of an earlier one.
const connectionsSocket = "connections.sock"

// handOver lets the sandbox whose directory and ingress socket are given have the proxy's connections; an empty directory
// takes that back. A supervisor that was stopped finds several such requests when it goes on, and works on all at once: the
// one with the highest order is the last word.
func (s *sandbox) handOver(dir, socket string, order int64) (handedOver, error) {
	in := s.front()
	if in == nil {
		return handedOver{}, faultf("NotRunning", "nothing runs here that has connections")
	}
	var heir *ingress.Heir
	if dir != "" {
		var err error
		connections := &appSocket{path: filepath.Join(dir, connectionsSocket)}
		if heir, err = ingress.NewHeir(connections.dial, (&appSocket{path: socket}).dial); err != nil {
			return handedOver{}, faultf("HeirUnreachable", "the sandbox that takes over: %v", err)
		}
	}
	if !s.letHave(in, heir, order) {
		return handedOver{}, nil
	}
	return handedOver{Moved: in.Moved(heir)}, nil
}

// letHave tells whether this was the last word.
func (s *sandbox) letHave(in *ingress.Ingress, heir *ingress.Heir, order int64) bool {
	s.handing.Lock()
	defer s.handing.Unlock()
	if order < s.handed {
		if heir != nil {
			heir.Forget()
		}
		return false
	}
	s.handed = order
	in.LetHave(heir)
	return true
}

type handedOver struct {
	Moved int `json:"moved"`
}

// front is the ingress, nil before an app runs.
func (s *sandbox) front() *ingress.Ingress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ingress
}

// beginning writes into the log that the app fails from its first answer on, and when it does so no more: vibed.api.failing
// reads it there.
func (s *sandbox) beginning(answer string, failed bool) {
	said := "succeeds now: "
	if failed {
		said = "failed before any request succeeded: "
	}
	s.log.Load().system("%s%s", said, answer)
}

// openIngress has the app served from where its run says.
func (s *sandbox) openIngress(run *runState) error {
	in, err := s.door.open(run)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.ingress = in
	s.mu.Unlock()
	if s.died.Err() != nil {
		// finish may have looked for an ingress just before there was one.
		in.Close()
		s.door.shut(run)
		return fmt.Errorf("the sandbox has ended")
	}
	return nil
}
