package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// All versions of an app are reached by one address, so that the proxy keeps connections to an old version when the
// name already means the new one. Closing them would race with the request that the proxy is just sending. Instead they
// move: the descriptor of each idle connection is passed to the new version's ingress, and a request that is already in
// it is served there. A request on a connection that cannot move is relayed. Nothing is closed, nothing is sent again.

const (
	// handOverPatience bounds the wait for idle connections to move: each needs one wake-up of its goroutine.
	handOverPatience = 2 * time.Second
	handOverPoll     = 200 * time.Microsecond
	takePatience     = time.Second
)

// Heir is the ingress of the version that takes over.
type Heir struct {
	mu     sync.Mutex
	conn   *net.UnixConn
	silent bool // it does not say what it has taken, as those of earlier releases
	pool   *pool
	http2  *httputil.ReverseProxy
}

// NewHeir connects to the socket on which the heir takes connections; dial opens one to its ingress, for requests whose
// connection cannot move.
func NewHeir(connections, dial Dialer) (*Heir, error) {
	conn, err := connections(context.Background())
	if err != nil {
		return nil, err
	}
	local, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptors pass through Unix sockets only, not through %s", conn.RemoteAddr().Network())
	}
	to := newPool(dial)
	return &Heir{conn: local, pool: to, http2: newGRPC(dial, nil, &to.heads)}, nil
}

// Forget closes an heir to which nothing was handed over.
func (h *Heir) Forget() { h.close() }

func (h *Heir) close() {
	h.mu.Lock() // what is just being given is not in doubt
	defer h.mu.Unlock()
	h.conn.Close()
	h.pool.close()
}

// serve passes an HTTP/2 request on, or has it served otherwise when the heir is gone already.
func (h *Heir) serve(w http.ResponseWriter, r *http.Request, otherwise http.HandlerFunc) {
	proxy := *h.http2
	proxy.ErrorHandler = func(w http.ResponseWriter, out *http.Request, err error) {
		if unheard := new(unheard); errors.As(err, unheard) && r.Context().Err() == nil {
			otherwise(w, r)
			return
		}
		h.http2.ErrorHandler(w, out, err)
	}
	// The transport closes the body of a request that it has not sent.
	sent := r.WithContext(r.Context())
	sent.Body = io.NopCloser(r.Body)
	proxy.ServeHTTP(w, sent)
}

// give returns when the heir has the connection, and an error when it never will: until it says so, the connection may
// lie in a socket that nobody reads any more, and only what is still open here keeps it alive.
func (h *Heir) give(fd int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn.SetDeadline(time.Now().Add(takePatience))
	if _, _, err := h.conn.WriteMsgUnix([]byte{0}, syscall.UnixRights(fd), nil); err != nil || h.silent {
		return err
	}
	_, err := h.conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.silent = true
		return nil
	}
	return err
}

// HandOver lets the heir have every connection on which no request is under way, now and from now on; it returns when
// those that were idle have moved. What is under way is finished here. Nil takes it back: this ingress serves again.
func (in *Ingress) HandOver(heir *Heir) (moved int) {
	in.LetHave(heir)
	return in.Moved(heir)
}

// LetHave is the first half of HandOver: from now on what begins here is the heir's.
func (in *Ingress) LetHave(heir *Heir) {
	if before := in.heir.Swap(heir); before != nil {
		before.close()
	}
}

// Moved is the other half: it waits until what was idle has moved, or is another's business.
func (in *Ingress) Moved(heir *Heir) int {
	if heir == nil {
		return 0
	}
	for deadline := time.Now().Add(handOverPatience); time.Now().Before(deadline) && in.heir.Load() == heir; time.Sleep(handOverPoll) {
		waiting := 0
		in.mu.Lock()
		for c := range in.conns {
			if c.wake() {
				waiting++
			}
		}
		in.mu.Unlock()
		if waiting == 0 {
			break
		}
	}
	return int(in.moved.Load())
}

