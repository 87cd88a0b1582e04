package npmtree

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"vibed.dev/agent/erofs"
)

// Bounds are for a whole tree.
type Bounds struct {
	Bytes int64
	Files int
}

var errLarge = errors.New("it is larger than a layer may be")

// manifestMax is how much of a package.json is read for its scripts.
const manifestMax = 4 << 20

// tree is an image on its way.
type tree struct {
	image    *erofs.Writer
	files    int             // how many there may still be
	room     atomic.Int64    // and how many bytes of them
	programs map[string]bool // files that are commands
	places   map[string]bool // folders of packages
	scripts  map[string]bool // those of which the lock says that they have install scripts
	run      []string        // those that do have some
}

// Make writes the image of node_modules to out. It returns the folders of packages that have install scripts to be run.
func Make(ctx context.Context, o Orders, s *source, out io.WriteSeeker, uuid [16]byte, most Bounds) ([]string, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	image, err := erofs.NewWriter(out, uuid)
	if err != nil {
		return nil, err
	}
	t := &tree{image: image, files: most.Files, programs: map[string]bool{}, places: map[string]bool{}, scripts: map[string]bool{}}
	t.room.Store(most.Bytes)
	for _, p := range o.Packages {
		t.places[p.At] = true
		t.scripts[p.At] = p.Scripts
		for _, file := range p.Bin {
			t.programs[path.Join(p.At, file)] = true
		}
	}
	if err := image.Directory(modules); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	for i, got := range s.all(ctx, o.Packages, most.Bytes) {
		if err := t.place(ctx, o.Packages[i], got); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Packages[i].At, err)
		}
	}
	for _, p := range o.Packages {
		if err := t.link(p); err != nil {
			return nil, fmt.Errorf("%s: %w", p.At, err)
		}
	}
	if err := t.file(modules+"/.package-lock.json", strings.NewReader(o.Lock), false); err != nil {
		return nil, err
	}
	slices.Sort(t.run)
	return slices.Compact(t.run), image.Close()
}

// place writes the files of a package; of one that another brings along, it sees that they are there.
func (t *tree) place(ctx context.Context, p Package, got <-chan fetched) error {
	if got == nil {
		if !t.image.Has(p.At + "/package.json") {
			return errors.New("no tarball brings it along")
		}
		return nil
	}
	var one fetched
	select {
	case one = <-got:
	case <-ctx.Done():
		return ctx.Err()
	}
	if one.err != nil {
		return one.err
	}
	defer func() { _ = one.file.Close() }()
	if t.image.Has(p.At) {
		return errors.New("another package has files there")
	}
	if err := t.image.Directory(p.At); err != nil {
		return err
	}
	mine := map[string]bool{} // files, and whether they are programs
	return members(one.file, func(m member) error {
		name := path.Join(p.At, m.name)
		if before, twice := mine[name]; twice {
			// what comes later is written into the file that is there
			m.executable = before
			if err := t.image.Remove(name); err != nil {
				return err
			}
		}
		mine[name] = m.executable
		if err := t.whose(p, name); err != nil {
			return err
		}
		content := m.content
		if t.programs[name] {
			content = program(content)
		}
		return t.file(name, content, m.executable || t.programs[name])
	})
}

// brought is the folder of a package below another one's, as npm finds it.
var brought = regexp.MustCompile(`^(?:/node_modules/(?:@[^/]+/)?[^./@][^/]*)+$`)

// whose looks at what a tarball says of packages: of the one that was fetched, or of those that it brings along.
func (t *tree) whose(p Package, name string) error {
	folder, base := path.Dir(name), path.Base(name)
	switch {
	case base == "package.json" && p.Bundles && !t.places[folder] && brought.MatchString(strings.TrimPrefix(folder, p.At)):
		return fmt.Errorf("the lock does not tell of %s, which is brought along", folder)
	case base == "binding.gyp" && t.places[folder]:
		t.run = append(t.run, folder)
	}
	return nil
}

// file writes one, within the bounds.
func (t *tree) file(name string, content io.Reader, executable bool) error {
	if t.files--; t.files < 0 {
		return errLarge
	}
	var manifest beginning
	folder := strings.TrimSuffix(name, "/package.json")
	looked := folder != name && t.scripts[folder]
	if looked {
		content = io.TeeReader(content, &manifest)
	}
	if err := t.image.File(name, within{content, &t.room}, executable); err != nil {
		return err
	}
	if looked && scripted(manifest) {
		t.run = append(t.run, folder)
	}
	return nil
}

// beginning keeps the beginning of what is written.
type beginning []byte

func (b *beginning) Write(more []byte) (int, error) {
	*b = append(*b, more[:min(len(more), manifestMax-len(*b))]...)
	return len(more), nil
}

// scripted says whether a package.json has scripts that an installation runs, or is none that can be read here.
func scripted(manifest []byte) bool {
	var said struct {
		Scripts map[string]any `json:"scripts"`
	}
	if json.Unmarshal(bytes.TrimPrefix(manifest, []byte("\ufeff")), &said) != nil {
		return true
	}
	return slices.ContainsFunc([]string{"preinstall", "install", "postinstall"}, func(event string) bool {
		return said.Scripts[event] != nil && said.Scripts[event] != ""
	})
}

// link makes the commands of a package be found. One whose file is not there is left out.
func (t *tree) link(p Package) error {
	commands := path.Join(home(p.At), ".bin")
	for _, name := range slices.Sorted(maps.Keys(p.Bin)) {
		file := path.Join(p.At, p.Bin[name])
		if !t.image.Has(file) {
			continue
		}
		if t.files--; t.files < 0 {
			return errLarge
		}
		to, err := filepath.Rel(commands, file)
		if err != nil {
			return err
		}
		if err := t.image.Link(path.Join(commands, name), to); err != nil {
			return err
		}
	}
	return nil
}
