package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"vibed.dev/agent/unread"
)

// buffers carry bodies in both directions.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// relay passes one request to the app over HTTP/1.1 and its response back, streaming both.
//
// net/http's own Transport would do, but it repeats requests that it takes for harmless, and its two goroutines a
// connection cost as much as all the rest of this hop.
func (in *Ingress) relay(w http.ResponseWriter, r *http.Request, to *pool) {
	if !plain(r.Host) || !plain(r.Method) {
		unread.Discard(w, r, unread.Longest)
		refuse(w, http.StatusBadRequest, "BadRequest", "The Host is not a host, or the method not a method.", false)
		return
	}
	ctx, upgrade := r.Context(), upgradeProtocol(r)
	small, err := in.smallBody(w, r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		tooSlow(w)
		return
	}
	if err != nil {
		// The client went away, or lied about its body, before the app had heard of the request.
		panic(http.ErrAbortHandler)
	}
	c, mayHaveRun, err := in.send(ctx, r, to, upgrade, small)
	if err != nil {
		if ctx.Err() == nil {
			unread.Discard(w, r, unread.Longest)
			unreachable(w, err, mayHaveRun)
		}
		return
	}
	// A client that goes away takes its request with it, whatever it is waiting in.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	var up *upload
	if small == nil && r.ContentLength != 0 {
		up = startUpload(w, r, c)
	}
	answered := up.watch(in.bodyIdle)
	resp, err := answer(w, r, c, up)
	answered()
	defer c.pool.heads.Add(-c.head) // as it is now: the connection may be another request's by then
	if err != nil {
		c.Close()
		if ctx.Err() != nil || up.clientFailed() {
			up.stop(w)
			panic(http.ErrAbortHandler)
		}
		if up != nil && up.stalled.Load() {
			tooSlow(w)
			up.stop(w)
			return
		}
		if up.unread() {
			unread.Announce(w.Header())
			up.settle()
		}
		in.took(r, c, http.StatusBadGateway)
		unreachable(w, err, true)
		up.stop(w)
		return
	}
	in.took(r, c, resp.StatusCode)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if !stop() {
			panic(http.ErrAbortHandler)
		}
		in.tunnel(w, r, c, resp)
		return
	}
	up.refused() // a no-op unless the client still waits to be told to send its body
	copyResponseHead(w.Header(), resp)
	announced := len(resp.Trailer)
	var settle func()
	if up.unread() {
		unread.Announce(w.Header())
		switch settle = up.settle; {
		case bodiless(r, resp):
			settle()
			settle = nil
		case resp.ContentLength == 0:
			w.Header().Del("Content-Length") // so that there is an end that can wait
		}
	}
	w.WriteHeader(resp.StatusCode)
	if err := copyBody(w, c, resp, settle); err != nil {
		c.Close()
		http.NewResponseController(w).Flush() // what has come is the client's
		up.stop(w)
		panic(http.ErrAbortHandler)
	}
	if len(resp.Trailer) > 0 {
		copyTrailer(w, resp, announced)
	}
	sent := up.finished()
	if !stop() || !sent || resp.Close || c.r.Buffered() > 0 {
		c.Close()
	} else {
		c.pool.put(c, resp.Header.Get("Keep-Alive"))
	}
	up.stop(w)
}

// took notes what the app made of a request; that of an heir is noted by the heir's own ingress.
func (in *Ingress) took(r *http.Request, c *appConn, status int) {
	if c.pool == in.pool {
		in.beginning.answered(r, status)
	}
}

// bodiless responses end with their head.
func bodiless(r *http.Request, resp *http.Response) bool {
	return r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
}

// send writes the head of the request, and the whole body when it is small, to a connection of the app. It takes another
// connection only when a kept one turns out to be dead before the kernel has taken a single byte.
func (in *Ingress) send(ctx context.Context, r *http.Request, to *pool, upgrade string, small []byte) (_ *appConn, mayHaveRun bool, _ error) {
	for fresh := false; ; fresh = true {
		c, err := to.get(ctx, fresh)
		if err != nil && to != in.pool {
			to = in.pool // the heir is gone already, and the app is still here
			continue
		}
		if err != nil {
			return nil, false, err
		}
		writeRequestHead(c.w, r, upgrade)
		c.w.Write(small)
		if err = c.w.Flush(); err == nil {
			return c, false, nil
		}
		c.Close()
		if c.sent > 0 || !c.reused {
			return nil, c.sent > 0, err
		}
	}
}

// answer reads the response's head, passing on the informational ones before it.
func answer(w http.ResponseWriter, r *http.Request, c *appConn, up *upload) (*http.Response, error) {
	c.headBegins()
	defer c.headEnds()
	for range 16 {
		resp, err := http.ReadResponse(c.r, r)
		if err != nil {
			if c.refused != nil {
				err = c.refused // it may have come in the middle of a line, which was then found to be malformed
			} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				err = errors.New("it closed the connection")
			}
			return nil, err
		}
		switch {
		case resp.StatusCode < 100:
			return nil, fmt.Errorf("its status is %d", resp.StatusCode)
		case resp.StatusCode == http.StatusContinue:
			up.proceed()
		case resp.StatusCode == http.StatusSwitchingProtocols:
			if upgradeProtocol(r) == "" {
				return nil, errors.New("it switched protocols without being asked")
			}
			return resp, nil
		case resp.StatusCode < 200:
			if r.ProtoAtLeast(1, 1) {
				h := w.Header()
				before := h.Clone()
				copyResponseHead(h, resp)
				delete(h, "Content-Type")
				w.WriteHeader(resp.StatusCode)
				clear(h)
				for k, v := range before {
					h[k] = v
				}
			}
		default:
			return resp, nil
		}
	}
	return nil, errors.New("it sent informational responses without an end")
}

// copyBody streams the response. What has arrived is flushed before we wait for more, so that an event stream is not held
// back; a response that is complete is left to net/http, which sends head and body in one write. settle, if it is not nil,
// is called before the last byte, or before the end where that is told apart.
func copyBody(w http.ResponseWriter, c *appConn, resp *http.Response, settle func()) error {
	control := http.NewResponseController(w)
	if resp.Body == http.NoBody {
		if settle != nil {
			control.Flush()
			settle()
		}
		return nil
	}
	if resp.ContentLength < 0 && c.r.Buffered() == 0 {
		// Headers of an event stream must not wait for its first event.
		control.Flush()
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	var total int64
	for {
		n, err := resp.Body.Read(buf)
		total += int64(n)
		rest := buf[:n]
		if settle != nil && n > 0 && total == resp.ContentLength {
			if _, werr := w.Write(rest[:n-1]); werr != nil {
				return werr
			}
			control.Flush()
			settle()
			rest, settle = rest[n-1:], nil
		}
		if len(rest) > 0 {
			if _, werr := w.Write(rest); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			if settle != nil {
				control.Flush()
				settle()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("the app broke off its response: %w", err)
		}
		if total != resp.ContentLength {
			control.Flush()
		}
	}
}

func copyTrailer(w http.ResponseWriter, resp *http.Response, announced int) {
	// Trailers need a chunked response, which net/http uses only once something was flushed.
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	prefix := ""
	if len(resp.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range resp.Trailer {
		w.Header()[prefix+name] = values
	}
}
