// Package ingress is the last hop in front of an app: an HTTP/1.1 and h2c server on a Unix socket that streams each
// request to the app's own socket, knows exactly what is open, and can let go of it without failing a request.
//
// It never sends a request twice. An app that saw half a request has seen it, and only the client may decide to repeat it.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"vibed.dev/agent/unread"
)

const (
	// maxRequestHeader bounds what a client may make us hold before the app has seen anything.
	maxRequestHeader = 128 << 10
	// headerTimeout ends a connection that sends the start of a request and then nothing. Idle keep-alive connections
	// have no timeout at all: closing one races with the proxy that is about to use it.
	headerTimeout = 30 * time.Second
	// quietPeriod is how long nothing may have arrived before a drained listener closes: a request that the proxy sent
	// on an idle connection just before the drain is already in the socket, but not yet counted.
	quietPeriod = 100 * time.Millisecond
	drainPoll   = 5 * time.Millisecond
	// maxOpen bounds the requests and WebSockets that are open at the same time: each takes some 40 KB of memory that is
	// not the sandbox's, and two of the proxy's descriptors, of which there are at least 20,000 for everybody.
	maxOpen = 2048
	// closePatience is what answering 502 takes, with a margin.
	closePatience = 250 * time.Millisecond
)

// Dialer opens one connection to the app. It fails fast: waiting for an app to appear is the business of its start.
type Dialer func(ctx context.Context) (net.Conn, error)

// Stats is what is open now and what has been: upgraded connections (WebSockets) are not counted in Open.
type Stats struct {
	Open       int64
	WebSockets int64
	Total      int64
	LastAt     time.Time
}

// Ingress serves one app for the life of its sandbox.
type Ingress struct {
	pool   *pool
	grpc   http.Handler
	server *http.Server
	most   int64 // maxOpen

	bodyIdle  time.Duration
	beginning beginning
	shares    shares

	open, upgraded, total, last, moved atomic.Int64
	draining, closing                  atomic.Bool
	// only is the run whose requests are served, where who asks has to name it; nil: whoever reaches the ingress is right.
	only atomic.Pointer[string]
	// also are runs that are served beside it.
	also sync.Map
	heir atomic.Pointer[Heir]

	mu        sync.Mutex
	tunnels   map[*tunnel]struct{}
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
}

