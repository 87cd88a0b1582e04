package ingress

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
)

func isGRPC(h http.Header) bool { return strings.HasPrefix(h.Get("Content-Type"), "application/grpc") }

// newGRPC relays HTTP/2 to HTTP/2, because gRPC needs streams in both directions and trailers. Go's HTTP/2 transport
// sends again only what the other side has declared unprocessed (REFUSED_STREAM, GOAWAY), which is not a repetition.
func newGRPC(dial Dialer, errorLog *log.Logger, heads *atomic.Int64) *httputil.ReverseProxy {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &httputil.ReverseProxy{
		Transport: &http.Transport{
			Protocols: protocols,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := dial(ctx)
				if err != nil {
					return nil, unheard{err}
				}
				return conn, nil
			},
			DisableCompression: true,
			IdleConnTimeout:    idleLife,

			MaxResponseHeaderBytes: maxResponseHead,
			// What an app sends and its client does not read is held in our memory: 4 MiB of each stream, if nothing is said.
			HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: maxUnread},
		},
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			cost := headCost(resp.Header)
			resp.Body = &heldHead{ReadCloser: resp.Body, release: sync.OnceFunc(func() { heads.Add(-cost) })}
			if heads.Add(cost) > maxHeads {
				return errTooManyHeads
			}
			return nil
		},
		ErrorLog: errorLog,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "app"
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			p.Out.Host = p.In.Host
			// ReverseProxy drops these because it cannot know who wrote them; here it was our own proxy.
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := p.In.Header[name]; ok {
					p.Out.Header[name] = v
				}
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				unreachable(w, err, !errors.As(err, new(unheard)))
			}
		},
	}
}

// heldHead is the body of a response whose head is counted until the body is closed.
type heldHead struct {
	io.ReadCloser
	release func()
}

func (h *heldHead) Close() error {
	h.release()
	return h.ReadCloser.Close()
}

func headCost(head http.Header) (cost int64) {
	for name, values := range head {
		for _, v := range values {
			cost += int64(len(name) + len(v) + headLine)
		}
	}
	return cost
}

// unheard is why the other side cannot have heard of a request.
type unheard struct{ error }

func (u unheard) Unwrap() error { return u.error }
