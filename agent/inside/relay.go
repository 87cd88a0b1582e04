package inside

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// relay copies connections from the app's socket, which the supervisor dials, to the port that the app listens on.
type relay struct {
	mu      sync.RWMutex
	targets []string
	held    *net.TCPConn // one that the app has taken and on which nothing was sent yet
	again   func()       // asks for a new look at who listens
}

func (r *relay) point(targets []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = targets
	r.swap(nil)
}

// hold keeps a connection for the first that comes, in place of the one that is held, which is closed.
func (r *relay) hold(c *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swap(c)
}

func (r *relay) holds(c *net.TCPConn) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.held == c
}

func (r *relay) swap(c *net.TCPConn) {
	if r.held != nil {
		_ = r.held.Close()
	}
	r.held = c
}

// first takes the connection that is held, if the app has not closed it meanwhile.
func (r *relay) first() *net.TCPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.held
	r.held = nil
	if c != nil && hearing(c) != silent {
		_ = c.Close()
		return nil
	}
	return c
}

func (r *relay) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(5 * time.Millisecond) // out of descriptors: wait for some to be closed
			continue
		}
		go r.handle(c.(*net.UnixConn))
	}
}

func (r *relay) dial() *net.TCPConn {
	r.mu.RLock()
	targets, held := r.targets, r.held != nil
	r.mu.RUnlock()
	if held {
		if c := r.first(); c != nil {
			return c
		}
	}
	for _, t := range targets {
		if c, err := net.DialTimeout("tcp", t, 10*time.Second); err == nil {
			return c.(*net.TCPConn) // TCP_NODELAY is Go's default
		}
	}
	return nil
}

func (r *relay) handle(from *net.UnixConn) {
	defer func() { _ = from.Close() }()
	to := r.dial()
	if to == nil {
		r.again()
		if to = r.dial(); to == nil {
			return
		}
	}
	defer func() { _ = to.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(to, from)
	}()
	forward(from, to)
	<-done
}

type half interface {
	io.ReadWriter
	CloseWrite() error
	CloseRead() error
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// forward copies one direction and passes its end on: the other direction may go on for long.
func forward(to, from half) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := from.Read(*b)
		if n > 0 {
			if _, err := to.Write((*b)[:n]); err != nil {
				_ = from.CloseRead() // whoever still sends is told by a reset
				return
			}
		}
		if err != nil {
			_ = to.CloseWrite()
			return
		}
	}
}
