package ingress

import (
	"context"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
)

func isGRPC(h http.Header) bool { return strings.HasPrefix(h.Get("Content-Type"), "application/grpc") }

// newGRPC relays HTTP/2 to HTTP/2, because gRPC needs streams in both directions and trailers. Go's HTTP/2 transport
// sends again only what the other side has declared unprocessed (REFUSED_STREAM, GOAWAY), which is not a repetition.
func newGRPC(dial Dialer, errorLog *log.Logger) http.Handler {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &httputil.ReverseProxy{
		Transport: &http.Transport{
			Protocols:          protocols,
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression: true,
			IdleConnTimeout:    idleLife,

			MaxResponseHeaderBytes: maxResponseHead,
		},
		FlushInterval: -1,
		ErrorLog:      errorLog,
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
				unreachable(w, err, true)
			}
		},
	}
}
