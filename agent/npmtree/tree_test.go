package npmtree

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vibed.dev/agent/erofs"
)

type file struct {
	name string
	body string
	mode int64
	kind byte
}

func packed(t *testing.T, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: f.kind}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		} else if f.kind != tar.TypeReg {
			h.Size, h.Linkname = 0, f.body
		}
		if err := archive.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(archive, f.body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sri(content []byte) string {
	sum := sha512.Sum512(content)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// gate answers as the registry gate does.
type gate struct {
	*source
	files map[string][]byte
}

func newGate(t *testing.T) *gate {
	t.Helper()
	folder, err := os.MkdirTemp("", "npmtree-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	listening, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{newSource(socket, folder), map[string][]byte{}}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := g.files[r.URL.Path]
		switch {
		case !ok:
			http.Error(w, "the registry has no such file", http.StatusNotFound)
		case strings.HasPrefix(r.URL.Path, "/broken"):
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write(body[:len(body)/2])
		default:
			_, _ = w.Write(body)
		}
	})}
	go func() { _ = server.Serve(listening) }()
	t.Cleanup(func() { _ = server.Close() })
	return g
}

// has a package at a folder, with such a tarball.
func (g *gate) has(at string, tarball []byte) Package {
	from := "/" + at + ".tgz"
	g.files[from] = tarball
	return Package{At: at, From: from, Integrity: sri(tarball)}
}

func (g *gate) with(t *testing.T, at string, files ...file) Package {
	t.Helper()
	return g.has(at, packed(t, files...))
}

type tried struct {
	t       *testing.T
	path    string
	scripts []string
	err     error
}

func (g *gate) make(t *testing.T, packages ...Package) tried {
	t.Helper()
	path := filepath.Join(g.folder, "image")
	_ = os.Remove(path)
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	scripts, err := Make(context.Background(), Orders{packages, "{}"}, g.source, out, [16]byte{}, Bounds{1 << 20, 100})
	return tried{t, path, scripts, err}
}

// read is what a file of the image holds and whether it is a program.
func (i tried) read(name string) (string, bool, bool) {
	i.t.Helper()
	if i.err != nil {
		i.t.Fatal(i.err)
	}
	f, err := os.Open(i.path)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		i.t.Fatal(err)
	}
	r, err := erofs.NewReader(f, info.Size())
	if err != nil {
		i.t.Fatal(err)
	}
	content, executable, err := r.Open(name)
	if err != nil {
		return err.Error(), false, false
	}
	text, err := io.ReadAll(content)
	if err != nil {
		i.t.Fatal(err)
	}
	return string(text), executable, true
}

func (i tried) is(name, body string, executable bool) {
	i.t.Helper()
	if got, program, ok := i.read(name); !ok || got != body || program != executable {
		i.t.Errorf("%s: %q, %v, %v", name, got, program, ok)
	}
}

func (i tried) lacks(name string) {
	i.t.Helper()
	if got, _, ok := i.read(name); ok {
		i.t.Errorf("%s is there: %q", name, got)
	}
}

func TestFilesLieAsNpmUnpacksThem(t *testing.T) {
	g := newGate(t)
	i := g.make(t, g.with(t, "node_modules/@s/a",
		file{name: "package/", kind: tar.TypeDir}, file{name: "package/package.json", body: "{}"},
		file{name: "package/run.sh", body: "x", mode: 0o755}, file{name: "other-root/lib/b.js", body: "b", mode: 0o600},
		file{name: "package/./dist/./index.js", body: "d"},
		file{name: "package/.gitignore", body: "ignored"}, file{name: "package/empty/", kind: tar.TypeDir},
		file{name: "package/twice", body: "first", mode: 0o755}, file{name: "package/twice", body: "last"},
		file{name: "package/link", body: "/etc/passwd", kind: tar.TypeSymlink}, file{name: "package/hard", body: "package/run.sh", kind: tar.TypeLink},
		file{name: "package/pipe", kind: tar.TypeFifo}, file{name: "package/A", body: "1"}, file{name: "package/a", body: "2"}))
	i.is("node_modules/@s/a/package.json", "{}", false)
	i.is("node_modules/@s/a/run.sh", "x", true)
	i.is("node_modules/@s/a/lib/b.js", "b", false)
	i.is("node_modules/@s/a/.npmignore", "ignored", false)
	i.is("node_modules/@s/a/dist/index.js", "d", false)
	i.is("node_modules/@s/a/twice", "last", true)
	i.is("node_modules/@s/a/A", "1", false)
	i.is("node_modules/@s/a/a", "2", false)
	i.is("node_modules/.package-lock.json", "{}", false)
	for _, name := range []string{".gitignore", "link", "hard", "pipe", "empty"} {
		i.lacks("node_modules/@s/a/" + name)
	}
}

