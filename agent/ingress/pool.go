package ingress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	maxIdle = 1024
	// idleLife is half of the shortest keep-alive timeout that servers are given (1 s; gunicorn has 2 s, Node and uvicorn
	// 5 s): when the app closes an idle connection, a request may just be on its way, and would be lost. Nothing tells us
	// that it was not read, so it could not be sent again. A connection that nobody has used for so long is not worth it.
	idleLife = 500 * time.Millisecond
	// maxResponseHead bounds the head of one response, maxHeads all that are held at the same time. What an app sends is
	// held in our memory, which is not the sandbox's; headLine is what a line of a head takes there besides its bytes.
	maxResponseHead = 128 << 10
	maxHeads        = 32 << 20
	headLine        = 128
	// maxUnread is what is held of one stream of HTTP/2 (gRPC) whose client does not read.
	maxUnread = 64 << 10
	// dialPatience is for a full accept queue alone: connect on a Unix socket then fails with EAGAIN instead of waiting.
	dialPatience = 5 * time.Second
)

// pool keeps the idle connections to the app. It has no goroutine per connection: whether one is still alive is looked up
// when it is taken, and the expired ones are closed by a timer that exists only while there are idle ones.
type pool struct {
	dial   Dialer
	mu     sync.Mutex
	idle   []*appConn
	timer  *time.Timer
	closed bool
	heads  atomic.Int64 // what the heads of responses take at the moment
}

func newPool(dial Dialer) *pool { return &pool{dial: dial} }

// get returns an idle connection that is alive, or a new one when there is none (or when fresh is asked for).
func (p *pool) get(ctx context.Context, fresh bool) (*appConn, error) {
	for !fresh {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			break
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if time.Now().Before(c.expires) && c.alive() {
			c.reused, c.sent = true, 0
			return c, nil
		}
		c.Close()
	}
	for wait, end := time.Millisecond, time.Now().Add(dialPatience); ; wait = min(2*wait, 50*time.Millisecond) {
		conn, err := p.dial(ctx)
		if err == nil {
			return newAppConn(conn, p), nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// put gives back a connection on which nothing is under way; keepAlive is the app's own Keep-Alive header.
func (p *pool) put(c *appConn, keepAlive string) {
	life := idleLife
	if keepAlive != "" {
		life = min(life, announcedLife(keepAlive))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdle {
		c.Close()
		return
	}
	c.expires = time.Now().Add(life)
	p.idle = append(p.idle, c)
	if p.timer == nil {
		p.timer = time.AfterFunc(idleLife, p.expire)
	}
}

func (p *pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, kept := time.Now(), p.idle[:0]
	for _, c := range p.idle {
		if now.Before(c.expires) {
			kept = append(kept, c)
		} else {
			c.Close()
		}
	}
	clear(p.idle[len(kept):])
	p.idle, p.timer = kept, nil
	if len(kept) > 0 {
		p.timer = time.AfterFunc(idleLife, p.expire)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
}

// announcedLife halves the timeout of a Keep-Alive header ("timeout=5, max=100"): the app's clock started before ours.
func announcedLife(header string) time.Duration {
	for part := range strings.SplitSeq(header, ",") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(part), "timeout="); ok {
			if n, err := strconv.Atoi(v); err == nil && n >= 0 {
				return time.Duration(n) * time.Second / 2
			}
		}
	}
	return idleLife
}

// appConn is one connection to the app with its buffers. sent counts what the kernel has taken of the present request:
// as long as it is zero the app cannot have seen the request.
type appConn struct {
	net.Conn
	pool    *pool // where it belongs
	r       *bufio.Reader
	w       *bufio.Writer
	inHead  bool
	head    int64 // what the head of the present response takes
	refused error // why no more of it is read
	sent    int64
	reused  bool
	expires time.Time

	raw   syscall.RawConn
	probe func(fd uintptr) bool
	live  bool
}

func newAppConn(conn net.Conn, p *pool) *appConn {
	c := &appConn{Conn: conn, pool: p}
	c.r = bufio.NewReaderSize(headReader{c}, 4<<10)
	c.w = bufio.NewWriterSize(countedWriter{c}, 4<<10)
	if sc, ok := conn.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	c.probe = func(fd uintptr) bool {
		var b [1]byte
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		// Only "nothing to read yet" is good: end of stream means that the app has closed, and bytes that nobody
		// asked for would be taken for the answer to the next request.
		c.live = errno == syscall.EAGAIN
		return true
	}
	return c
}

func (c *appConn) alive() bool {
	if c.raw == nil || c.r.Buffered() > 0 {
		return false
	}
	c.live = false
	return c.raw.Read(c.probe) == nil && c.live
}

// headReader stops an app that answers with endless headers, in one response or in many at once; a body has no such bound.
type headReader struct{ c *appConn }

func (h headReader) Read(p []byte) (int, error) {
	if !h.c.inHead {
		return h.c.Conn.Read(p)
	}
	switch {
	case h.c.head > maxResponseHead:
		h.c.refused = errHeadTooLarge
	case h.c.pool.heads.Load() > maxHeads:
		h.c.refused = errTooManyHeads
	}
	if h.c.refused != nil {
		return 0, h.c.refused
	}
	n, err := h.c.Conn.Read(p)
	h.c.take(p[:n], 1)
	return n, err
}

// take counts bytes of a head, or with -1 gives them back.
func (c *appConn) take(p []byte, sign int64) {
	cost := sign * int64(len(p)+headLine*bytes.Count(p, []byte{'\n'}))
	c.head += cost
	c.pool.heads.Add(cost)
}

// headBegins is called for each response; what its head takes is given back to the pool by whoever is done with it.
func (c *appConn) headBegins() { c.inHead, c.head = true, 0 }

// headEnds says that what is still buffered is no part of the head.
func (c *appConn) headEnds() {
	c.inHead = false
	rest, _ := c.r.Peek(c.r.Buffered())
	c.take(rest, -1)
}

var (
	errHeadTooLarge = errors.New("the app's response headers are too large")
	errTooManyHeads = errors.New("the headers of all responses that are open take too much memory")
)

type countedWriter struct{ c *appConn }

func (w countedWriter) Write(p []byte) (int, error) {
	n, err := w.c.Conn.Write(p)
	w.c.sent += int64(n)
	return n, err
}

var _ io.Writer = countedWriter{}
