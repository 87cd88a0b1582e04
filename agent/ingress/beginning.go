package ingress

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
)

const (
	toldMethod = 20
	toldPath   = 200
)

// beginning follows an app's answers until one has succeeded: an app whose first answer is 5xx is most often one that
// works for nobody, and nothing else would say so. Redirections and 4xx are neither: a browser asks for /favicon.ico after
// every page, and the app that has none is no better for it.
type beginning struct {
	told func(answer string, failed bool)
	over atomic.Bool

	mu                  sync.Mutex
	method, path, query string // of the request that failed; no method as long as none has
}

// Watch has told called when the app answers 5xx before any request has succeeded, with such as "GET / was answered 500",
// and once more when that method and path is answered well. Each at most once, in that order; it must not block. To be
// called before Serve.
func (in *Ingress) Watch(told func(answer string, failed bool)) { in.beginning.told = told }

// answered takes the status of an answer of the app's own, or the 502 that stands for none.
func (b *beginning) answered(r *http.Request, status int) {
	if b.told == nil || b.over.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over.Load():
	case b.method == "" && status < 300:
		b.over.Store(true)
	case b.method == "" && status >= 500:
		b.method, b.path, b.query = r.Method, r.URL.EscapedPath(), r.URL.RawQuery
		b.told(account(r, status), true)
	case b.method != "" && status < 400 && b.again(r):
		b.over.Store(true)
		b.told(account(r, status), false)
	}
}

// again tells whether r asks for what failed. Another query may be another thing: that of a debugger's style sheet, for
// instance, which is asked for at the path of the page that failed.
func (b *beginning) again(r *http.Request) bool {
	return r.Method == b.method && r.URL.EscapedPath() == b.path && (r.URL.RawQuery == "" || r.URL.RawQuery == b.query)
}

// account tells what was answered, without the query, which may have secrets in it. An escaped path has no control
// characters.
func account(r *http.Request, status int) string {
	return fmt.Sprintf("%s %s was answered %d", clipped(r.Method, toldMethod), clipped(r.URL.EscapedPath(), toldPath), status)
}

func clipped(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}