func TestCommandsAreFoundAndRun(t *testing.T) {
	g := newGate(t)
	a := g.with(t, "node_modules/@s/a", file{name: "package/cli.js", body: "#!/usr/bin/env node\r\nrun()\r\n"})
	a.Bin = map[string]string{"a": "cli.js", "gone": "gone.js"}
	below := g.with(t, "node_modules/@s/a/node_modules/b", file{name: "package/bin/b", body: "#!x\n"})
	below.Bin = map[string]string{"b": "bin/b"}
	i := g.make(t, a, below)
	i.is("node_modules/@s/a/cli.js", "#!/usr/bin/env node\nrun()\r\n", true)
	i.is("node_modules/@s/a/node_modules/b/bin/b", "#!x\n", true)
	for name, target := range map[string]string{
		"node_modules/.bin/a": "../@s/a/cli.js", "node_modules/@s/a/node_modules/.bin/b": "../b/bin/b",
	} {
		// a link's target follows the contents; the reader opens files alone
		image, err := os.ReadFile(i.path)
		if err != nil || !bytes.Contains(image, []byte(target)) {
			t.Errorf("%s: %v", name, err)
		}
		i.lacks(name)
	}
}

func TestWhatATarballBringsAlongHasToBeWhatTheLockSays(t *testing.T) {
	g := newGate(t)
	a := g.with(t, "node_modules/a", file{name: "package/package.json", body: "{}"},
		file{name: "package/node_modules/b/package.json", body: "{}"}, file{name: "package/node_modules/b/run", body: "r"},
		file{name: "package/test/node_modules/c/package.json", body: "{}"})
	a.Bundles = true
	b := Package{At: "node_modules/a/node_modules/b", Bin: map[string]string{"b": "run"}}
	g.make(t, a, b).is("node_modules/a/node_modules/b/run", "r", true)
	if got := g.make(t, a); got.err == nil || !strings.Contains(got.err.Error(), "the lock does not tell of node_modules/a/node_modules/b") {
		t.Error(got.err)
	}
	c := Package{At: "node_modules/a/node_modules/c"}
	if got := g.make(t, a, b, c); got.err == nil || !strings.Contains(got.err.Error(), "no tarball brings it along") {
		t.Error(got.err)
	}
	// without the word for it, they are files as others are, and in the way of one that has its place there
	a.Bundles = false
	g.make(t, a).is("node_modules/a/node_modules/b/run", "r", false)
	if got := g.make(t, a, g.with(t, "node_modules/a/node_modules/b", file{name: "package/x"})); got.err == nil {
		t.Error("two packages share a folder")
	}
}

func TestPackagesWithScriptsAreTold(t *testing.T) {
	g := newGate(t)
	var packages []Package
	for name, manifest := range map[string]string{
		"scripted": `{"scripts": {"postinstall": "x"}}`, "tests": `{"scripts": {"test": "x"}}`, "empty": `{"scripts": {"install": ""}}`,
		"odd": `{"scripts": [`, "none": `{}`, "marked": "\ufeff{}",
	} {
		p := g.with(t, "node_modules/"+name, file{name: "package/package.json", body: manifest})
		p.Scripts = true
		packages = append(packages, p)
	}
	// npm asks the lock, and of addons the files
	packages = append(packages, g.with(t, "node_modules/untold", file{name: "package/package.json", body: `{"scripts": {"install": "x"}}`}),
		g.with(t, "node_modules/addon", file{name: "package/binding.gyp", body: "{}"}, file{name: "package/deps/binding.gyp", body: "{}"}))
	got := g.make(t, packages...)
	if want := []string{"node_modules/addon", "node_modules/odd", "node_modules/scripted"}; got.err != nil || !slices.Equal(got.scripts, want) {
		t.Error(got.scripts, got.err)
	}
}

