package pod

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"vibed.dev/agent/supervise"
	"vibed.dev/agent/unpack"
)

const (
	// guestFolder is where the sites of a pod that serves many are, below the source of what serves them.
	guestFolder = "sites"
	// guestStrip is where a site lies in the object that it comes as.
	guestStrip = "site/"
	guestFiles = 1 << 20
	// guestLinger is how long a request that was let in just before may still look up a file.
	guestLinger = 2 * time.Second
)

// guest is one of many sites that a pod serves: a run of an app that has no code.
type guest struct {
	App     string `json:"app_id"`
	AppKey  string `json:"app_key"`
	Run     int    `json:"run"`
	Version int    `json:"version"`
	Bytes   int64  `json:"bytes"`

	folder string
}

func (g *guest) name() string { return supervise.RunName(g.App, g.Run) }

// guests are the sites of a pod; the program that serves them runs as the pod's app.
type guests struct {
	root string
	turn sync.Mutex // held while one is put in or taken out
	mu   sync.Mutex
	here map[string]*guest
	// out has what was taken out, by its name the key of its app: a request to put it in may arrive after that. An app that
	// is deleted and made anew has the numbers of its runs again, and another key.
	out map[string]string
}

func newGuests(app string) (*guests, error) {
	root := filepath.Join(app, guestFolder)
	return &guests{root: root, here: map[string]*guest{}, out: map[string]string{}}, full(os.MkdirAll(root, 0o755))
}

// hosting is the guests of a pod that was told to serve sites, an error elsewhere: nothing is ever put beside code.
func (a *agent) hosting() (*guests, error) {
	if found := a.guests.Load(); found != nil {
		return found, nil
	}
	return nil, supervise.Refusal("NotRunning", "this pod serves no sites")
}

// addGuest gets a site and serves it from then on; one that is there already is.
func (a *agent) addGuest(line []byte, _ reader) (any, error) {
	var asked struct {
		guest
		Source   object `json:"source"`
		MaxBytes int64  `json:"max_bytes"`
	}
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	g := &asked.guest
	if g.App == "" || strings.ContainsAny(g.App, "/.") || g.Run < 1 || asked.MaxBytes < 1 {
		return nil, supervise.Refusal("BadRequest", "%q is no run of a site", short(g.name()))
	}
	if err := asked.Source.check(maxSource); err != nil {
		return nil, err
	}
	hosts, err := a.hosting()
	if err != nil {
		return nil, err
	}
	if err := a.fetch(context.Background(), &asked.Source); err != nil {
		return nil, err
	}
	packed := a.sent.path(&asked.Source)
	defer os.Remove(packed)
	hosts.turn.Lock()
	defer hosts.turn.Unlock()
	if key, was := hosts.out[g.name()]; was && key == g.AppKey {
		return nil, supervise.Refusal("AlreadyClaimed", "this run was taken out before")
	}
	there := hosts.find(g.name())
	if there != nil && there.AppKey != g.AppKey {
		hosts.remove(there) // of an earlier app of this name
		there = nil
	}
	if there == nil {
		if err := hosts.add(g, packed, asked.MaxBytes); err != nil {
			return nil, err
		}
	}
	a.owned.Ingress.Also(g.name(), true)
	return struct{}{}, nil
}

// removeGuest serves a site no more, and removes its files in a moment.
func (a *agent) removeGuest(line []byte, _ reader) (any, error) {
	var g guest
	if err := json.Unmarshal(line, &g); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	hosts, err := a.hosting()
	if err != nil {
		return nil, err
	}
	hosts.turn.Lock()
	defer hosts.turn.Unlock()
	there := hosts.find(g.name())
	if there != nil && there.AppKey != g.AppKey {
		return struct{}{}, nil // a later app of this name has taken its place
	}
	hosts.out[g.name()] = g.AppKey
	a.owned.Ingress.Also(g.name(), false)
	if there != nil {
		time.AfterFunc(guestLinger, func() { hosts.remove(there) })
	}
	return struct{}{}, nil
}

func (a *agent) listGuests([]byte, reader) (any, error) {
	hosts, err := a.hosting()
	if err != nil {
		return nil, err
	}
	return map[string][]*guest{"sites": hosts.all()}, nil
}

func (h *guests) find(name string) *guest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.here[name]
}

func (h *guests) all() []*guest {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make([]*guest, 0, len(h.here))
	for _, g := range h.here {
		found = append(found, g)
	}
	return found
}

// add unpacks a site into a folder of its own, which never changes, and then has its run lead there.
func (h *guests) add(g *guest, packed string, most int64) error {
	folder, err := os.MkdirTemp(h.root, ".site-")
	if err != nil {
		return full(err)
	}
	options := unpack.Options{Strip: guestStrip, MaxBytes: most, MaxFiles: guestFiles}
	place := h.place(g)
	if err = extracted(packed, folder, options); err == nil {
		err = full(os.MkdirAll(filepath.Dir(place), 0o755))
	}
	if err == nil {
		err = full(os.Symlink(folder, place))
	}
	if err != nil {
		os.RemoveAll(folder)
		return err
	}
	g.folder = folder
	h.mu.Lock()
	defer h.mu.Unlock()
	h.here[g.name()] = g
	return nil
}

func (h *guests) place(g *guest) string { return filepath.Join(h.root, filepath.FromSlash(g.name())) }

// remove takes away what is left of a site that was taken out, unless that was done.
func (h *guests) remove(g *guest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.here[g.name()] != g {
		return
	}
	delete(h.here, g.name())
	os.Remove(h.place(g))
	os.Remove(filepath.Dir(h.place(g))) // unless the app has another site here
	os.RemoveAll(g.folder)
}
