package unpack

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"vibed.dev/agent/erofs"
)

const (
	// listName is where a layer says which files are whose (templates/_builder/pieces.py).
	listName  = ".packages.json"
	listBytes = 64 << 20
)

// ErrClash says that what an archive holds is there already, taken over from another image.
var ErrClash = errors.New("what is taken over and what is installed do not go together")

// Taken is what an image takes over from an earlier one: the files of some of the packages that it lists.
type Taken struct {
	Image    string   `json:"image"`
	Packages []string `json:"packages"`
}

// Image reads a tar.gz (or, with o.Plain, a tar) from r into an EROFS image, which is written to out, beside what is
// taken over. Lists of packages are joined, if the archive has one or nothing but that is taken over.
func Image(r io.Reader, out io.WriteSeeker, uuid [16]byte, take []Taken, o Options) (Result, error) {
	w, err := erofs.NewWriter(out, uuid)
	if err != nil {
		return Result{}, full(err, "")
	}
	i := &image{Writer: w, packages: map[string][]string{}, takes: len(take) > 0}
	x := &extraction{sink: i, o: o, files: map[string]struct{}{}}
	for _, one := range take {
		if err := i.take(one, x); err != nil {
			return x.result, full(err, one.Image)
		}
	}
	if err := x.run(r); err != nil {
		return x.result, err
	}
	return x.result, full(errors.Join(i.list(), w.Close()), "")
}

// image is an EROFS image that an archive becomes. It has no times.
type image struct {
	*erofs.Writer
	takes    bool                // whether anything is taken over
	packages map[string][]string // files by package
	listed   bool                // whether the archive had a list
	others   bool                // whether it had anything else
}

func (i *image) directory(name string) error { return i.told(i.Directory(name)) }

func (i *image) file(name string, content io.Reader, executable bool, _ time.Time) error {
	if name == listName {
		i.listed = true
		return json.NewDecoder(io.LimitReader(content, listBytes)).Decode(&i.packages)
	}
	i.others = true
	return i.told(i.File(name, content, executable))
}

func (i *image) symlink(name, target string) error {
	i.others = true
	return i.told(i.Link(name, target))
}

// hardlink shares: nothing in an image changes.
func (i *image) hardlink(name, earlier string, _ func(io.Reader) io.Reader) error {
	return i.told(i.Again(name, earlier))
}

func (i *image) told(err error) error {
	if errors.Is(err, erofs.ErrExists) || errors.Is(err, erofs.ErrNotDirectory) {
		if i.takes {
			return fmt.Errorf("%w: %w", ErrClash, err)
		}
		return refuse("%v", err)
	}
	return err
}

func (i *image) take(one Taken, x *extraction) error {
	from, err := os.Open(one.Image)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	r, err := erofs.NewReader(from, info.Size())
	if err != nil {
		return err
	}
	list, _, err := r.Open(listName)
	if err != nil {
		return err
	}
	var theirs map[string][]string
	if err := json.NewDecoder(list).Decode(&theirs); err != nil {
		return err
	}
	for _, name := range one.Packages {
		paths, ok := theirs[name]
		if !ok {
			return fmt.Errorf("%s has no %q", one.Image, name)
		}
		for _, path := range paths {
			if rel, _, err := x.place(path); err != nil || rel != path {
				return fmt.Errorf("%s lists %q", one.Image, path)
			}
			content, executable, err := r.Open(path)
			if err != nil {
				return err
			}
			if err := i.told(i.File(path, x.counted(content), executable)); err != nil {
				return err
			}
		}
		i.packages[name] = paths
	}
	return nil
}

// list writes down which files are whose, where that is known of all.
func (i *image) list() error {
	if len(i.packages) == 0 || (i.others && !i.listed) {
		return nil
	}
	var list bytes.Buffer
	if err := json.NewEncoder(&list).Encode(i.packages); err != nil {
		return err
	}
	return i.File(listName, &list, false)
}
