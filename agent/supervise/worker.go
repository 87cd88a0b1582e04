package supervise

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

const (
	watchEvery = time.Second
	// yieldTimeout is how long a worker may keep its one thread busy while requests wait: nothing inside it bounds that.
	yieldTimeout = 5 * time.Second
	// rejectionLog is the time that the reason of a rejection gets to arrive on standard error.
	rejectionLog = 50 * time.Millisecond
)

// runWorker hands the code to the worker that waits for it.
func (s *sandbox) runWorker(req *runRequest, begun time.Time, timings *runTimings) error {
	timings.Claim = s.stage("claimed", begun)
	injecting := time.Now()
	f, info, err := openRegular(req.Worker)
	if err != nil {
		return faultf("InjectFailed", "the worker's code cannot be read: %v", err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(s.died, workerTimeout)
	defer cancel()
	status, answer, err := s.agent.do(ctx, http.MethodPost, "/", f, info.Size())
	if err != nil {
		if ctx.Err() != nil && s.died.Err() == nil {
			return faultf("StartTimeout", "the worker did not start in %v", workerTimeout)
		}
		return s.lost("the worker broke off", err)
	}
	var said struct {
		OK      bool   `json:"ok"`
		Message string `json:"message"`
		Error   any    `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil || status != http.StatusOK || !said.OK {
		message := said.Message
		if text, ok := said.Error.(string); ok && message == "" {
			message = text
		}
		if message == "" {
			message = strings.ToValidUTF8(string(answer[:min(len(answer), 1000)]), "\uFFFD")
		}
		time.Sleep(rejectionLog)
		return &fault{Code: "WorkerRejected", Message: message, Details: map[string]any{"log": s.log.Load().tail.get()}}
	}
	timings.Inject = sinceMS(injecting)
	s.stage("injected", begun)
	s.advance(stateInjecting, stateStarting)
	s.stage("started", begun)
	return nil
}

// watchWorker ends a worker that does not come back to its event loop while requests are open. The loop in user code
// cannot be stopped otherwise, not even by SIGTERM.
func (s *sandbox) watchWorker() {
	for s.pause(watchEvery) {
		if s.openRequests() == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(s.died, yieldTimeout)
		_, _, err := s.agent.do(ctx, http.MethodGet, "/", nil, 0)
		late := ctx.Err() == context.DeadlineExceeded
		cancel()
		if err != nil && late && s.openRequests() > 0 {
			s.kill("the worker did not yield for 5 s")
			return
		}
	}
}

func (s *sandbox) openRequests() int64 {
	in := s.front()
	if in == nil {
		return 0
	}
	return in.Stats().Open
}