// New makes an ingress to the app behind dial; failures of the app are answered to the client, and reported to errors
// when it is not nil.
func New(dial Dialer, errorLog *log.Logger) *Ingress {
	in := &Ingress{pool: newPool(dial), most: maxOpen, bodyIdle: bodyIdle, shares: shares{open: map[string]int64{}}, tunnels: map[*tunnel]struct{}{},
		conns: map[*conn]struct{}{}, listeners: map[net.Listener]struct{}{}}
	in.grpc = newGRPC(dial, errorLog, &in.pool.heads)
	if errorLog == nil {
		errorLog = log.New(io.Discard, "", 0)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	in.server = &http.Server{
		Handler:           in,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxRequestHeader,
		ErrorLog:          errorLog,
		ConnState:         in.follow,
	}
	return in
}

// Serve accepts connections until Drain or Close; it then returns nil.
func (in *Ingress) Serve(l net.Listener) error {
	in.mu.Lock()
	in.listeners[l] = struct{}{}
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		delete(in.listeners, l)
		in.mu.Unlock()
	}()
	if err := in.server.Serve(tracking{l, in}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stats tells what is open at this moment.
func (in *Ingress) Stats() Stats {
	s := Stats{Open: in.open.Load(), WebSockets: in.upgraded.Load(), Total: in.total.Load()}
	if at := in.last.Load(); at != 0 {
		s.LastAt = time.Unix(0, at)
	}
	return s
}

// RunField is how the proxy says which run of which app it means, `<app>/<run>`, where the ingress has an address that
// may be another's by the time that a request arrives.
const RunField = "X-Vibed-Run"

// Only serves requests alone that name this run; with "", nobody's. Others are answered 421, and not counted: they are
// somebody else's.
func (in *Ingress) Only(run string) { in.only.Store(&run) }

// Also serves requests that name this run too, or no more: where one address is that of many runs, of which none has code.
// Whoever answers sees which run is meant.
func (in *Ingress) Also(run string, yes bool) {
	if yes {
		in.also.Store(run, struct{}{})
	} else {
		in.also.Delete(run)
	}
}

// Closing tells the proxy with each answer not to send another request on that connection, or takes it back: the app's
// name leads elsewhere, and whoever still comes by a kept connection is served once more.
func (in *Ingress) Closing(yes bool) { in.closing.Store(yes) }

// meant tells whether a request is this run's, and takes out of it what only concerned the hop before.
func (in *Ingress) meant(r *http.Request) bool {
	only := in.only.Load()
	if only == nil {
		return true
	}
	said := r.Header[RunField]
	if len(said) == 1 {
		if _, there := in.also.Load(said[0]); there {
			return true
		}
	}
	delete(r.Header, RunField)
	return *only != "" && len(said) == 1 && said[0] == *only
}

// ServeHTTP counts a request for as long as it is in any way unfinished, and relays it.
func (in *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !in.meant(r) {
		w.Header().Set("Connection", "close")
		unread.Discard(w, r, unread.Quiet)
		refuse(w, http.StatusMisdirectedRequest, "AnotherRun", "The run that is meant is not here, or not any more.", true)
		return
	}
	in.total.Add(1)
	in.last.Store(time.Now().UnixNano())
	open := in.open.Add(1)
	defer in.open.Add(-1)
	who := visitor(r.Header)
	within := in.shares.take(who, in.most/2)
	if within {
		defer in.shares.giveBack(who)
	}
	// A request that begins here after the hand-over is the heir's, whatever connection it came by.
	heir := in.heir.Load()
	if heir != nil || (in.draining.Load() || in.closing.Load()) && r.ProtoMajor == 1 {
		// Not a refusal: this request is served, the proxy only learns not to send another on this connection.
		w.Header().Set("Connection", "close")
	}
	switch {
	case open+in.upgraded.Load() > in.most:
		unread.Discard(w, r, unread.Quiet)
		refuse(w, http.StatusServiceUnavailable, "TooManyOpenRequests",
			fmt.Sprintf("%d requests of this app are open already.", in.most), true)
	case !within:
		unread.Discard(w, r, unread.Quiet)
		refuse(w, http.StatusServiceUnavailable, "TooManyOpenRequests",
			fmt.Sprintf("%d requests of this app are open from your address already.", in.most/2), true)
	case r.Method == http.MethodConnect:
		unread.Discard(w, r, unread.Quiet)
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "An app is not a proxy: CONNECT is not passed on.", false)
	case r.ProtoMajor == 2 && heir != nil:
		heir.serve(w, r, in.serve)
	case heir != nil:
		in.relay(w, r, heir.pool)
	default:
		in.serve(w, r)
	}
}

// serve has the app answer.
func (in *Ingress) serve(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && isGRPC(r.Header) {
		in.grpc.ServeHTTP(w, r)
	} else {
		in.relay(w, r, in.pool)
	}
}

// Drain serves on until the last request and the last WebSocket are done and nothing has come for the time that is given
// (less than quietPeriod counts as that), or ctx ends. WebSockets that are left get close code 1012; then the listener and the idle connections are closed. It returns how many requests were still open, and
// how many WebSockets it closed.
func (in *Ingress) Drain(ctx context.Context, calm time.Duration) (open, closedWebSockets int) {
	calm = max(calm, quietPeriod)
	in.draining.Store(true)
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	quiet, seen := time.Now(), in.total.Load()
wait:
	for {
		now := time.Now()
		if total := in.total.Load(); total != seen || in.open.Load() != 0 || in.upgraded.Load() != 0 || in.unsettled() {
			quiet, seen = now, total
		} else if now.Sub(quiet) >= calm {
			break
		}
		select {
		case <-ctx.Done():
			break wait
		case <-tick.C:
		}
	}
	closedWebSockets = in.closeTunnels()
	open = int(in.open.Load())
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if open > 0 {
		// What is still open has had its time; Shutdown would wait for it again.
		cancel()
	}
	in.server.Shutdown(grace)
	return open, closedWebSockets
}

// Close is for when the app is gone: nothing new is taken, what is open has a moment to be told so, and is then cut.
func (in *Ingress) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	in.server.Shutdown(ctx)
	in.server.Close()
	in.mu.Lock()
	for t := range in.tunnels {
		t.cut()
	}
	in.mu.Unlock()
	in.pool.close()
	in.HandOver(nil)
}

func (in *Ingress) closeTunnels() int {
	in.mu.Lock()
	left := make([]*tunnel, 0, len(in.tunnels))
	for t := range in.tunnels {
		left = append(left, t)
	}
	in.mu.Unlock()
	var all sync.WaitGroup
	for _, t := range left {
		all.Add(1)
		go func() { defer all.Done(); t.restart() }()
	}
	all.Wait()
	return len(left)
}
