package inside

import (
	"fmt"
	"time"
)

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
