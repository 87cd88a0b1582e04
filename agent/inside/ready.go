package inside

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// started is what is told of an app that serves.
type started struct {
	Port int    `json:"port"`
	Note string `json:"note,omitempty"` // why this one, where there was a choice
}

// await returns once a request would be answered: the app listens, and one of its processes has taken a connection (of a
// cluster: a worker).
func (a *agent) await(site site, timeout time.Duration) (started, error) {
	deadline := time.Now().Add(timeout)
	pause := time.Millisecond
	var since time.Time
	var candidate int
	var knock *knock
	var workers *turnover
	crew := a.newCluster()
	defer func() { knock.drop() }()
	for {
		sockets := a.sockets()
		open := listeners(sockets)
		port, listens := site.choose(portsOf(open))
		if port != candidate {
			candidate, since = port, time.Now()
			workers = &turnover{last: since}
			knock.drop()
			knock = nil
			pause = time.Millisecond
		}
		if listens && time.Since(since) >= site.wait(port) {
			if knock != nil && hearing(knock.conn) == broken {
				knock.drop()
				knock = nil
			}
			if knock == nil {
				if knock = knockAt(port, targets(open, port)); knock != nil {
					knock.deaths = crew.deaths
					sockets = a.sockets()
				}
			}
			if knock != nil && knock.answered(sockets) {
				switch crew.stands(knock, a.who, sockets) {
				case arrived:
					held := knock
					knock = nil
					a.serveOn(port, open, held)
					go a.follow(site, port)
					if !held.handedOn.IsZero() {
						go a.attend(crew)
					}
					return started{port, site.why(port, portsOf(open))}, nil
				case lost:
					knock.drop()
					knock = nil
				}
				pause = slowest(nil)
			}
			if n := workers.ended(a.who, inodesOf(open, port)); n >= tooMany {
				return started{}, a.giveUp(port, fmt.Sprintf("the app listens on port %d, but its workers end before they serve a request (%d times)", port, n))
			}
		}
		if crew.look(a.who); crew.fails() {
			return started{}, a.giveUp(port, crew.told())
		}
		if time.Now().After(deadline) {
			go a.later(site)
			return started{}, timedOut(open, timeout)
		}
		select {
		case <-a.done:
			a.mu.Lock()
			exit := a.exit
			a.mu.Unlock()
			return started{}, &wireError{status: 422, Code: "StartFailed", Message: "the app ended before it served: " + exit.String(), Exit: exit}
		case <-time.After(pause):
		}
		pause = min(pause+pause/4, slowest(knock))
	}
}

// slowest is the longest pause between two looks: shorter while the app has only to take a connection.
func slowest(k *knock) time.Duration {
	if k != nil && time.Since(k.since) < time.Second {
		return 4 * time.Millisecond
	}
	return 20 * time.Millisecond
}

func timedOut(open []socket, timeout time.Duration) *wireError {
	if len(open) == 0 {
		return &wireError{status: 504, Code: "StartTimeout", Message: fmt.Sprintf("the app did not listen on any port within %s", timeout)}
	}
	var told []string
	for _, p := range portsOf(open) {
		told = append(told, strconv.Itoa(p))
	}
	return &wireError{status: 504, Code: "StartTimeout", Details: map[string]any{"listening": portsOf(open)},
		Message: fmt.Sprintf("the app listens on port %s, but no process of it took a connection within %s", strings.Join(told, ", "), timeout)}
}

// giveUp ends an app that would go on for ever without serving; port is where it listens, 0 if nowhere.
func (a *agent) giveUp(port int, why string) error {
	listening := []int{}
	if port != 0 {
		listening = append(listening, port)
	}
	a.out.system("%s", why)
	a.mu.Lock()
	pid := a.pid
	a.mu.Unlock()
	if pid != 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	a.killAll(syscall.SIGKILL)
	return &wireError{status: 422, Code: "StartFailed", Message: why, Details: map[string]any{"listening": listening}}
}