func TestOnlyWhatTheLockSaysIsTaken(t *testing.T) {
	g := newGate(t)
	whole := packed(t, file{name: "package/x", body: "x"})
	sum := sha1.Sum(whole)
	weak := "sha1-" + base64.StdEncoding.EncodeToString(sum[:])
	for integrity, fits := range map[string]bool{
		sri(whole): true, weak: true, sri(nil) + " " + sri(whole) + "?x": true, weak + " " + sri(nil): false,
		sri([]byte("x")): false, "md5-xx": false, "": false,
	} {
		p := g.has("node_modules/a", whole)
		p.Integrity = integrity
		if got := g.make(t, p); (got.err == nil) != fits {
			t.Errorf("%q: %v", integrity, got.err)
		}
	}
	broken := Package{At: "node_modules/a", From: "/broken", Integrity: sri(whole)}
	g.files["/broken"] = whole
	for name, p := range map[string]Package{
		"one that breaks off":      broken,
		"one that is not there":    {At: "node_modules/a", From: "/none.tgz", Integrity: sri(whole)},
		"one that ends too early":  g.has("node_modules/a", whole[:len(whole)-6]),
		"one that is not packed":   g.has("node_modules/a", []byte("hello")),
		"one that is far too long": g.with(t, "node_modules/a", file{name: "package/x", body: strings.Repeat("x", 2<<20)}),
	} {
		if got := g.make(t, p); got.err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestATarballThatWasNeverZippedIsOneToo(t *testing.T) {
	g := newGate(t)
	zipped, err := gzip.NewReader(bytes.NewReader(packed(t, file{name: "package/x", body: "x"})))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zipped)
	if err != nil {
		t.Fatal(err)
	}
	g.make(t, g.has("node_modules/a", plain)).is("node_modules/a/x", "x", false)
	for _, bad := range [][]byte{make([]byte, 2048), plain[:100], nil} {
		if got := g.make(t, g.has("node_modules/a", bad)); got.err == nil {
			t.Errorf("%d bytes are taken for a package", len(bad))
		}
	}
}

func TestNamesThatLeadElsewhereAreNpms(t *testing.T) {
	g := newGate(t)
	for _, name := range []string{"../x", "package/../../x", "/etc/x", "package", "package//x", "package/a\\b", "package/\xff"} {
		if got := g.make(t, g.with(t, "node_modules/a", file{name: name, body: "x"})); got.err == nil && name != "../x" && name != "/etc/x" {
			t.Errorf("%q is written", name)
		} else if got.err == nil {
			// without its first part
			got.is("node_modules/a/"+strings.TrimPrefix(strings.TrimPrefix(name, "../"), "/"), "x", false)
		}
	}
	over := g.make(t, g.with(t, "node_modules/a", file{name: "package/x", body: "x"}, file{name: "package/x/y", body: "y"}))
	if over.err == nil {
		t.Error("a file is a folder")
	}
}

func TestBoundsAreOfTheWholeTree(t *testing.T) {
	g := newGate(t)
	var many []file
	for range 101 {
		many = append(many, file{name: "package/" + strings.Repeat("x", len(many)+1)})
	}
	half, noise := strings.Repeat("x", 600<<10), make([]byte, 600<<10)
	_, _ = rand.Read(noise)
	for name, packages := range map[string][]Package{
		"files": {g.with(t, "node_modules/a", many...)},
		"bytes": {g.with(t, "node_modules/b", file{name: "package/x", body: half}), g.with(t, "node_modules/c", file{name: "package/x", body: half})},
		// each would do; what comes is bounded as what is made of it
		"tarballs": {g.with(t, "node_modules/d", file{name: "package/x", body: string(noise)}), g.has("node_modules/e", append(noise, noise...))},
	} {
		if got := g.make(t, packages...); !errors.Is(got.err, errLarge) {
			t.Errorf("%s: %v", name, got.err)
		}
	}
}

func TestOrdersThatNoPlanGivesAreRefused(t *testing.T) {
	g := newGate(t)
	fine := g.with(t, "node_modules/a", file{name: "package/x", body: "x"})
	for name, change := range map[string]func(*Package){
		"outside":         func(p *Package) { p.At = "node_modules/../x" },
		"beside":          func(p *Package) { p.At = "lib/a" },
		"an address":      func(p *Package) { p.From = "http://elsewhere/x" },
		"a command above": func(p *Package) { p.Bin = map[string]string{"x": "../../x"} },
		"a command aside": func(p *Package) { p.Bin = map[string]string{"../x": "x"} },
	} {
		changed := fine
		change(&changed)
		if got := g.make(t, changed); got.err == nil {
			t.Errorf("%s is done", name)
		}
	}
	below := g.with(t, "node_modules/a/node_modules/b", file{name: "package/x", body: "x"})
	if got := g.make(t, below, fine); got.err == nil {
		t.Error("what is below comes first")
	}
	if got := g.make(t, fine, fine); got.err == nil {
		t.Error("one folder twice")
	}
}

func TestManyPackagesGiveOneImageWhateverComesFirst(t *testing.T) {
	g := newGate(t)
	var packages []Package
	for n := range 3 * ahead {
		packages = append(packages, g.with(t, "node_modules/p"+strings.Repeat("x", n), file{name: "package/x"}))
	}
	var before []byte
	for range 2 {
		out := filepath.Join(g.folder, "image")
		_ = os.Remove(out)
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithTimeout(context.Background(), time.Minute)
		_, err = Make(ctx, Orders{packages, "{}"}, g.source, f, [16]byte{}, Bounds{1 << 20, 1000})
		end()
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(out)
		if err != nil || (before != nil && !bytes.Equal(before, image)) {
			t.Error("another image", err)
		}
		before = image
	}
}
