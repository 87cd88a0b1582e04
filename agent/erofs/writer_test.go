package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reader reads an image by the format's description alone.
type reader struct {
	t      *testing.T
	image  []byte
	inodes int
}

type inode struct {
	mode, links uint16
	data        []byte
}

func read(t *testing.T, image []byte) *reader {
	t.Helper()
	s := image[1024:]
	if len(image)%4096 != 0 || binary.LittleEndian.Uint32(s) != 0xE0F5E1E2 || s[12] != 12 {
		t.Fatalf("no image of whole blocks of 4096 bytes: %d bytes, %x", len(image), s[:16])
	}
	if blocks := binary.LittleEndian.Uint32(s[36:]); int(blocks)*4096 != len(image) {
		t.Fatalf("%d blocks in %d bytes", blocks, len(image))
	}
	return &reader{t, image, int(binary.LittleEndian.Uint32(s[40:])) * 4096}
}

func (r *reader) root() uint64 { return uint64(binary.LittleEndian.Uint16(r.image[1024+14:])) }

func (r *reader) inode(number uint64) inode {
	raw := r.image[r.inodes+int(number)*32:][:32]
	e := binary.LittleEndian
	if e.Uint16(raw) != 0 {
		r.t.Fatalf("inode %d is not compact and plain: %x", number, raw)
	}
	at := int(e.Uint32(raw[16:])) * 4096
	i := inode{mode: e.Uint16(raw[4:]), links: e.Uint16(raw[6:])}
	if size := int(e.Uint32(raw[8:])); size > 0 {
		i.data = r.image[at:][:size]
	}
	return i
}

// entries are those of a directory, in the order in which they are found.
func (r *reader) entries(number uint64) (names []string, numbers []uint64) {
	data := r.inode(number).data
	for ; len(data) > 0; data = data[min(len(data), 4096):] {
		block := data[:min(len(data), 4096)]
		e := binary.LittleEndian
		count := int(e.Uint16(block[8:])) / 12
		for n := range count {
			entry := block[n*12:]
			end := len(block)
			if n+1 < count {
				end = int(e.Uint16(entry[12+8:]))
			}
			name, _, _ := strings.Cut(string(block[e.Uint16(entry[8:]):end]), "\x00")
			names, numbers = append(names, name), append(numbers, e.Uint64(entry))
			if kind := map[uint16]byte{0o040000: 2, 0o100000: 1, 0o120000: 7}[r.inode(e.Uint64(entry)).mode&0o170000]; kind != entry[10] {
				r.t.Errorf("%q: the entry says type %d, the inode %o", name, entry[10], r.inode(e.Uint64(entry)).mode)
			}
		}
	}
	return names, numbers
}

// all is every path below the root, with what it leads to.
func (r *reader) all() map[string]inode {
	found := map[string]inode{}
	var walk func(path string, number, parent uint64)
	walk = func(path string, number, parent uint64) {
		names, numbers := r.entries(number)
		if !slices.IsSorted(names) {
			r.t.Errorf("%q: not in the order of the names", path)
		}
		for n, name := range names {
			switch name {
			case ".":
				if numbers[n] != number {
					r.t.Errorf("%q/.: %d", path, numbers[n])
				}
			case "..":
				if numbers[n] != parent {
					r.t.Errorf("%q/..: %d", path, numbers[n])
				}
			default:
				one := r.inode(numbers[n])
				found[filepath.Join(path, name)] = one
				if one.mode&0o170000 == 0o040000 {
					walk(filepath.Join(path, name), numbers[n], number)
				}
			}
		}
	}
	walk("", r.root(), r.root())
	return found
}

func written(t *testing.T, fill func(w *Writer) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(out, [16]byte{1, 2, 3})
	if err == nil {
		if err = fill(w); err == nil {
			err = w.Close()
		}
	}
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestWhatIsWrittenIsFoundAgain(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 100_001)
	image := written(t, func(w *Writer) error {
		return errors.Join(
			w.File("a/b/program", strings.NewReader("#!/bin/sh\n"), true),
			w.File("a/empty", strings.NewReader(""), false),
			w.File("large", bytes.NewReader(large), false),
			w.File("block", bytes.NewReader(large[:4096]), false),
			w.Directory("a/nothing"),
			w.Directory("a"),
			w.Link("a/link", "b/program"),
			w.Again("again", "large"),
		)
	})
	found := read(t, image).all()
	for path, want := range map[string]inode{
		"a":           {0o040755, 4, found["a"].data},
		"a/b":         {0o040755, 2, found["a/b"].data},
		"a/b/program": {0o100755, 1, []byte("#!/bin/sh\n")},
		"a/empty":     {0o100644, 1, nil},
		"a/nothing":   {0o040755, 2, found["a/nothing"].data},
		"a/link":      {0o120777, 1, []byte("b/program")},
		"large":       {0o100644, 2, large},
		"block":       {0o100644, 1, large[:4096]},
		"again":       {0o100644, 2, large},
	} {
		if got := found[path]; got.mode != want.mode || got.links != want.links || !bytes.Equal(got.data, want.data) {
			t.Errorf("%s: mode %o, %d names, %d bytes", path, got.mode, got.links, len(got.data))
		}
		delete(found, path)
	}
	if len(found) > 0 {
		t.Errorf("and there are %v", found)
	}
	if len(image) > 2*len(large) {
		t.Errorf("a file with two names is there twice: %d bytes", len(image))
	}
}