// Inherit takes connections from the ingresses of earlier versions until l is closed.
func (in *Ingress) Inherit(l *net.UnixListener) {
	taken := newHandedOver(l.Addr(), in)
	defer taken.Close()
	go in.Serve(taken)
	for {
		from, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		go func() {
			defer from.Close()
			// What can no longer be taken must not be given: it stays where it is, and is served there. What has been
			// taken is said to be, before that.
			var taking sync.Mutex
			defer context.AfterFunc(taken.over, func() {
				taking.Lock()
				defer taking.Unlock()
				from.Close()
			})()
			for {
				conn, err := receive(from)
				if err != nil {
					return
				}
				taking.Lock()
				ok := taken.put(conn)
				if ok {
					from.SetWriteDeadline(time.Now().Add(takePatience))
					from.Write([]byte{0})
				}
				taking.Unlock()
				if !ok {
					return
				}
			}
		}()
	}
}

func receive(from *net.UnixConn) (net.Conn, error) {
	data, control := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
	n, controlLength, _, _, err := from.ReadMsgUnix(data, control)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("no more connections: %v", err)
	}
	messages, err := syscall.ParseSocketControlMessage(control[:controlLength])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages, not one: %v", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%d descriptors, not one: %v", len(fds), err)
	}
	syscall.CloseOnExec(fds[0])
	file := os.NewFile(uintptr(fds[0]), "connection")
	defer file.Close()
	return net.FileConn(file)
}

// handedOver is a listener whose connections come from elsewhere.
type handedOver struct {
	in    *Ingress
	addr  net.Addr
	conns chan net.Conn
	over  context.Context
	end   context.CancelFunc
}

func newHandedOver(addr net.Addr, in *Ingress) *handedOver {
	h := &handedOver{in: in, addr: addr, conns: make(chan net.Conn)}
	h.over, h.end = context.WithCancel(context.Background())
	return h
}

// put tells whether the connection is one of ours now.
func (h *handedOver) put(c net.Conn) bool {
	c = h.in.track(c)
	select {
	case h.conns <- c:
		return true
	case <-h.over.Done():
		h.in.follow(c, http.StateClosed)
		c.Close()
		return false
	}
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.over.Done():
		return nil, net.ErrClosed
	}
}

func (h *handedOver) Close() error {
	h.end()
	return nil
}

func (h *handedOver) Addr() net.Addr { return h.addr }

// tracking makes every accepted connection one that can move.
type tracking struct {
	net.Listener
	in *Ingress
}

func (l tracking) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.in.track(accepted), nil
}

// track makes a connection one that can move, unless it is one or never can.
func (in *Ingress) track(accepted net.Conn) net.Conn {
	unix, ok := accepted.(*net.UnixConn)
	if !ok {
		return accepted
	}
	c := &conn{UnixConn: unix, in: in, idle: true, waits: -1}
	in.mu.Lock()
	in.conns[c] = struct{}{}
	in.mu.Unlock()
	return c
}

// unsettled tells whether there is a connection that must not be closed yet, however long nothing has come: the goroutine
// that moves it, or has read the first bytes of a request, may not have had its turn on a busy machine.
func (in *Ingress) unsettled() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	moves := in.heir.Load() != nil
	found := false
	for c := range in.conns {
		found = c.unsettled(moves) || found
	}
	for l := range in.listeners {
		found = found || hasWaiting(l)
	}
	return found
}

// unsettled interrupts the read of a connection that is to move.
func (c *conn) unsettled(moves bool) bool {
	if c.gone.Load() {
		return false
	}
	c.mu.Lock()
	busy := !c.idle && !c.fixed
	c.mu.Unlock()
	return busy || moves && c.wake()
}

// hasWaiting tells whether connections wait to be accepted.
func hasWaiting(l net.Listener) (waiting bool) {
	source, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := source.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		poll := struct {
			fd              int32
			events, revents int16
		}{fd: int32(fd), events: 1} // POLLIN
		n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&syscall.Timespec{})), 0, 0, 0)
		waiting = n == 1 && poll.revents&1 != 0
	})
	return waiting
}

