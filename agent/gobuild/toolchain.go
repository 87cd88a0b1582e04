package gobuild

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const place = "/tmp/layer"

// listed sends the versions of Go that the module proxy has, as it names them.
func listed(g *tool) error {
	g.dir = "/tmp"
	g.env["GOTOOLCHAIN"] = "local"
	ok, said := g.run("list", "-m", "-versions", "go")
	if !ok {
		return failed(said, answer{})
	}
	return send(answer{Resolution: said}, nil)
}

// install fetches a toolchain as the go command does, its hash checked with the checksum database, compiles its standard
// library into it, and sends it.
func install(g *tool, version string) error {
	g.dir = "/tmp"
	g.env["GOTOOLCHAIN"] = "go" + version
	if ok, said := g.run("version"); !ok {
		return failed(said, answer{})
	}
	root := strings.TrimSpace(g.output("env", "GOROOT"))
	if !strings.HasPrefix(root, g.env["GOPATH"]+"/") {
		return failed(fmt.Sprintf("go%s was not fetched: GOROOT is %s", version, root), answer{})
	}
	if err := owned(root); err != nil {
		return err
	}
	if err := os.Rename(root, place); err != nil {
		return err
	}
	for _, name := range []string{"api", "doc", "misc", "test"} {
		if err := os.RemoveAll(filepath.Join(place, name)); err != nil {
			return err
		}
	}
	// only what is called stays the same wherever it lies: as the template's own
	g.env["GOTOOLCHAIN"] = "local"
	g.env["GOROOT"] = place
	g.env["PATH"] = filepath.Join(place, "bin") + ":" + g.env["PATH"]
	fmt.Fprintf(g.log, "compiling the standard library of go%s\n", version)
	if ok, said := g.run("install", "std"); !ok {
		return failed(said, answer{})
	}
	return send(answer{Installed: true}, func(w io.Writer) error { return tarball(w, place, nil) })
}

// owned makes a tree writable: the module cache is read-only, which is in the way of moving it.
func owned(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}
