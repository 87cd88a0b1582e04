package ingress

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// smallBodyLimit is what is worth reading whole, to save a goroutine and a write; it fits the write buffer.
	smallBodyLimit = 2 << 10
	// continuePatience is how long an app may ignore "Expect: 100-continue", as many do, before the body is sent anyway.
	continuePatience = time.Second
	// settlePatience is how long a client may go on sending a body that nobody reads any more, after its response.
	settlePatience = 2 * time.Second
)

// smallBody reads the body when it is known to be small and the client is not waiting for permission to send it.
func smallBody(r *http.Request) ([]byte, error) {
	if r.ContentLength <= 0 || r.ContentLength > smallBodyLimit || r.Header["Expect"] != nil {
		return nil, nil
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

// upload streams a request body to the app while the response is awaited or already on its way: an app may answer, and
// hang up, before it has read everything. A nil upload is a request without one.
type upload struct {
	r        *http.Request
	c        *appConn
	permit   chan bool
	done     chan struct{}
	complete bool
	client   error
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
		if n > 0 && u.write(buf[:n], chunked) != nil {
			// The app does not want it. What it has answered is read by the other side of this request.
			return
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
	if chunked && u.writeEnd() != nil {
		return
	}
	u.complete = true
}

func (u *upload) write(p []byte, chunked bool) error {
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

// finished tells whether the app was sent all of the body, waiting a moment for the last write to be accounted.
func (u *upload) finished() bool {
	if u == nil {
		return true
	}
	select {
	case <-u.done:
		return u.complete
	case <-time.After(5 * time.Millisecond):
		return false
	}
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

// settle returns when nobody reads the client's body any more, as net/http requires of a handler that ends. A client that
// neither sends nor closes is cut off after its response.
func (u *upload) settle(w http.ResponseWriter) {
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
	select {
	case <-u.done:
		return
	case <-time.After(settlePatience):
	}
	control := http.NewResponseController(w)
	control.Flush()
	control.SetReadDeadline(time.Unix(1, 0))
	<-u.done
	panic(http.ErrAbortHandler)
}
