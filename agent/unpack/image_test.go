package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vibed.dev/agent/erofs"
)

// imaged is the image that an archive becomes.
func imaged(t *testing.T, take []Taken, members ...member) (string, error) {
	t.Helper()
	path := filepath.Join(memory(t), "image")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Image(bytes.NewReader(archive(t, members...)), out, [16]byte{}, take, Options{MaxBytes: 1000, MaxFiles: 100})
	if closed := out.Close(); closed != nil {
		t.Fatal(closed)
	}
	return path, err
}

// content is a file of an image; empty where it has none.
func content(t *testing.T, image, name string) string {
	t.Helper()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := erofs.NewReader(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := r.Open(name)
	if errors.Is(err, erofs.ErrNotThere) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(found)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func layer(t *testing.T) string {
	t.Helper()
	path, err := imaged(t, nil, member{name: "lib/a/x.py", body: "a"}, member{name: "bin/a", body: "a!", mode: 0o755},
		member{name: "lib/b.py", body: "b"}, member{name: ".packages.json", body: `{"a==1": ["lib/a/x.py", "bin/a"], "b==1": ["lib/b.py"]}`})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPackagesAreTakenOverBesideWhatTheArchiveHolds(t *testing.T) {
	earlier := layer(t)
	path, err := imaged(t, []Taken{{earlier, []string{"a==1"}}}, member{name: "lib/a/y.py", body: "y"},
		member{name: ".packages.json", body: `{"y==1": ["lib/a/y.py"]}`})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"lib/a/x.py": "a", "bin/a": "a!", "lib/a/y.py": "y", "lib/b.py": "",
		".packages.json": `{"a==1":["lib/a/x.py","bin/a"],"y==1":["lib/a/y.py"]}` + "\n",
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got := content(t, path, name); got != want[name] {
			t.Errorf("%s: %q", name, got)
		}
	}
	// and from there once more, with nothing beside it
	again, err := imaged(t, []Taken{{path, []string{"y==1"}}, {earlier, []string{"b==1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, again, ".packages.json"); got != `{"b==1":["lib/b.py"],"y==1":["lib/a/y.py"]}`+"\n" {
		t.Errorf("%q", got)
	}
}

func TestWhatIsNotAccountedForLeavesNoList(t *testing.T) {
	path, err := imaged(t, []Taken{{layer(t), []string{"a==1"}}}, member{name: "lib/y.py", body: "y"})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, path, ".packages.json"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestWhatDoesNotGoTogetherIsTold(t *testing.T) {
	earlier := layer(t)
	take := []Taken{{earlier, []string{"a==1"}}}
	for name, m := range map[string]member{
		"the same file":          {name: "lib/a/x.py", body: "other"},
		"a link in its place":    {name: "bin/a", kind: tar.TypeSymlink, link: "b"},
		"a folder in its place":  {name: "bin/a/x"},
		"a file for its folder":  {name: "lib/a", body: "x"},
		"a second name in place": {name: "bin/a", kind: tar.TypeLink, link: "other"},
	} {
		if _, err := imaged(t, take, member{name: "other"}, m); !errors.Is(err, ErrClash) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := imaged(t, append(take, take...)); !errors.Is(err, ErrClash) {
		t.Errorf("the same twice: %v", err)
	}
	if _, err := imaged(t, nil, member{name: "x"}, member{name: "x"}); err == nil || errors.Is(err, ErrClash) {
		t.Errorf("an archive with a name twice: %v", err)
	}
}

func TestWhatIsTakenOverCountsAndHasToBeThere(t *testing.T) {
	earlier := layer(t)
	outside, err := imaged(t, nil, member{name: ".packages.json", body: `{"up==1": ["../x"], "gone==1": ["gone"]}`})
	if err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(memory(t), "empty")
	if err := os.WriteFile(empty, bytes.Repeat([]byte{0}, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, take := range map[string]Taken{
		"a package that it has not": {earlier, []string{"c==1"}},
		"a path that leads out":     {outside, []string{"up==1"}},
		"a file that is not there":  {outside, []string{"gone==1"}},
		"no image":                  {empty, []string{"a==1"}},
		"nothing":                   {empty + "x", []string{"a==1"}},
	} {
		if _, err := imaged(t, []Taken{take}); err == nil {
			t.Errorf("%s was taken over", name)
		}
	}
	var e *Error
	large := member{name: "large", body: strings.Repeat("x", 999)}
	if _, err := imaged(t, []Taken{{earlier, []string{"a==1"}}}, large); !errors.As(err, &e) || e.Code != DiskFull {
		t.Errorf("beyond the bound: %v", err)
	}
}
