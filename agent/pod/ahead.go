package pod

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vibed.dev/agent/supervise"
)

const (
	// prefetchDomain stands before what a controller signs of layers.
	prefetchDomain = "vibed prefetch 1\n"
	// aheadFolder is where they wait: no layer of a run has a name with a dot before it.
	aheadFolder = ".ahead"
	mostAhead   = 8
)

// prefetch is a controller's word that these are the layers which an app is likely to have that gets this pod.
type prefetch struct {
	addressee
	Layers []object `json:"layers"`
	// MaxBytes bounds the files of all of them.
	MaxBytes int64 `json:"max_bytes"`
}

func (o *ownership) readPrefetch(text string, now time.Time) (*prefetch, error) {
	said, err := o.open(prefetchDomain, text)
	if err != nil {
		return nil, err
	}
	var p prefetch
	if err := json.Unmarshal(said, &p); err != nil {
		return nil, errors.New("what is signed names no layers")
	}
	return &p, o.concerns(&p.addressee, now)
}

// ahead has layers in a pod that nobody has claimed yet. A run that has one of them takes it as it lies there; all others
// go before anything of an app runs, so none sees what is of others. Each is fetched, compared with its digest and unpacked
// as for a run.
type ahead struct {
	folder string
	bring  func(ctx context.Context, o *object, into string, most int64) (int64, error)

	turn sync.Mutex   // one is brought at a time: nobody waits for it
	used atomic.Int64 // bytes of what lies there, until it is gone
	mu   sync.Mutex
	over bool // something is run: nothing is fetched ahead any more
	here map[string]*early
	// leaving are those that are wanted no more and have not gone yet: what comes in their place has their room.
	leaving map[*early]struct{}
}

// early is a layer that is wanted ahead.
type early struct {
	object
	done  chan struct{} // closed when it lies there, or is not to be had
	gone  chan struct{} // closed when it was dropped
	stop  context.CancelFunc
	path  string
	bytes int64
	err   error
}

func (e *early) ready() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

func newAhead(layers string, bring func(context.Context, *object, string, int64) (int64, error)) *ahead {
	return &ahead{folder: filepath.Join(layers, aheadFolder), bring: bring, here: map[string]*early{}, leaving: map[*early]struct{}{}}
}

// want has exactly these layers fetched, one after the other, and says how far that is.
func (h *ahead) want(p *prefetch) (any, error) {
	if len(p.Layers) > mostAhead {
		return nil, supervise.Refusal("BadRequest", "at most %d layers are fetched ahead", mostAhead)
	}
	for i := range p.Layers {
		if err := p.Layers[i].check(maxLayer); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(h.folder, 0o755); err != nil {
		return nil, full(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return nil, supervise.Refusal("AlreadyClaimed", "this pod runs something")
	}
	for digest, one := range h.here {
		if !slices.ContainsFunc(p.Layers, func(o object) bool { return o.SHA256 == digest }) {
			go h.drop(h.leave(digest, one))
		}
	}
	said := map[string][]string{"held": {}, "coming": {}, "refused": {}}
	for _, o := range p.Layers {
		one := h.here[o.SHA256]
		if one == nil || one.ready() && one.err != nil && passing(one.err) {
			one = h.begin(o, p.MaxBytes)
		}
		what := "coming"
		if one.ready() {
			if what = "held"; one.err != nil {
				what = "refused"
			}
		}
		said[what] = append(said[what], o.SHA256)
	}
	return said, nil
}

// passing errors may be others the next time: what was not to be had, not what is too large or not what it was said to be.
func passing(err error) bool {
	return !supervise.Refused(err) || supervise.HasCode(err, "SourceUnavailable")
}

func (h *ahead) begin(o object, most int64) *early {
	ctx, stop := context.WithCancel(context.Background())
	one := &early{object: o, done: make(chan struct{}), gone: make(chan struct{}), stop: stop}
	h.here[o.SHA256] = one
	before := slices.Collect(maps.Keys(h.leaving))
	go func() {
		defer close(one.done)
		// before its turn: one of them may be waiting for its own
		for _, other := range before {
			<-other.gone
		}
		h.turn.Lock()
		defer h.turn.Unlock()
		if one.err = ctx.Err(); one.err != nil {
			return
		}
		into, err := os.MkdirTemp(h.folder, "")
		if err == nil {
			err = os.Chmod(into, 0o755)
		}
		if err == nil {
			one.bytes, err = h.bring(ctx, &one.object, into, most-h.used.Load())
		}
		if err != nil {
			one.err = err
			os.RemoveAll(into)
			return
		}
		h.used.Add(one.bytes)
		one.path = into
	}()
	return one
}

// leave says that one is wanted no more; h.mu is held.
func (h *ahead) leave(digest string, one *early) *early {
	delete(h.here, digest)
	h.leaving[one] = struct{}{}
	one.stop()
	return one
}

// drop removes what is wanted no more, when it is there.
func (h *ahead) drop(one *early) {
	<-one.done
	if one.path != "" {
		os.RemoveAll(one.path)
		h.used.Add(-one.bytes)
	}
	h.mu.Lock()
	delete(h.leaving, one)
	h.mu.Unlock()
	close(one.gone)
}

// end is for a run that has these layers: no others are fetched, and those that are there have gone when it returns.
func (h *ahead) end(layers []layer) {
	h.mu.Lock()
	h.over = true
	before := slices.Collect(maps.Keys(h.leaving))
	var others []*early
	for digest, one := range h.here {
		if !slices.ContainsFunc(layers, func(l layer) bool { return l.SHA256 == digest }) {
			others = append(others, h.leave(digest, one))
		}
	}
	h.mu.Unlock()
	for _, one := range others {
		h.drop(one)
	}
	for _, one := range before {
		<-one.gone
	}
}

// take puts a layer where a run has it; false where it is not there. One that is on its way is waited for.
func (h *ahead) take(o *object, into string) bool {
	h.mu.Lock()
	one := h.here[o.SHA256]
	delete(h.here, o.SHA256)
	h.mu.Unlock()
	if one == nil {
		return false
	}
	<-one.done
	// os.Rename would refuse the empty folder that is there
	return one.path != "" && one.Size == o.Size && syscall.Rename(one.path, into) == nil
}

// clear leaves nothing, whatever became of it.
func (h *ahead) clear() { os.RemoveAll(h.folder) }
