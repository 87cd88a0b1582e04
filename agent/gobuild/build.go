package gobuild

import (
	"fmt"
	"go/version"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	// incomplete is how go says that go.mod, go.sum or vendor/ lack what the source needs. It would write that down itself
	// if it might.
	incomplete = regexp.MustCompile(`missing go\.sum entry|updates to go\.(?:mod|sum) needed|no required module provides package|inconsistent vendoring|import lookup disabled by -mod=|cannot find module providing package \S+: (?:import lookup|working)|is replaced but not required|go: updating go\.(?:mod|sum): `)
	needs      = regexp.MustCompile(`requires go >= (\d+\.\d+(?:\.\d+|rc\d+|beta\d+)?)`)
	// workspace is what a go.work is in the way of.
	workspace = regexp.MustCompile(`in workspace mode|go\.work|workspace modules`)
	// linkname: since Go 1.23 the linker refuses what older versions of some popular packages do.
	linkname = regexp.MustCompile(`link: .*: invalid reference to `)
	goLine   = regexp.MustCompile(`(?m)^go[ \t]+(\d+)\.(\d+)`)
)

const (
	tries     = 6
	compilers = "/layers/compilers"
)

// build compiles the package main and sends the app's folder with it.
func build(g *tool, r request) error {
	module, pattern := moduleOf(app, r.Package)
	g = g.in(module)
	binary := filepath.Join(app, r.Binary)
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return err
	}
	if r.Compilers {
		withCompilers(g)
	} else if names := cgo(g, pattern); len(names) > 0 {
		// without them many such packages compile, and fail when they are used
		return failed("", answer{Cgo: names})
	}
	ok, said, newer := compile(g, binary, pattern)
	if !ok && newer != "" {
		return failed(said, answer{Needs: newer})
	}
	names := cgo(g, pattern)
	if len(names) > 0 && !r.Compilers {
		return failed(said, answer{Cgo: names}) // go.mod did not tell of them
	}
	if !ok && len(names) > 0 {
		fmt.Fprintln(g.log, "it does not compile with what is in C: it is tried without")
		g.env["CGO_ENABLED"] = "0"
		ok, _, _ = compile(g, binary, pattern)
	}
	if !ok {
		return failed(said, answer{Cgo: names})
	}
	return send(answer{Built: true}, func(w io.Writer) error { return packed(w, app, unneeded(module)) })
}

// compile runs `go build`, and again where its own words say what would do; returns whether it did well, what it said
// last, and the version of Go that a module asks for beyond what go.mod says.
func compile(g *tool, binary, pattern string) (ok bool, said, newer string) {
	if _, err := os.Stat(filepath.Join(g.dir, "go.mod")); err != nil {
		name := moduleName(g.dir)
		fmt.Fprintf(g.log, "there is no go.mod: it is made as go mod init %s and go mod tidy do\n", name)
		if ok, said := g.run("mod", "init", name); !ok {
			return false, said, ""
		}
		if ok, said := g.run("mod", "tidy", "-e"); !ok {
			return false, said, newest(said)
		}
	}
	mod := ""
	// before Go 1.14 in go.mod, a vendor folder is only looked at when it is asked for
	if _, err := os.Stat(filepath.Join(g.dir, "vendor/modules.txt")); err == nil && old(filepath.Join(g.dir, "go.mod")) {
		mod = "-mod=vendor"
	}
	linker := []string{"-w"}
	if g.env["CGO_ENABLED"] == "1" {
		// the program runs where there are no libraries but the C library
		linker = append(linker, "-extldflags '-static-libgcc -static-libstdc++'")
	}
	unlinked := false
	for range tries {
		args := []string{"build", "-ldflags=" + strings.Join(linker, " "), "-o", binary}
		if mod != "" {
			args = append(args, mod)
		}
		args = append(args, pattern)
		fmt.Fprintf(g.log, "$ go %s\n", strings.Join(args, " "))
		if ok, said = g.run(args...); ok {
			return true, said, ""
		}
		switch newer = newest(said); {
		case newer != "":
			return false, said, newer
		case workspace.MatchString(said) && g.env["GOWORK"] == "":
			g.env["GOWORK"] = "off"
		case incomplete.MatchString(said) && mod != "-mod=mod":
			mod = "-mod=mod"
		case linkname.MatchString(said) && !unlinked:
			unlinked = true
			linker = append(linker, "-checklinkname=0")
		default:
			return false, said, ""
		}
	}
	return false, said, ""
}

// newest is the newest version of Go that modules ask for; empty where none does.
func newest(said string) string {
	found := ""
	for _, one := range needs.FindAllStringSubmatch(said, -1) {
		if found == "" || version.Compare("go"+one[1], "go"+found) > 0 {
			found = one[1]
		}
	}
	return found
}

func old(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	said := goLine.FindSubmatch(text)
	if said == nil {
		return false // Go takes it for 1.16
	}
	var major, minor int
	fmt.Sscan(string(said[1]), &major)
	fmt.Sscan(string(said[2]), &minor)
	return major == 1 && minor < 14
}

// withCompilers has gcc be found. Not by the programs of that name in bin/: they leave out debugging information, in which
// cgo reads C's types.
func withCompilers(g *tool) {
	g.env["CGO_ENABLED"] = "1"
	g.env["LD_LIBRARY_PATH"] = compilers + "/lib"
	g.env["PATH"] = compilers + "/bin:" + g.env["PATH"]
	root := compilers + "/root"
	found, _ := filepath.Glob(root + "/usr/bin/*-linux-gnu-gcc")
	for _, gcc := range found {
		options := " --sysroot=" + root + " -B" + root + "/usr/bin/"
		g.env["CC"] = gcc + options
		g.env["CXX"] = strings.TrimSuffix(gcc, "gcc") + "g++" + options
	}
}

// cgo lists the packages that would be compiled by a C compiler; none where they cannot be listed.
func cgo(g *tool, pattern string) []string {
	if _, err := os.Stat(filepath.Join(g.dir, "go.mod")); err != nil {
		return nil
	}
	with := g.in(g.dir)
	with.env["CGO_ENABLED"] = "1"
	return strings.Fields(with.output("list", "-deps", "-f", "{{if and .CgoFiles (not .Standard)}}{{.ImportPath}}{{end}}", pattern))
}

// unneeded are the folders that the program does not need to run.
func unneeded(module string) []string {
	folders := []string{filepath.Join(app, ".git")}
	if _, err := os.Stat(filepath.Join(module, "vendor/modules.txt")); err == nil {
		folders = append(folders, filepath.Join(module, "vendor"))
	}
	return folders
}