func portsOf(open []socket) []int {
	found := map[int]bool{}
	for _, s := range open {
		found[int(s.addr.Port())] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// sockets lists the sandbox's sockets, without those that listen for others: its supervisor, where that has some, and
// who is of another uid. An app cannot change its own, and a pod's other containers (a mesh's proxy) share its network.
func (a *agent) sockets() []socket {
	return slices.DeleteFunc(table(), func(s socket) bool {
		return s.state == stateListening && (a.ours[int(s.addr.Port())] || s.uid != a.who.UID)
	})
}

// serveOn relays to a port from now on; held, if there is one, is a connection that the app has already taken.
func (a *agent) serveOn(port int, open []socket, held *knock) {
	a.relay.point(targets(open, port))
	if held != nil {
		a.keep(held, inodesOf(open, port))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != "exited" {
		a.port, a.state = port, "running"
	}
}

// firstRequest is when it has most often come: looking around is not to be in its way.
const firstRequest = 100 * time.Millisecond

// keep leaves the connection for the first request. A worker of several is not to wait on it: such servers know
// connections on which nothing comes, and some have a watchdog for workers that wait.
func (a *agent) keep(held *knock, inodes []uint64) {
	if hearing(held.conn) != silent {
		held.drop() // it has spoken first: it may be about to close
		return
	}
	a.relay.hold(held.conn)
	if a.isStopped() { // looked at after it is held, as stop lets go of it after it is stopped
		a.relay.hold(nil)
		return
	}
	time.AfterFunc(firstRequest, func() {
		if a.relay.holds(held.conn) && len(holders(a.who, inodes)) > 1 {
			a.relay.hold(nil)
		}
	})
}

const followFor = 2 * time.Minute

// follow looks on for a while: some servers open a port for metrics first, and their own much later.
func (a *agent) follow(site site, current int) {
	end := time.Now().Add(followFor)
	for pause := 100 * time.Millisecond; time.Now().Before(end); pause = min(2*pause, 5*time.Second) {
		select {
		case <-a.done:
			return
		case <-time.After(pause):
		}
		open := listeners(a.sockets())
		ports := portsOf(open)
		port, ok := site.choose(ports)
		if !ok || port == current || slices.Contains(ports, current) && site.rank(port) >= site.rank(current) {
			continue
		}
		held := a.answered(port, open, end)
		if held == nil {
			continue
		}
		a.serveOn(port, open, held)
		why := site.why(port, ports)
		if why == "" {
			why = fmt.Sprintf("listens on %d now", port)
		}
		a.out.system("no longer %d: the app %s", current, why)
		current = port
	}
}

// answered waits until the app takes a connection on a port; nil when it does not.
func (a *agent) answered(port int, open []socket, until time.Time) *knock {
	crew := a.newCluster()
	if !crew.none {
		crew.seen(crew.workers(a.who))
	}
	k := knockAt(port, targets(open, port))
	for k != nil && time.Now().Before(until) && hearing(k.conn) != broken {
		if sockets := a.sockets(); k.answered(sockets) {
			switch crew.stands(k, a.who, sockets) {
			case arrived:
				return k
			case lost:
				until = time.Time{}
			}
		}
		select {
		case <-a.done:
			until = time.Time{}
		case <-time.After(20 * time.Millisecond):
		}
	}
	k.drop()
	return nil
}

// later goes on looking after a start has timed out: the supervisor decides what becomes of the app.
func (a *agent) later(site site) {
	for {
		select {
		case <-a.done:
			return
		case <-time.After(500 * time.Millisecond):
		}
		open := listeners(a.sockets())
		if port, ok := site.choose(portsOf(open)); ok {
			a.serveOn(port, open, nil)
			return
		}
	}
}

// look is asked for when the app's port does not answer: a server that restarts may listen elsewhere, or nowhere.
func (a *agent) look() {
	a.mu.Lock()
	site, running := a.site, a.state == "running"
	a.mu.Unlock()
	if !running {
		return
	}
	open := listeners(a.sockets())
	if port, ok := site.choose(portsOf(open)); ok {
		a.serveOn(port, open, nil)
		return
	}
	a.mu.Lock()
	begins := !a.mourning
	a.mourning = true
	a.mu.Unlock()
	if begins {
		go a.mourn()
	}
}
