package registry

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

const (
	maxOpen = 128
	// maxDenials are told; a build that tries in a loop says nothing new.
	maxDenials = 1000
	maxTrouble = 100
)

// Gate is the server.
type Gate struct {
	config   Config
	upstream *upstream
	cache    *cache
	slots    chan struct{}
	key      [32]byte // of the addresses that this gate gives out
	npm      npmKnown

	mu      sync.Mutex
	events  io.Writer
	denials int
	trouble int
}

// event is a line on standard error.
type event struct {
	Ready   bool     `json:"ready,omitempty"`
	Denied  string   `json:"denied,omitempty"`  // host:port
	Trouble string   `json:"trouble,omitempty"` // a registry that failed in a way that may pass, in words
	Refused string   `json:"refused,omitempty"` // a registry that refuses us, in words
	Lacking *lacking `json:"lacking,omitempty"`
}

// New makes a gate that tells its events as JSON lines.
func New(config Config, events io.Writer) (*Gate, error) {
	g := &Gate{config: config, events: events, slots: make(chan struct{}, maxOpen), cache: newCache(config.Cache, config.Arriving, config.CacheBytes)}
	if _, err := rand.Read(g.key[:]); err != nil {
		return nil, err
	}
	var err error
	if g.upstream, err = newUpstream(config); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Gate) tell(e event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case e.Denied != "":
		if g.denials++; g.denials > maxDenials {
			return
		}
	case e.Trouble != "" || e.Refused != "" || e.Lacking != nil:
		if g.trouble++; g.trouble > maxTrouble {
			return
		}
	}
	line, _ := json.Marshal(e)
	_, _ = g.events.Write(append(line, '\n'))
}

func (g *Gate) quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// refusal is an answer that is no success: its sentence goes to the client, which shows it.
type refusal struct {
	status int
	text   string
	theirs bool // the registry refuses, not we
	told   bool // by an event of its own
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-r.Context().Done():
		return
	}
	err := g.route(w, r)
	var why *refusal
	switch {
	case err == nil:
		return
	case errors.Is(err, errBroken):
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	case errors.As(err, &why):
	case errors.Is(err, context.Canceled):
		return // the client has gone
	default:
		why = refuse(http.StatusBadGateway, "%v", err)
	}
	switch {
	case why.told:
	case why.status >= 500:
		g.tell(event{Trouble: why.text})
	case why.theirs:
		g.tell(event{Refused: why.text})
	}
	for _, name := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Last-Modified"} {
		w.Header().Del(name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(why.status)
	_, _ = io.WriteString(w, why.text+"\n")
}

func (g *Gate) route(w http.ResponseWriter, r *http.Request) error {
	if host := asked(r); host != "" {
		g.tell(event{Denied: host})
		return refuse(http.StatusForbidden, "a build reaches the package registries only, at http://%s: %s is refused", own, host)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "a build reads from the package registries: %s is refused", r.Method)
	}
	path := r.URL.EscapedPath()
	for _, part := range strings.Split(path, "/") {
		if plain, err := url.PathUnescape(part); err != nil || plain == ".." || plain == "." || strings.ContainsAny(plain, "\x00\\\r\n") {
			return refuse(http.StatusBadRequest, "the path %q makes no sense", path)
		}
	}
	for prefix, serve := range map[string]func(http.ResponseWriter, *http.Request, string) error{
		"/pypi/simple/": g.simple, "/pypi/file/": g.pypiFile, "/npm/": g.npmPath, "/go/": g.goPath,
		"/binaries/": g.binary,
	} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && rest != "" {
			return serve(w, r, rest)
		}
	}
	return refuse(http.StatusNotFound, "nothing is at %s: the registries are at /pypi/simple/, /npm/ and /go/, sources of programs at /binaries/", path)
}

// own is where clients inside find the gate, and what HTTP_PROXY names.
const own = "127.0.0.1:3128"

// asked is the host that a request to a proxy names; empty when it is for the gate itself.
func asked(r *http.Request) string {
	host, port := r.Host, "443"
	if r.Method != http.MethodConnect {
		if r.URL.Host == "" {
			return ""
		}
		if host = r.URL.Host; r.URL.Scheme != "https" {
			port = "80"
		}
		if host == own {
			return ""
		}
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	if len(host) > 260 {
		host = host[:260]
	}
	return strings.ToLower(strings.ToValidUTF8(host, "?"))
}

var plainHost = regexp.MustCompile(`^[A-Za-z0-9.:\[\]-]{1,260}$`)

// here is the address by which a client knows the gate.
func here(r *http.Request) string {
	if plainHost.MatchString(r.Host) {
		return "http://" + r.Host
	}
	return "http://" + own
}

// given is an address elsewhere that an index named, and what it said of the content.
type given struct {
	URL       string
	SHA256    string // hexadecimal, or empty
	Metadata  string // of URL + ".metadata"
	Integrity string // as npm has it
}

// token makes of an address a segment of a path that only this gate could have made: so nothing can be fetched but what an
// index has named, and nothing has to be remembered.
func (g *Gate) token(f given) string {
	payload := strings.Join([]string{f.SHA256, f.Metadata, f.Integrity, f.URL}, "\n")
	return base64.RawURLEncoding.EncodeToString(append(g.sign(payload), payload...))
}

func (g *Gate) sign(payload string) []byte {
	mac := hmac.New(sha256.New, g.key[:])
	mac.Write([]byte(payload))
	return mac.Sum(nil)[:16]
}

func (g *Gate) open(token string) (given, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 16 {
		return given{}, false
	}
	payload := string(raw[16:])
	parts := strings.SplitN(payload, "\n", 4)
	if !hmac.Equal(raw[:16], g.sign(payload)) || len(parts) != 4 {
		return given{}, false
	}
	return given{SHA256: parts[0], Metadata: parts[1], Integrity: parts[2], URL: parts[3]}, true
}
