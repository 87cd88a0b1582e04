package gobuild

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTheModuleOfAPackageIsTheNearestOneAboveIt(t *testing.T) {
	root := tree(t, map[string]string{"go.mod": "module a", "back/go.mod": "module b", "back/cmd/web/main.go": "", "cmd/x/main.go": ""})
	for pkg, want := range map[string][2]string{
		"":             {"", "."},
		"cmd/x":        {"", "./cmd/x"},
		"back":         {"back", "."},
		"back/cmd/web": {"back", "./cmd/web"},
	} {
		folder, pattern := moduleOf(root, pkg)
		if folder != filepath.Join(root, want[0]) || pattern != want[1] {
			t.Errorf("%q is %q of %q", pkg, pattern, folder)
		}
	}
	bare := tree(t, map[string]string{"cmd/x/main.go": ""})
	if folder, pattern := moduleOf(bare, "cmd/x"); folder != bare || pattern != "./cmd/x" {
		t.Errorf("without go.mod it is %q of %q", pattern, folder)
	}
}

func TestASourceWithoutGoModIsCalledAsItCallsItself(t *testing.T) {
	for want, main := range map[string]string{
		"github.com/ann/shop": "package main\nimport (\n\"fmt\"\n\"github.com/ann/shop/pages\"\n\"github.com/else/where\"\n)\n",
		"shop":                "package main\nimport \"shop/pages\"\n",
		"app":                 "package main\nimport \"fmt\"\n",
	} {
		root := tree(t, map[string]string{"main.go": main, "pages/pages.go": "package pages\n"})
		if got := moduleName(root); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestWhatGoSaysDecidesHowItIsTriedAgain(t *testing.T) {
	for _, said := range []string{
		"main.go:6:2: no required module provides package github.com/gin-gonic/gin; to add it:\n\tgo get github.com/gin-gonic/gin",
		"main.go:4:2: missing go.sum entry for module providing package rsc.io/quote (imported by x); to add:\n\tgo get x",
		"go: updates to go.mod needed; to update it:\n\tgo mod tidy",
		"go: inconsistent vendoring in /app:\n\trsc.io/quote@v1.5.2: is explicitly required in go.mod, but not marked as explicit",
	} {
		if !incomplete.MatchString(said) {
			t.Errorf("not understood: %s", said)
		}
	}
	if incomplete.MatchString("./main.go:3:1: undefined: x") {
		t.Error("an error of the source is none of go.mod")
	}
	said := "go: a.b/c@v1.12.0 requires go >= 1.24 (running go 1.23.9)\ngo: a.b/d@v1.0.0 requires go >= 1.25.10; switching\ngo: e@v1 requires go >= 1.25.9"
	if found := newest(said); found != "1.25.10" {
		t.Errorf("%q", found)
	}
	if found := newest("main.go:3:1: undefined: x"); found != "" {
		t.Errorf("%q", found)
	}
}

func TestAnOldGoModIsToldByItsLine(t *testing.T) {
	for text, want := range map[string]bool{"module x\ngo 1.13\n": true, "module x\n\ngo 1.14\n": false, "module x\n": false} {
		root := tree(t, map[string]string{"go.mod": text})
		if got := old(filepath.Join(root, "go.mod")); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestWhatIsPackedIsTheFolderWithoutWhatItDoesNotNeed(t *testing.T) {
	root := tree(t, map[string]string{"a/b.txt": "b", "vendor/x/x.go": "x", ".git/HEAD": "h", "app": "program"})
	if err := os.Chmod(filepath.Join(root, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a/b.txt", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := tarball(&out, root, []string{filepath.Join(root, "vendor"), filepath.Join(root, ".git")}); err != nil {
		t.Fatal(err)
	}
	var names []string
	archive := tar.NewReader(&out)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if header.Name == "app" && header.Mode != 0o755 || header.Name == "link" && header.Linkname != "a/b.txt" {
			t.Errorf("%+v", header)
		}
	}
	if want := []string{"a", "a/b.txt", "app", "link"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
}
