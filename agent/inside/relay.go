package inside

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// relay copies connections from the app's socket, which the supervisor dials, to the port that the app listens on.
type relay struct {
	mu      sync.RWMutex
	targets []string
	held    *net.TCPConn // one that the app has taken and on which nothing was sent yet
	speaks  language
	again   func()       // asks for a new look at who listens
	tell    func(string) // the app's owner
}

func (r *relay) point(targets []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.targets, targets) {
		r.speaks = unknown
	}
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

// answered says whether the app has ever answered a request.
func (r *relay) answered() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.speaks != unknown
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

// dial connects to the app, in the language that it speaks; known is false while its first answer has to show that.
func (r *relay) dial() (c conn, known bool) {
	r.mu.RLock()
	speaks, held := r.speaks, r.held != nil
	r.mu.RUnlock()
	var to *net.TCPConn
	if held {
		to = r.first()
	}
	if to == nil {
		to = r.dialTCP()
	}
	if to == nil {
		return nil, true
	}
	if speaks == overTLS {
		c, err := secured(to)
		if err != nil {
			return nil, true
		}
		return c, true
	}
	return to, speaks == plain
}

func (r *relay) dialTCP() *net.TCPConn {
	r.mu.RLock()
	targets := r.targets
	r.mu.RUnlock()
	for _, t := range targets {
		if c, err := net.DialTimeout("tcp", t, 10*time.Second); err == nil {
			return c.(*net.TCPConn) // TCP_NODELAY is Go's default
		}
	}
	return nil
}

func (r *relay) handle(from *net.UnixConn) {
	defer func() { _ = from.Close() }()
	to, known := r.dial()
	if to == nil {
		r.again()
		if to, known = r.dial(); to == nil {
			return
		}
	}
	defer func() { _ = to.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(to, from, nil)
	}()
	if known {
		forward(from, to, nil)
	} else {
		forward(from, to, r.heardFirst)
	}
	<-done
}

// conn is a connection to the app.
type conn interface {
	half
	Close() error
}

type half interface {
	io.ReadWriter
	CloseWrite() error
	CloseRead() error
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// forward copies one direction and passes its end on: the other direction may go on for long. What comes first is shown
// to first, if there is one; an end without anything too.
func forward(to, from half, first func([]byte)) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := from.Read(*b)
		if first != nil {
			go first(bytes.Clone((*b)[:min(max(n, 0), 512)]))
			first = nil
		}
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
