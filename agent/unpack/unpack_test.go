package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type member struct {
	name, link, body string
	kind             byte
	mode             int64
}

func archive(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		if m.mode == 0 {
			m.mode = 0o600
		}
		h := &tar.Header{Name: m.name, Linkname: m.link, Typeflag: m.kind, Size: int64(len(m.body)), Mode: m.mode, ModTime: time.Unix(1700000000, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.body)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	_ = z.Close()
	return b.Bytes()
}

// place returns a root with a neighbour that must stay as it is.
func place(t *testing.T) (root, outside string) {
	t.Helper()
	dir := memory(t)
	root, outside = filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	for _, d := range []string{root, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root, outside
}

// memory is a directory that is fast on a machine whose disk is busy, where there is one.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "unpack")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func refused(t *testing.T, data []byte, o Options, want Code, words string) string {
	t.Helper()
	root, outside := place(t)
	_, err := Extract(bytes.NewReader(data), root, o)
	var e *Error
	if !errors.As(err, &e) || e.Code != want || !strings.Contains(e.Error(), words) {
		t.Errorf("got %v, want %s … %s", err, want, words)
	}
	out, err := os.Create(filepath.Join(memory(t), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	_, err = Image(bytes.NewReader(data), out, [16]byte{}, nil, o)
	if !errors.As(err, &e) || e.Code != want || !strings.Contains(e.Error(), words) {
		t.Errorf("as an image: got %v, want %s … %s", err, want, words)
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("something was written outside: %v", left)
	}
	if left, _ := os.ReadDir(filepath.Dir(root)); len(left) != 2 {
		t.Errorf("something was written beside: %v", left)
	}
	return root
}

func TestHostileArchivesAreRefused(t *testing.T) {
	long := strings.Repeat("a/", 2100) + "f"
	for name, c := range map[string]struct {
		members []member
		words   string
	}{
		"traversal":                          {[]member{{name: "../outside/f", body: "x"}}, "path with .."},
		"traversal in the middle":            {[]member{{name: "a/../../outside/f", body: "x"}}, "path with .."},
		"absolute":                           {[]member{{name: "/tmp/f", body: "x"}}, "absolute"},
		"absolute link":                      {[]member{{name: "l", link: "/etc", kind: tar.TypeSymlink}}, "out of the source"},
		"link out":                           {[]member{{name: "d/l", link: "../../outside", kind: tar.TypeSymlink}}, "out of the source"},
		"link through a link and out":        {[]member{{name: "p/q/s", link: "../../x", kind: tar.TypeSymlink}, {name: "l", link: "p/q/s/../../outside", kind: tar.TypeSymlink}}, "out of the source"},
		"write through a link":               {[]member{{name: "d", kind: tar.TypeDir}, {name: "l", link: "d", kind: tar.TypeSymlink}, {name: "l/f", body: "x"}}, "a link or a file"},
		"directory over a link":              {[]member{{name: "d", kind: tar.TypeDir}, {name: "l", link: "d", kind: tar.TypeSymlink}, {name: "l", kind: tar.TypeDir}}, "a link or a file"},
		"file over a link":                   {[]member{{name: "l", link: "f", kind: tar.TypeSymlink}, {name: "l", body: "x"}}, "twice"},
		"twice":                              {[]member{{name: "f", body: "x"}, {name: "./f", body: "y"}}, "twice"},
		"file over a directory":              {[]member{{name: "f/g", body: "x"}, {name: "f", body: "y"}}, "twice"},
		"file as a directory":                {[]member{{name: "f", body: "x"}, {name: "f/g", body: "y"}}, "a link or a file"},
		"character device":                   {[]member{{name: "c", kind: tar.TypeChar}}, "device"},
		"block device":                       {[]member{{name: "b", kind: tar.TypeBlock}}, "device"},
		"pipe":                               {[]member{{name: "p", kind: tar.TypeFifo}}, "device"},
		"hard link to nothing":               {[]member{{name: "h", link: "f", kind: tar.TypeLink}}, "no earlier file"},
		"hard link out":                      {[]member{{name: "h", link: "../outside/f", kind: tar.TypeLink}}, "path with .."},
		"hard link to a link":                {[]member{{name: "l", link: "f", kind: tar.TypeSymlink}, {name: "h", link: "l", kind: tar.TypeLink}}, "no earlier file"},
		"a name that is not UTF-8":           {[]member{{name: "f\xff", body: "x"}}, "UTF-8"},
		"a path longer than the system's":    {[]member{{name: long, body: "x"}}, "longer"},
		"the root as a file":                 {[]member{{name: ".", body: "x"}}, "without a name"},
		"a component longer than the system": {[]member{{name: strings.Repeat("n", 300), body: "x"}}, "name too long"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, archive(t, c.members...), Options{}, InjectFailed, c.words) })
	}
}

func TestDamagedArchivesAreRefused(t *testing.T) {
	whole := archive(t, member{name: "f", body: strings.Repeat("some text\n", 5000)})
	for _, cut := range []int{0, 5, len(whole) / 2, len(whole) - 9, len(whole) - 1} {
		refused(t, whole[:cut], Options{}, InjectFailed, "damaged")
	}
	bad := bytes.Clone(whole)
	bad[len(bad)-6] ^= 1
	refused(t, bad, Options{}, InjectFailed, "damaged")
	refused(t, append(bytes.Clone(whole), whole...), Options{}, InjectFailed, "after the end")
	refused(t, []byte("no archive at all"), Options{}, InjectFailed, "damaged")
}

func TestABombStopsAtTheBound(t *testing.T) {
	data := archive(t, member{name: "a", body: strings.Repeat("\x00", 900)}, member{name: "b", body: strings.Repeat("\x00", 1<<22)})
	root := refused(t, data, Options{MaxBytes: 100_000}, DiskFull, "100000")
	if info, err := os.Stat(filepath.Join(root, "b")); err == nil && info.Size() > 100_000 {
		t.Errorf("%d bytes were written", info.Size())
	}
}

func TestFilesArriveAsTheyWere(t *testing.T) {
	root, _ := place(t)
	long := "w/" + strings.Repeat("long/", 40) + "name.txt" // pax
	data := archive(t, member{name: "w/", kind: tar.TypeDir}, member{name: "w/app.py", body: "print()\n", mode: 0o4666}, member{name: "w/run.sh", body: "#!/bin/sh\n", mode: 0o7777},
		member{name: long, body: "x"}, member{name: "w/ü/e", body: ""}, member{name: "w/d/link", link: "../app.py", kind: tar.TypeSymlink},
		member{name: "w/hard", link: "w/run.sh", kind: tar.TypeLink}, member{name: "elsewhere/f", body: "skipped"})
	r, err := Extract(bytes.NewReader(append(data, make([]byte, 512)...)), root, Options{Strip: "w/"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Files != 6 || r.Bytes != 8+10+1+10 {
		t.Errorf("%+v", r)
	}
	for name, mode := range map[string]os.FileMode{"app.py": 0o644, "run.sh": 0o755, "hard": 0o755, long[2:]: 0o644, "ü/e": 0o644, "d/link": 0o644} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode() != mode || info.ModTime().Unix() != 1700000000 {
			t.Errorf("%s: %v %v", name, info.Mode(), info.ModTime())
		}
	}
	a, _ := os.Stat(filepath.Join(root, "run.sh"))
	b, _ := os.Stat(filepath.Join(root, "hard"))
	if os.SameFile(a, b) {
		t.Error("a hard link is a second name, not a copy")
	}
	if _, err := os.Stat(filepath.Join(root, "f")); err == nil {
		t.Error("a member outside of the prefix was extracted")
	}
}

func TestAPlainTarballIsTakenWhereItIsAskedFor(t *testing.T) {
	root, _ := place(t)
	packed := archive(t, member{name: "a/b.py", body: "1", mode: 0o700}, member{name: "a/c", kind: tar.TypeSymlink, link: "b.py"})
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Extract(z, root, Options{Plain: true, MaxFiles: 2}); err != nil {
		t.Fatal(err)
	}
	if body, err := os.ReadFile(filepath.Join(root, "a/c")); err != nil || string(body) != "1" {
		t.Errorf("%q, %v", body, err)
	}
	refused(t, packed, Options{Plain: true}, InjectFailed, "damaged")
}

func TestAFullDiskIsToldFromADamagedArchive(t *testing.T) {
	out, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	var e *Error
	if _, err = Image(bytes.NewReader(archive(t, member{name: "a", body: "x"})), out, [16]byte{}, nil, Options{}); !errors.As(err, &e) || e.Code != DiskFull {
		t.Errorf("%v", err)
	}
}

func TestMoreFilesThanTheBoundAreRefused(t *testing.T) {
	refused(t, archive(t, member{name: "a"}, member{name: "b"}, member{name: "c"}), Options{MaxFiles: 2}, DiskFull, "more than 2 files")
}

func TestLinksOfToolsThatLeadOutAreLeftOut(t *testing.T) {
	root, _ := place(t)
	data := archive(t, member{name: "app.py", body: "print()\n"}, member{name: ".venv/bin/python", link: "/usr/bin/python3", kind: tar.TypeSymlink},
		member{name: "a/env/bin/python3.13", link: "/usr/bin/python3", kind: tar.TypeSymlink}, member{name: ".claude/rules", link: "../../rules", kind: tar.TypeSymlink},
		member{name: "web/node_modules/express", link: "/store/express", kind: tar.TypeSymlink})
	r, err := Extract(bytes.NewReader(data), root, Options{})
	if err != nil || r.Files != 1 {
		t.Fatal(r, err)
	}
	if _, err := os.Lstat(filepath.Join(root, ".venv/bin/python")); err == nil {
		t.Error("a link leads out of the root")
	}
}

func TestLinksMayLeadIntoOneFolderBesideTheRootWhereThatIsAskedFor(t *testing.T) {
	packed := func(target string) []byte {
		return archive(t, member{name: "modules/@a/b", link: target, kind: tar.TypeSymlink})
	}
	root, _ := place(t)
	if _, err := Extract(bytes.NewReader(packed("/app/packages/b")), root, Options{Beyond: "/app"}); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(root, "modules/@a/b")); err != nil || target != "/app/packages/b" {
		t.Error(target, err)
	}
	for _, target := range []string{"/app", "/application/b", "/app/../etc/passwd", "/app//b", "/etc/passwd", "../../../app/b"} {
		refused(t, packed(target), Options{Beyond: "/app"}, InjectFailed, "leads out")
	}
	refused(t, packed("/app/b"), Options{}, InjectFailed, "leads out")
}

func TestManyDirectoriesDoNotExhaustDescriptors(t *testing.T) {
	root, _ := place(t)
	var members []member
	for i := range 3 * maxDirs {
		members = append(members, member{name: fmt.Sprintf("d%d/e/f", i), body: "x"})
	}
	for i := range 3 * maxDirs {
		members = append(members, member{name: fmt.Sprintf("d%d/e/g", i), body: "x"})
	}
	if r, err := Extract(bytes.NewReader(archive(t, members...)), root, Options{}); err != nil || r.Files != len(members) {
		t.Error(r, err)
	}
}
