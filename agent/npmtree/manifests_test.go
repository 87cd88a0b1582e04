package npmtree

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func (g *gate) said(t *testing.T, most Bounds, packages ...Package) (map[string]*Said, error) {
	t.Helper()
	return Manifests(context.Background(), Orders{Packages: packages}, g.source, most)
}

func TestWhatPackagesSayIsReadOutOfTheirTarballs(t *testing.T) {
	g := newGate(t)
	a := g.with(t, "node_modules/@s/a",
		file{name: "package/bin/one", body: "#!"}, file{name: "package/bin/sub/two.js", body: "#!"},
		file{name: "package/package.json", body: "\ufeff" + `{"name": "@s/a", "scripts": {"test": "x"}, "directories": {"bin": "./bin"}, "readme": "long"}`},
		file{name: "package/npm-shrinkwrap.json", body: "{}"},
		file{name: "package/node_modules/b/package.json", body: `{"name": "b", "dependencies": {"c": "1"}}`},
		file{name: "package/node_modules/b/binding.gyp", body: "{}"},
		file{name: "package/node_modules/own/package.json", body: `{"name": "not its own tarball's"}`})
	b := Package{At: "node_modules/@s/a/node_modules/b"}
	own := g.with(t, "node_modules/@s/a/node_modules/own", file{name: "package/package.json", body: `{"bin": "x.js", "scripts": {"install": "x"}}`})
	none := Package{At: "node_modules/@s/a/node_modules/none"}
	gone := Package{At: "node_modules/gone", From: "/gone.tgz", Integrity: sri(nil)}
	odd := g.with(t, "node_modules/odd", file{name: "package/package.json", body: `[1`})
	said, err := g.said(t, Bounds{1 << 20, 100}, a, b, own, none, odd, gone)
	if err != nil {
		t.Fatal(err)
	}
	one := said[a.At]
	if string(one.Manifest["name"]) != `"@s/a"` || one.Manifest["readme"] != nil || one.Scripts || !one.Shrinkwrap ||
		!slices.Equal(one.Programs, []string{"bin/one", "bin/sub/two.js"}) {
		t.Error(one)
	}
	if two := said[b.At]; string(two.Manifest["dependencies"]) != `{"c": "1"}` || !two.Scripts || two.Shrinkwrap {
		t.Error(two)
	}
	if three := said[own.At]; three.Manifest["name"] != nil || string(three.Manifest["bin"]) != `"x.js"` || !three.Scripts {
		t.Error(three)
	}
	if said[none.At].Manifest != nil || said[gone.At].Manifest != nil || said[odd.At].Manifest != nil {
		t.Error("what says nothing, says something")
	}
}

func TestWhatPackagesSayIsBoundedAndOfTheLocksOwnTarballs(t *testing.T) {
	g := newGate(t)
	long := g.with(t, "node_modules/a", file{name: "package/package.json", body: "{}"}, file{name: "package/x", body: strings.Repeat("x", 2<<20)})
	if _, err := g.said(t, Bounds{1 << 20, 100}, long); !errors.Is(err, errLarge) {
		t.Error(err)
	}
	if _, err := g.said(t, Bounds{4 << 20, 1}, long); !errors.Is(err, errLarge) {
		t.Error(err)
	}
	long.Integrity = sri(nil)
	if _, err := g.said(t, Bounds{4 << 20, 100}, long); err == nil || !strings.Contains(err.Error(), "not the one that the lock names") {
		t.Error(err)
	}
}
