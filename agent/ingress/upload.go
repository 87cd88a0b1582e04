package ingress

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"vibed.dev/agent/unread"
)

const (
	// smallBodyLimit is what is worth reading whole, to save a goroutine and a write; it fits the write buffer.
	smallBodyLimit = 2 << 10
	// continuePatience is how long an app may ignore "Expect: 100-continue", as many do, before the body is sent anyway.
	continuePatience = time.Second
	// bodyIdle is how long a request's body may pause as long as the app has not answered; then it is the app's affair.
	bodyIdle = time.Minute
)

// smallBody reads the body when it is known to be small and the client is not waiting for permission to send it.
func (in *Ingress) smallBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength <= 0 || r.ContentLength > smallBodyLimit || r.Header["Expect"] != nil {
		return nil, nil
	}
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(in.bodyIdle))
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	if err == nil {
		control.SetReadDeadline(time.Time{})
	}
	return body, err
}

// upload streams a request body to the app while the response is awaited or already on its way: an app may answer, and
// hang up, before it has read everything. What it does not want is read all the same and thrown away, because many
// clients look for a response only when they have sent their request, and a proxy that is still sending when the
// connection is closed may miss the response. A nil upload is a request without one.
type upload struct {
	r        *http.Request
	c        *appConn
	permit   chan bool
	done     chan struct{}
	complete bool
	client   error
	came     atomic.Int64 // bytes from the client
	sending  atomic.Bool  // the app is slow, not the client
	unwanted atomic.Bool  // the app has hung up
	stalled  atomic.Bool  // the client has sent nothing for too long
}

func startUpload(w http.ResponseWriter, r *http.Request, c *appConn) *upload {
	// Without this an HTTP/1.1 server swallows the rest of the body before it lets the response out.
	http.NewResponseController(w).EnableFullDuplex()
	u := &upload{r: r, c: c, done: make(chan struct{})}
	if hasToken(r.Header["Expect"], "100-continue") {
		u.permit = make(chan bool, 1)
	}
	go u.run()
	return u
}

func (u *upload) run() {
	defer close(u.done)
	if u.permit != nil {
		select {
		case send := <-u.permit:
			if !send {
				return
			}
		case <-time.After(continuePatience):
		}
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	chunked := u.r.ContentLength < 0
	for {
		n, err := u.r.Body.Read(buf)
		u.came.Add(int64(n))
		if n > 0 && !u.unwanted.Load() && u.write(buf[:n], chunked) != nil {
			// What it has answered is read by the other side of this request.
			u.unwanted.Store(true)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			// The app must not take the part for the whole.
			u.client = err
			u.c.Close()
			return
		}
	}
	if u.unwanted.Load() || chunked && u.writeEnd() != nil {
		return
	}
	u.complete = true
}

func (u *upload) write(p []byte, chunked bool) error {
	u.sending.Store(true)
	defer u.sending.Store(false)
	w := u.c.w
	if chunked {
		fmt.Fprintf(w, "%x\r\n", len(p))
	}
	w.Write(p)
	if chunked {
		w.WriteString("\r\n")
	}
	return w.Flush()
}

func (u *upload) writeEnd() error {
	w := u.c.w
	w.WriteString("0\r\n")
	for name, values := range u.r.Trailer {
		if hopByHop(name) || name == "Content-Length" {
			continue
		}
		for _, v := range values {
			writeField(w, name, v)
		}
	}
	w.WriteString("\r\n")
	return w.Flush()
}

// proceed lets a body go that waits for "100 Continue"; refused keeps it with the client for good.
func (u *upload) proceed() { u.allow(true) }
func (u *upload) refused() { u.allow(false) }

func (u *upload) allow(send bool) {
	if u == nil || u.permit == nil {
		return
	}
	select {
	case u.permit <- send:
	default:
	}
}

// watch ends the wait for an app's answer, by hanging up, when the client stops sending; it is over when answered is called.
func (u *upload) watch(idle time.Duration) (answered func()) {
	if u == nil {
		return func() {}
	}
	over := make(chan struct{})
	go func() {
		for seen := u.came.Load(); ; {
			select {
			case <-over:
				return
			case <-u.done:
				return
			case <-time.After(idle):
			}
			came := u.came.Load()
			if came == seen && !u.sending.Load() {
				u.stalled.Store(true)
				u.c.Close()
				return
			}
			seen = came
		}
	}()
	return func() { close(over) }
}

// pending tells that the client still sends, or could; what has just been read is accounted for in a moment.
func (u *upload) pending() bool {
	if u == nil {
		return false
	}
	select {
	case <-u.done:
		return false
	case <-time.After(5 * time.Millisecond):
		return true
	}
}

// unread tells that a part of the body may be left in the client's connection: it still comes, or it was broken, and where
// the next request begins is not known.
func (u *upload) unread() bool { return u.pending() || u.clientFailed() }

// finished tells whether the app was sent all of the body.
func (u *upload) finished() bool {
	return u == nil || !u.pending() && u.complete
}

func (u *upload) clientFailed() bool {
	if u == nil {
		return false
	}
	select {
	case <-u.done:
		return u.client != nil && !errors.Is(u.client, http.ErrBodyReadAfterClose)
	default:
		return false
	}
}

// settle waits for the client's body, as long as it comes: the end of a response is what a client and the proxy before us
// take for the end of the exchange.
func (u *upload) settle() {
	if u == nil {
		return
	}
	begun, seen := time.Now(), u.came.Load()
	for {
		select {
		case <-u.done:
			return
		case <-time.After(unread.Quiet):
		}
		switch came := u.came.Load(); {
		case u.unwanted.Load() && time.Since(begun) > unread.Longest:
			return
		case came != seen:
			seen = came
		case u.sending.Load():
			u.c.Close() // it neither reads nor hangs up
		default:
			return
		}
	}
}

// stop returns when nobody reads the client's body any more, as net/http requires of a handler that ends. Part of it may
// then be left in the connection, which therefore has to end with this response.
func (u *upload) stop(w http.ResponseWriter) {
	if u == nil {
		return
	}
	select {
	case <-u.done:
		return
	default:
	}
	u.c.Close()
	u.refused()
	control := http.NewResponseController(w)
	control.Flush()
	control.SetReadDeadline(time.Unix(1, 0))
	<-u.done
}