func TestAFolderOfMoreNamesThanABlockHolds(t *testing.T) {
	var want []string
	image := written(t, func(w *Writer) error {
		for n := range 3000 {
			// the order in which they come is not that of the names; some are as long as a name may be
			name := fmt.Sprintf("%d", n*7919%3000)
			if n%10 == 0 {
				name += strings.Repeat("é", (255-len(name))/2)
			}
			want = append(want, "many/"+name)
			if err := w.File("many/"+name, strings.NewReader(name), false); err != nil {
				return err
			}
		}
		return nil
	})
	found := read(t, image).all()
	for _, path := range want {
		if string(found[path].data) != strings.TrimPrefix(path, "many/") {
			t.Fatalf("%s holds %q", path, found[path].data)
		}
	}
	if len(found) != len(want)+1 {
		t.Errorf("%d names of %d", len(found), len(want)+1)
	}
}

func TestTheSameContentIsTheSameImage(t *testing.T) {
	fill := func(w *Writer) error {
		return errors.Join(w.File("a/x", strings.NewReader("x"), false), w.Link("b", "a/x"), w.Directory("c"))
	}
	if !bytes.Equal(written(t, fill), written(t, fill)) {
		t.Error("two images of the same differ")
	}
}

func TestANameIsThereOnceAndNothingLiesBelowAFile(t *testing.T) {
	written(t, func(w *Writer) error {
		if err := errors.Join(w.File("file", strings.NewReader(""), false), w.Link("link", "/"), w.Directory("folder")); err != nil {
			return err
		}
		for name, attempt := range map[string]struct{ got, want error }{
			"a file again":       {w.File("file", strings.NewReader(""), false), ErrExists},
			"a file on a link":   {w.File("link", strings.NewReader(""), false), ErrExists},
			"a link on a file":   {w.Link("file", "x"), ErrExists},
			"below a file":       {w.File("file/x", strings.NewReader(""), false), ErrNotDirectory},
			"below a link":       {w.File("link/x", strings.NewReader(""), false), ErrNotDirectory},
			"a folder on a link": {w.Directory("link"), ErrNotDirectory},
			"a folder's name":    {w.Again("x", "folder"), ErrNotThere},
			"a link's name":      {w.Again("x", "link"), ErrNotThere},
			"a name of nothing":  {w.Again("x", "y"), ErrNotThere},
		} {
			if !errors.Is(attempt.got, attempt.want) {
				t.Errorf("%s: %v", name, attempt.got)
			}
		}
		return nil
	})
}

func TestWhatCannotBeReadEndsIt(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := NewWriter(out, [16]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.File("x", io.MultiReader(strings.NewReader("begun"), broken{}), false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if w.File(strings.Repeat("n", 256), strings.NewReader(""), false) == nil {
		t.Error("a name of 256 bytes was taken")
	}
}

func TestADamagedImageIsReadWithoutHarm(t *testing.T) {
	image := written(t, func(w *Writer) error {
		for n := range 300 {
			if err := w.File(fmt.Sprintf("a/%d/%d", n%7, n), strings.NewReader("text"), n%2 == 0); err != nil {
				return err
			}
		}
		return nil
	})
	whole, err := NewReader(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if content, program, err := whole.Open("a/0/294"); err != nil || !program || content.Size() != 4 {
		t.Fatal(content, program, err)
	}
	if _, _, err := whole.Open("a/0"); !errors.Is(err, ErrNotThere) {
		t.Errorf("a folder was opened: %v", err)
	}
	for at := superblockAt; at < len(image); at++ {
		if at > superblockAt+superblockBytes && image[at] == 0 {
			continue
		}
		damaged := slices.Clone(image)
		damaged[at] ^= 0xff
		if r, err := NewReader(bytes.NewReader(damaged), int64(len(damaged))); err == nil {
			if content, _, err := r.Open("a/0/294"); err == nil {
				_, _ = io.ReadAll(content)
			}
		}
	}
	for _, size := range []int{0, 1024, 2000, 4096, len(image) / 2} {
		if r, err := NewReader(bytes.NewReader(image[:size]), int64(size)); err == nil {
			_, _, _ = r.Open("a/0/294")
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
