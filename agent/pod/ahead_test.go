package pod

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shelf is where layers are got from, and counts who gets them.
type shelf struct {
	*httptest.Server
	mu     sync.Mutex
	things map[string][]byte
	asked  map[string]int
	held   chan struct{} // what is asked for below /slow waits for it
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{things: map[string][]byte{}, asked: map[string]int{}, held: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			select {
			case <-s.held:
			case <-r.Context().Done():
				return
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.URL.Path]++
		w.Write(s.things[r.URL.Path])
	}))
	t.Cleanup(s.Close)
	return s
}

// object puts something there.
func (s *shelf) object(path string, data []byte) object {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.things[path] = data
	return object{URL: s.URL + path, SHA256: sum(data), Size: int64(len(data))}
}

func (s *shelf) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

type aheadSaid struct{ Held, Coming, Refused []string }

// prefetch asks for layers ahead, as a controller does, on a connection of its own.
func (p *pod) prefetch(most int64, layers ...object) (aheadSaid, string) {
	p.t.Helper()
	c := p.call()
	defer c.conn.Close()
	said, code := c.ask(map[string]any{"op": "prefetch", "document": signedAs(prefetchDomain, p.key, prefetch{addressed(c), layers, most})})
	var answer aheadSaid
	json.Unmarshal(said, &answer)
	return answer, code
}

func (p *pod) holds(layers ...object) {
	p.t.Helper()
	eventually(p.t, "they are there", func() bool {
		said, code := p.prefetch(1000, layers...)
		return code == "" && len(said.Held) == len(layers)
	})
}

// orderOf is an order to run a source that was sent with these layers.
func (p *pod) orderOf(c *caller, page string, layers map[string]object) map[string]any {
	source := tarball(map[string]string{"page": page})
	c.give(source)
	order := p.order(map[string]any{"sha256": sum(source), "size": len(source)})
	said := []map[string]any{}
	for target, o := range layers {
		said = append(said, map[string]any{"url": o.URL, "sha256": o.SHA256, "size": o.Size, "target": target})
	}
	order["layers"] = said
	return order
}

func TestALayerThatWasFetchedAheadIsNotFetchedAgainAndIsWhereTheRunHasIt(t *testing.T) {
	s, p := newShelf(t), start(t)
	layer := s.object("/layer", tarball(map[string]string{"lib/module": "installed"}))
	p.holds(layer)
	c := p.claimed()
	c.must(p.orderOf(c, "it works", map[string]object{"/layers/python": layer}))
	p.serves("todo/7", "/page", "it works")
	if text, _ := os.ReadFile(p.path("layers/python/lib/module")); string(text) != "installed" {
		t.Errorf("%q", text)
	}
	if info, _ := os.Stat(p.path("layers/python")); info.Mode().Perm() != 0o755 {
		t.Errorf("%v", info.Mode())
	}
	if s.count("/layer") != 1 {
		t.Errorf("it was fetched %d times", s.count("/layer"))
	}
	if _, err := os.Lstat(p.path("layers/" + aheadFolder)); !os.IsNotExist(err) {
		t.Errorf("something is left: %v", err)
	}
}

func TestNoAppSeesALayerThatWasFetchedAheadForOthers(t *testing.T) {
	s, p := newShelf(t), start(t)
	there := s.object("/there", tarball(map[string]string{"secret": "of others"}))
	coming := s.object("/slow", tarball(map[string]string{"secret": "of others, too"}))
	p.holds(there)
	if said, code := p.prefetch(1<<20, there, coming); code != "" || len(said.Held) != 1 || len(said.Coming) != 1 {
		t.Fatalf("%v %q", said, code)
	}
	c := p.claimed()
	c.must(p.orderOf(c, "it works", nil))
	close(s.held)
	found := []string{}
	filepath.WalkDir(p.path("layers"), func(path string, _ os.DirEntry, _ error) error {
		if filepath.Base(path) == "secret" || filepath.Base(path) == aheadFolder {
			found = append(found, path)
		}
		return nil
	})
	if len(found) != 0 {
		t.Errorf("%v", found)
	}
}

func TestARunWaitsForALayerThatIsOnItsWay(t *testing.T) {
	s, p := newShelf(t), start(t)
	layer := s.object("/slow", tarball(map[string]string{"module": "installed"}))
	if said, _ := p.prefetch(1<<20, layer); len(said.Coming) != 1 {
		t.Fatal(said)
	}
	c := p.claimed()
	order := p.orderOf(c, "it works", map[string]object{"/layers/python": layer})
	time.AfterFunc(200*time.Millisecond, func() { close(s.held) })
	c.must(order)
	if text, _ := os.ReadFile(p.path("layers/python/module")); string(text) != "installed" || s.count("/slow") != 1 {
		t.Errorf("%q, fetched %d times", text, s.count("/slow"))
	}
}

