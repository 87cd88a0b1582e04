package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"vibed.dev/agent/unpack"
)

func (a *agent) server() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", a.health)
	mux.HandleFunc("POST /claim", a.claim)
	mux.HandleFunc("POST /inject", a.inject)
	mux.HandleFunc("POST /start", a.start)
	mux.HandleFunc("POST /stop", a.stopRoute)
	mux.HandleFunc("GET /logs", a.logs)
	mux.HandleFunc("GET /status", a.status)
	return &http.Server{Handler: accountable(mux), ErrorLog: log.New(os.Stderr, "agent: ", 0), ReadHeaderTimeout: 10 * time.Second}
}

// accountable answers for a handler that panics: net/http would close the connection without a word.
func accountable(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				_, _ = fmt.Fprintf(os.Stderr, "agent: %s %s: %v\n%s", r.Method, r.URL.Path, p, debug.Stack())
				refuse(w, refusal(500, "Internal", fmt.Sprintf("the agent failed: %v", p), nil))
			}
		}()
		h.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, err error) {
	var e *wireError
	if !errors.As(err, &e) {
		e = refusal(500, "Internal", err.Error(), nil)
	}
	answer(w, e.status, e)
}

func body(r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20))
	if err := d.Decode(v); err != nil && err != io.EOF {
		return refusal(400, "BadRequest", err.Error(), nil)
	}
	return nil
}

func (a *agent) health(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	zygotes := a.zygotes
	a.mu.Unlock()
	names, failed, status := []string{}, map[string]string{}, http.StatusOK
	for _, z := range zygotes {
		select {
		case <-z.ready:
			if z.err != nil {
				failed[z.spec.Name] = z.err.Error()
			} else {
				names = append(names, z.spec.Name)
			}
		default:
			status = http.StatusServiceUnavailable
		}
	}
	answer(w, status, map[string]any{"ok": status == http.StatusOK, "zygotes": names, "failed": failed, "same_uid": a.who.Same})
}

func (a *agent) claim(w http.ResponseWriter, r *http.Request) {
	var c struct {
		Hostname string  `json:"hostname"`
		Entropy  string  `json:"entropy"`
		Time     float64 `json:"time"`
		Limits   Limits  `json:"limits"`
	}
	if err := body(r, &c); err != nil {
		refuse(w, err)
		return
	}
	a.mu.Lock()
	claimed := a.claimed
	a.claimed, a.entropy, a.limits = true, c.Entropy, c.Limits
	a.mu.Unlock()
	if claimed {
		refuse(w, refusal(409, "AlreadyClaimed", "a sandbox is claimed once", nil))
		return
	}
	if c.Hostname != "" {
		_ = syscall.Sethostname([]byte(c.Hostname)) // not allowed everywhere, and only a name
		a.nameHosts(c.Hostname)
	}
	if c.Entropy != "" {
		if f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString(c.Entropy)
			_ = f.Close()
		}
	}
	// A guest that slept may have a clock of its own; elsewhere this is refused, and not needed.
	if c.Time > 0 {
		if off := time.Until(time.UnixMicro(int64(c.Time * 1e6))); off > time.Second || off < -time.Second {
			tv := syscall.NsecToTimeval(int64(c.Time * 1e9))
			_ = syscall.Settimeofday(&tv)
		}
	}
	answer(w, http.StatusOK, struct{}{})
}

func (a *agent) inject(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	busy := a.state != "warm"
	if !busy {
		a.state = "injecting"
	}
	limit := a.limits.DiskBytes
	a.mu.Unlock()
	if busy {
		refuse(w, refusal(409, "AlreadyInjected", "one source at a time, before the start", nil))
		return
	}
	// A collection in the middle of it costs more than the garbage of some thousand headers; the memory limit stays.
	old := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(old)
	var result unpack.Result
	err := lockedAs(a.who, func() (err error) {
		result, err = unpack.Extract(r.Body, a.appDir, unpack.Options{Strip: r.URL.Query().Get("strip"), MaxBytes: limit})
		return err
	})
	a.mu.Lock()
	if a.state == "injecting" {
		a.state = "warm"
	}
	a.mu.Unlock()
	var e *unpack.Error
	switch {
	case err == nil:
		answer(w, http.StatusOK, result)
	case errors.As(err, &e) && e.Code == unpack.DiskFull:
		refuse(w, refusal(413, "DiskFull", e.Error(), nil))
	default:
		refuse(w, refusal(422, "InjectFailed", err.Error(), nil))
	}
}

func (a *agent) start(w http.ResponseWriter, r *http.Request) {
	var s startSpec
	if err := body(r, &s); err != nil {
		refuse(w, err)
		return
	}
	serves, err := a.run(s)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, serves)
	// What the injection and the start needed goes back once the app has had its first moments for itself.
	time.AfterFunc(3*time.Second, debug.FreeOSMemory)
}

func (a *agent) stopRoute(w http.ResponseWriter, r *http.Request) {
	s := struct {
		GraceS float64 `json:"grace_s"`
	}{5}
	if err := body(r, &s); err != nil {
		refuse(w, err)
		return
	}
	a.stop(time.Duration(s.GraceS * float64(time.Second)))
	answer(w, http.StatusOK, struct{}{})
}

func (a *agent) status(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	out := map[string]any{"state": a.state, "port": nil, "exit": a.exit}
	if a.port != 0 {
		out["port"] = a.port
	}
	a.mu.Unlock()
	answer(w, http.StatusOK, out)
}

// logs streams what the app writes. It ends when the app has, and all its output has been sent.
func (a *agent) logs(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	taken := a.reading
	a.reading = true
	a.mu.Unlock()
	if taken {
		refuse(w, refusal(409, "LogsTaken", "the logs have one reader", nil))
		return
	}
	defer func() {
		a.mu.Lock()
		a.reading = false
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for {
		lines := a.out.take(r.Context())
		if len(lines) == 0 {
			return
		}
		for i, l := range lines {
			if err := encoder.Encode(l); err != nil {
				a.out.putBack(lines[i:])
				return
			}
		}
		if err := flush.Flush(); err != nil {
			return
		}
	}
}
