// Package unread is about what of a request's body has not been read when its answer begins.
//
// A connection of HTTP/1 on which a part of a body may be left cannot be used again. To Caddy, which has it from a
// client, that must be said: Go's net/http, with full duplex enabled, takes the connection for one that waits for its next
// request while the proxy's transport still reads the last one, and a panic of that transport ends the whole process
// (https://go.dev/issue/68560). "Connection: close" is about one hop only, so it comes in a field of its own.
package unread

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// Field tells Caddy to end the client's connection with this answer (src/vibed/router/Caddyfile).
const Field = "X-Vibed-Unread"

const (
	// Quiet and Longest bound how long the end of an early answer waits for the client's body: until nothing has come for
	// so long, and where nobody wants it, for so long in all.
	Quiet   = time.Second
	Longest = 30 * time.Second
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Announce says in the head of an answer that it begins before the request's body has ended.
func Announce(h http.Header) {
	h.Set("Connection", "close")
	h.Set(Field, "1")
}

// Discard reads what still comes of a body that nobody wants before it is answered, because many clients look for an
// answer only when they have sent their request. It announces what is left then. A client that waits to be asked for its
// body is not asked.
func Discard(w http.ResponseWriter, r *http.Request, longest time.Duration) {
	if r.Body == nil || r.Body == http.NoBody || r.ProtoMajor != 1 {
		return
	}
	if r.Header["Expect"] != nil {
		Announce(w.Header())
		return
	}
	control := http.NewResponseController(w)
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	for end := time.Now().Add(longest); time.Now().Before(end); {
		control.SetReadDeadline(time.Now().Add(min(Quiet, time.Until(end))))
		switch _, err := r.Body.Read(*pooled); {
		case err == io.EOF:
			control.SetReadDeadline(time.Time{})
			return
		case err != nil:
			end = time.Time{}
		}
	}
	Announce(w.Header())
	control.SetReadDeadline(time.Unix(1, 0)) // or net/http reads on
}