func TestWhatIsFetchedAheadIsComparedWithItsDigestAndBounded(t *testing.T) {
	s, p := newShelf(t), start(t)
	good := s.object("/good", tarball(map[string]string{"module": strings.Repeat("x", 600)}))
	other := s.object("/other", tarball(map[string]string{"module": "y"}))
	other.SHA256 = sum([]byte("something else"))
	bomb := s.object("/bomb", tarball(map[string]string{"zeros": strings.Repeat("0", 1<<20)}))
	eventually(t, "one is there", func() bool {
		said, code := p.prefetch(1000, good, other, bomb)
		return code == "" && len(said.Held) == 1 && said.Held[0] == good.SHA256 && len(said.Refused) == 2
	})
	entries, _ := os.ReadDir(p.path("layers/" + aheadFolder))
	if len(entries) != 1 {
		t.Errorf("%v", entries)
	}
	// what is wanted no more makes room for what comes in its place
	second := s.object("/second", tarball(map[string]string{"module": strings.Repeat("z", 700)}))
	for range 20 {
		for _, one := range []object{second, good} {
			eventually(t, "it is there instead", func() bool {
				said, _ := p.prefetch(1000, one)
				if len(said.Refused) != 0 {
					t.Fatal("it was refused for what was still there of the other")
				}
				return len(said.Held) == 1
			})
		}
	}
	// a layer that was refused ahead is got when a run has it, or the run fails as ever
	c := p.claimed()
	c.must(p.orderOf(c, "it works", map[string]object{"/layers/python": bomb}))
	if info, err := os.Stat(p.path("layers/python/zeros")); err != nil || info.Size() != 1<<20 {
		t.Error(err)
	}
}

func TestFetchingAheadMakesAPodNobodysAndTakesAControllersWord(t *testing.T) {
	s, p := newShelf(t), start(t)
	layer := s.object("/layer", tarball(map[string]string{"module": "x"}))
	c := p.call()
	for what, text := range map[string]string{
		"a claim's":     signed(p.key, p.document(c)),
		"nobody's":      "x.y",
		"another pod's": signedAs(prefetchDomain, p.key, prefetch{addressee{"other", namespace, c.certificate(), float64(time.Now().Unix() + 60)}, []object{layer}, 1 << 20}),
		"an old one":    signedAs(prefetchDomain, p.key, prefetch{addressee{podUID, namespace, c.certificate(), 1}, []object{layer}, 1 << 20}),
		"one that somebody between the two was told": signedAs(prefetchDomain, p.key, prefetch{addressee{podUID, namespace, sum(nil), float64(time.Now().Unix() + 60)}, []object{layer}, 1 << 20}),
	} {
		if _, code := p.call().ask(map[string]any{"op": "prefetch", "document": text}); code != "ClaimRefused" {
			t.Errorf("%s: %q", what, code)
		}
	}
	if _, code := p.call().ask(map[string]any{"op": "claim", "document": signedAs(prefetchDomain, p.key, p.document(c))}); code != "ClaimRefused" {
		t.Errorf("as a claim: %q", code)
	}
	if s.count("/layer") != 0 {
		t.Error("it was fetched")
	}
	p.holds(layer)
	// who has had something fetched is not the owner, and nothing more is answered on that connection
	asking := p.call()
	asking.must(map[string]any{"op": "prefetch", "document": signedAs(prefetchDomain, p.key, prefetch{addressed(asking), []object{layer}, 1 << 20})})
	if _, code := asking.ask(map[string]any{"op": "status"}); code != "closed" {
		t.Errorf("%q", code)
	}
	if _, code := p.call().ask(map[string]any{"op": "attach", "token": token}); code != "NotClaimed" {
		t.Errorf("%q", code)
	}
	p.claimed()
	if _, code := p.prefetch(1<<20, layer); code != "AlreadyClaimed" {
		t.Errorf("once it is claimed: %q", code)
	}
	if _, code := start(t, "-builder").prefetch(1<<20, layer); code != "NotSupported" {
		t.Errorf("of a builder: %q", code)
	}
}

func TestARunThatFailedForItsSourceIsRepeatedWithTheSameLayers(t *testing.T) {
	s, p := newShelf(t), start(t)
	layer := s.object("/layer", tarball(map[string]string{"lib/module": "installed"}))
	missing := s.object("/missing", tarball(map[string]string{"page": "x"}))
	missing.SHA256 = sum([]byte("something else"))
	c := p.claimed()
	order := p.orderOf(c, "it works", map[string]object{"/layers/python": layer})
	good := order["source"]
	order["source"] = map[string]any{"url": missing.URL, "sha256": missing.SHA256, "size": missing.Size}
	if _, code := c.ask(order); code != "SourceDamaged" {
		t.Fatal(code)
	}
	order["source"] = good
	c.must(order)
	p.serves("todo/7", "/page", "it works")
}