// conn is a connection of the proxy.
type conn struct {
	*net.UnixConn
	in *Ingress

	mu sync.Mutex
	// idle means that no byte of a request has been read, and what came before is answered. It ends before the read that
	// brought the first byte returns, so that whoever sees it true may interrupt the read.
	idle bool
	// fixed connections stay: HTTP/2, those that the heir did not take, and clients that send a request before the last
	// one is answered (the proxy does not), of which net/http may hold a part.
	fixed bool
	// deadline is what net/http wants for its reads; an interrupted one gets it back. On an idle connection it does not
	// hold: net/http gives a new one, and one that has moved is new, only so long for its first byte (patience) that the
	// proxy may just be using it. It then begins with that byte.
	deadline time.Time
	patience time.Duration
	woken    bool
	// waits counts the deadlines since the last answer. The second one follows the first bytes of the next request: if
	// none have been read since, net/http had them already. -1 before the first answer.
	waits int

	// gone means that it has moved: nothing more may be read from or written to it here.
	gone atomic.Bool
}

// http2Preface is how HTTP/2 begins (RFC 9113, section 3.4).
var http2Preface = []byte("PRI")

func (c *conn) Read(p []byte) (int, error) {
	for {
		if heir := c.in.heir.Load(); heir != nil && c.movable() {
			c.move(heir)
		}
		if c.gone.Load() {
			return 0, io.EOF // to net/http the client has left: it answers nothing
		}
		n, err := c.UnixConn.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.interrupted() {
			continue // also when there is no heir any more: net/http would close the connection
		}
		c.saw(p[:n], len(p))
		return n, err
	}
}

func (c *conn) Write(p []byte) (int, error) {
	if c.gone.Load() {
		return 0, net.ErrClosed
	}
	return c.UnixConn.Write(p)
}

func (c *conn) saw(data []byte, room int) {
	if len(data) == 0 {
		return
	}
	c.mu.Lock()
	if c.idle && bytes.HasPrefix(data, http2Preface) {
		c.fixed = true
	}
	if !c.idle && room == 1 {
		// net/http looks for the client's end while a handler runs, one byte at a time.
		c.fixed = true
	}
	if c.idle {
		c.idle = false
		if c.patience > 0 {
			c.deadline = time.Now().Add(c.patience)
			c.arm()
		}
	}
	c.sleep()
	c.mu.Unlock()
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle && c.waits >= 0 {
		if c.waits++; c.waits > 1 {
			c.idle, c.fixed = false, true
		}
	}
	c.deadline, c.patience, c.woken = t, 0, false
	if c.idle && !t.IsZero() {
		c.patience = time.Until(t)
	}
	return c.arm()
}

func (c *conn) movable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle && !c.fixed
}

// wake interrupts the read of an idle connection, and tells whether there is one.
func (c *conn) wake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.idle || c.fixed {
		return false
	}
	c.woken = true
	c.UnixConn.SetReadDeadline(time.Unix(1, 0))
	return true
}

// interrupted tells that it was wake that ended a read.
func (c *conn) interrupted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	woken := c.woken
	c.sleep()
	return woken
}

// sleep undoes wake; called with the lock held.
func (c *conn) sleep() {
	if c.woken {
		c.woken = false
		c.arm()
	}
}

// arm gives the reads the deadline that they have now; called with the lock held.
func (c *conn) arm() error {
	if c.idle {
		return c.UnixConn.SetReadDeadline(time.Time{})
	}
	return c.UnixConn.SetReadDeadline(c.deadline)
}

// move passes the connection on; called by its reader, when there is no other.
func (c *conn) move(heir *Heir) {
	err := errors.New("closed")
	if raw, rawErr := c.UnixConn.SyscallConn(); rawErr == nil {
		raw.Control(func(fd uintptr) { err = heir.give(int(fd)) })
	}
	c.mu.Lock()
	c.fixed = true
	c.sleep()
	c.mu.Unlock()
	if err == nil {
		c.gone.Store(true)
		c.in.moved.Add(1)
	}
}

// follow keeps account of a connection's life (http.Server.ConnState).
func (in *Ingress) follow(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateIdle:
		c.mu.Lock()
		c.idle, c.waits = true, 0
		c.mu.Unlock()
	case http.StateHijacked, http.StateClosed:
		in.mu.Lock()
		delete(in.conns, c)
		in.mu.Unlock()
	}
}
