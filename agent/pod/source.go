package pod

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vibed.dev/agent/supervise"
	"vibed.dev/agent/unpack"
)

const (
	// maxSource and maxLayer bound what is written before its digest is known to be right.
	maxSource = 512 << 20
	maxLayer  = 4 << 30
	maxLayers = 16
	// fetchTime is for all attempts at one object; a source is some tens of megabytes at most.
	fetchTime     = 5 * time.Minute
	fetchAttempts = 4
	fetchPause    = 250 * time.Millisecond
	// quiet is how long nothing may come of an object.
	quiet         = 20 * time.Second
	layerFiles    = 1 << 20
	layerUnpacked = 16 << 30
)

// object is something that is known by its digest, and where to get it; without an address it was sent before.
type object struct {
	URL    string `json:"url"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// layer is an object that is unpacked below /layers.
type layer struct {
	object
	Target string `json:"target"`
}

func (o *object) check(most int64) error {
	switch _, err := hex.DecodeString(o.SHA256); {
	case err != nil || len(o.SHA256) != 2*sha256.Size || o.SHA256 != strings.ToLower(o.SHA256):
		return supervise.Refusal("BadRequest", "%q is no SHA-256", short(o.SHA256))
	case o.Size < 0 || o.Size > most:
		return supervise.Refusal("SourceTooLarge", "%d bytes are more than the %d that are taken here", o.Size, most)
	}
	return nil
}

// store keeps objects as files until they are used.
type store struct{ dir string }

func (s *store) path(o *object) string { return filepath.Join(s.dir, "object-"+o.SHA256) }

// keep writes an object, of which from is at the beginning, and trusts it when all of it has its digest.
func (s *store) keep(o *object, from io.Reader) error {
	file, err := os.CreateTemp(s.dir, "object-*.part")
	if err != nil {
		return full(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(from, o.Size))
	switch {
	case err != nil:
		return full(err)
	case n < o.Size:
		return io.ErrUnexpectedEOF
	case hex.EncodeToString(sum.Sum(nil)) != o.SHA256:
		return supervise.Refusal("SourceDamaged", "what came is not the %s that was said", short(o.SHA256))
	}
	return full(os.Rename(file.Name(), s.path(o)))
}

func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return supervise.Refusal("DiskFull", "the sandbox has no room for what is sent")
	}
	return err
}

// receive takes an object that follows its request.
func (a *agent) receive(line []byte, following reader) (any, error) {
	var o object
	if err := json.Unmarshal(line, &o); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	// a layer comes this way, too, where the pod reaches nothing; a source is looked at again when it is used
	rest := &io.LimitedReader{R: following, N: min(max(o.Size, 0), maxLayer)}
	defer io.Copy(io.Discard, rest) // the next request is behind it
	if err := o.check(maxLayer); err != nil {
		return nil, err
	}
	if a.guests.Load() == nil && !a.owned.Warm() {
		return nil, supervise.Refusal("AlreadyClaimed", "this sandbox has its source")
	}
	return struct{}{}, a.sent.keep(&o, rest)
}

// order is what the operation run says of files; the rest is as for every supervisor.
type order struct {
	Source object                     `json:"source"`
	Layers []layer                    `json:"layers"`
	Limits map[string]json.RawMessage `json:"limits"`
	// LayerBytes is how much a layer may be unpacked: its volume's size, of which the pod itself cannot know.
	LayerBytes int64 `json:"layer_bytes"`
	// Sites says that what runs serves sites, which come one by one.
	Sites bool `json:"sites"`
}

// run gets the source and what was installed for the app, and then does what every supervisor does.
func (a *agent) run(line []byte, _ reader) (any, error) {
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	if err := o.Source.check(maxSource); err != nil {
		return nil, err
	}
	if len(o.Layers) > maxLayers {
		return nil, supervise.Refusal("BadRequest", "a run has at most %d layers", maxLayers)
	}
	for i := range o.Layers {
		if err := o.Layers[i].check(maxLayer); err != nil {
			return nil, err
		}
		if _, err := a.place(o.Layers[i].Target); err != nil {
			return nil, err
		}
	}
	if !a.owned.Warm() || !a.fetching.CompareAndSwap(false, true) {
		return nil, supervise.Refusal("AlreadyClaimed", "a sandbox runs once, and this one was told to before")
	}
	begun := time.Now()
	if err := a.fetchAll(&o); err != nil {
		a.fetching.Store(false) // nothing of the app has run
		return nil, err
	}
	source := a.sent.path(&o.Source)
	defer os.Remove(source)
	changed, err := a.rewrite(line, &o)
	if err == nil && a.workshop != nil {
		source, err = a.workerOf(source, &o)
		// it has what the app was given as its variables, and is in memory by then
		defer os.Remove(source)
	}
	if err != nil {
		return nil, err
	}
	var hosts *guests
	if o.Sites {
		if hosts, err = newGuests(a.app); err != nil {
			return nil, err
		}
	}
	answer, err := a.owned.Run(changed, source, time.Since(begun))
	if err == nil && hosts != nil {
		a.guests.Store(hosts)
	}
	return answer, err
}

// rewrite is the order without what is not for a supervisor. Where the kernel is the node's, processes of a uid are
// counted over all pods of it: a bound would be everybody's, and the pod's own is the kubelet's to hold.
func (a *agent) rewrite(line []byte, o *order) ([]byte, error) {
	var said map[string]json.RawMessage
	if err := json.Unmarshal(line, &said); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	delete(said, "source")
	delete(said, "layers")
	delete(said, "layer_bytes")
	if a.bare && o.Limits != nil {
		delete(o.Limits, "nproc")
		limits, err := json.Marshal(o.Limits)
		if err != nil {
			return nil, err
		}
		said["limits"] = limits
	}
	return json.Marshal(said)
}

// place is where a target below /layers is.
func (a *agent) place(target string) (string, error) {
	name, ok := strings.CutPrefix(target, "/layers/")
	if !ok || !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.HasPrefix(name, ".") {
		return "", supervise.Refusal("BadRequest", "%q is no place for a layer", short(target))
	}
	return filepath.Join(a.layers, name), nil
}

// fetchAll gets all that a run has; where that fails, what it has put into its place is gone again.
func (a *agent) fetchAll(o *order) error {
	var fresh []string
	for i := range o.Layers {
		into, err := a.place(o.Layers[i].Target)
		if err != nil {
			return err
		}
		// a builder's has sockets already
		if _, err := os.Lstat(into); errors.Is(err, fs.ErrNotExist) {
			fresh = append(fresh, into)
		}
	}
	results := make(chan error, len(o.Layers)+2)
	go func() { a.ahead.end(o.Layers); results <- nil }()
	go func() { results <- a.fetch(context.Background(), &o.Source) }()
	for i := range o.Layers {
		go func() { results <- a.install(&o.Layers[i], o.LayerBytes) }()
	}
	var failed error
	for range cap(results) {
		if err := <-results; err != nil && failed == nil {
			failed = err
		}
	}
	a.ahead.clear()
	if failed != nil {
		for _, folder := range fresh {
			os.RemoveAll(folder)
		}
	}
	return failed
}

func (a *agent) install(l *layer, most int64) error {
	if most <= 0 || most > layerUnpacked {
		most = layerUnpacked
	}
	into, err := a.place(l.Target)
	if err == nil {
		err = os.MkdirAll(into, 0o755)
	}
	if err != nil || a.ahead.take(&l.object, into) {
		return err
	}
	_, err = a.bring(context.Background(), &l.object, into, most)
	return err
}

// bring fetches a layer and unpacks it into a folder, at most so many bytes of files; it returns how many.
func (a *agent) bring(ctx context.Context, o *object, into string, most int64) (int64, error) {
	if most <= 0 || o.Size > most {
		return 0, supervise.Refusal("DiskFull", "there is room for %d bytes, and the layer has %d", max(most, 0), o.Size)
	}
	if err := a.fetch(ctx, o); err != nil {
		return 0, err
	}
	packed := a.sent.path(o)
	defer os.Remove(packed)
	file, err := os.Open(packed)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	options := unpack.Options{MaxBytes: most, MaxFiles: layerFiles, Beyond: "/layers"}
	result, err := unpack.Extract(while{ctx, file}, into, options)
	if refused := new(unpack.Error); errors.As(err, &refused) && ctx.Err() == nil {
		code := "LayerDamaged"
		if refused.Code == unpack.DiskFull {
			code = "DiskFull"
		}
		return 0, supervise.Refusal(code, "the layer %s: %v", short(o.SHA256), err)
	}
	return result.Bytes, err
}

// while reads until nobody wants it any more.
type while struct {
	ctx context.Context
	io.Reader
}

func (w while) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Reader.Read(p)
}

// fetch gets an object from its address, unless it was sent.
func (a *agent) fetch(ctx context.Context, o *object) error {
	if info, err := os.Lstat(a.sent.path(o)); err == nil && info.Mode().IsRegular() {
		return nil
	}
	if o.URL == "" {
		return supervise.Refusal("SourceMissing", "%s was neither sent nor has it an address", short(o.SHA256))
	}
	where, err := url.Parse(o.URL)
	if err != nil || where.Scheme != "https" && where.Scheme != "http" {
		return supervise.Refusal("BadRequest", "the address of %s is none", short(o.SHA256))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := a.get(ctx, o)
		if last := new(final); err == nil || errors.As(err, last) || attempt == fetchAttempts || ctx.Err() != nil {
			if err == nil || supervise.Refused(err) {
				return err
			}
			// the address itself is a key to the object
			return supervise.Refusal("SourceUnavailable", "%s could not be got from %s: %v", short(o.SHA256), where.Host, plainly(err))
		}
		select {
		case <-time.After(time.Duration(attempt) * fetchPause):
		case <-ctx.Done():
		}
	}
}

// final is an answer that another attempt does not change.
type final struct{ status int }

func (f final) Error() string { return fmt.Sprintf("it answers %d", f.status) }

// plainly is an error without the address, of which the query is a secret.
func plainly(err error) error {
	if asked := new(url.Error); errors.As(err, &asked) {
		return asked.Err
	}
	return err
}

var getting = &http.Client{
	Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: quiet,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   -1,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (a *agent) get(ctx context.Context, o *object) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL, nil)
	if err != nil {
		return err
	}
	answer, err := getting.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusOK:
	case answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("it answers %d", answer.StatusCode)
	default:
		return final{answer.StatusCode}
	}
	if answer.ContentLength >= 0 && answer.ContentLength != o.Size {
		return supervise.Refusal("SourceDamaged", "%s has %d bytes, not %d", short(o.SHA256), answer.ContentLength, o.Size)
	}
	patience := time.AfterFunc(quiet, cancel)
	defer patience.Stop()
	return a.sent.keep(o, &coming{answer.Body, patience})
}

// coming is a body whose every byte buys more time.
type coming struct {
	io.Reader
	patience *time.Timer
}

func (c *coming) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		c.patience.Reset(quiet)
	}
	return n, err
}
