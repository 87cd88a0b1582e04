package supervise

import (
	"context"
	"syscall"
	"time"
)

const (
	drainGrace = 5.0
	// stopPatience is how long beyond its grace a stop may take before the caller is told that something is stuck.
	stopPatience = 30 * time.Second
)

type drainResult struct {
	Open   int `json:"open"`
	Closed int `json:"closed_websockets"`
}

// stop ends the app, then the sandbox, and returns when nothing is left. Asked again while it is at it, it only waits.
func (s *sandbox) stop(graceS float64) error {
	grace := time.Duration(max(0, min(graceS, 3600)) * float64(time.Second))
	if s.stopping.CompareAndSwap(false, true) {
		go s.end(grace)
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(grace + stopPatience):
		return faultf("StopTimeout", "the sandbox is still there %v after SIGKILL", stopPatience)
	}
}

func (s *sandbox) end(grace time.Duration) {
	<-s.booted
	st := s.state.get().State
	started := st == stateStarting || st == stateRunning || st == stateDraining
	switch {
	case s.command == nil || s.died.Err() != nil:
	case !started || grace == 0:
		// No app to be polite to.
	case s.spec.Kind == kindAgent:
		ctx, cancel := context.WithTimeout(s.died, grace+time.Second)
		s.agent.post(ctx, "/stop", map[string]any{"grace_s": grace.Seconds()})
		cancel()
		// The last words and the exit status are still on their way.
		s.lastWords()
	default:
		syscall.Kill(-s.command.pid, syscall.SIGTERM)
		s.pause(grace)
	}
	s.kill("")
}

// drain lets what is open finish, then stops the app; it returns before the stop. Whoever asks again gets the same answer.
// calmS is for how many seconds nothing may have come.
func (s *sandbox) drain(deadlineS, calmS float64) (drainResult, error) {
	in := s.front()
	if in == nil {
		return drainResult{}, faultf("NotRunning", "nothing runs here to drain")
	}
	s.draining.Do(func() {
		s.advance(stateRunning, stateDraining)
		go func() {
			ctx, cancel := context.WithTimeout(s.died, time.Duration(max(0, min(deadlineS, 86400))*float64(time.Second)))
			defer cancel()
			s.drainEnd.Open, s.drainEnd.Closed = in.Drain(ctx, time.Duration(max(0, min(calmS, 60))*float64(time.Second)))
			if l := s.log.Load(); l != nil {
				l.system("drained: %d requests open at the end, %d WebSockets closed", s.drainEnd.Open, s.drainEnd.Closed)
			}
			s.door.shut(s.state.get().Run)
			close(s.drained)
			s.stop(drainGrace)
		}()
	})
	<-s.drained
	return s.drainEnd, nil
}
