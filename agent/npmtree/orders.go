// Package npmtree makes the image of a folder node_modules from what a lock of npm's says lies in it, as `npm ci` would:
// tarballs are fetched from the registry gate, several at once, verified, and written straight into an EROFS image. No code of
// any package runs. What it is not sure to do as npm does is an error, and npm's to do.
package npmtree

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Orders say what lies where (vibed.runtimes.layers.npm_tree plans it).
type Orders struct {
	// Packages in the order in which they are written: what is below another comes after it.
	Packages []Package `json:"packages"`
	// Lock is the text of node_modules/.package-lock.json, in which npm keeps what is there.
	Lock string `json:"lock"`
}

// Package is one of a lock.
type Package struct {
	// At is its folder: "node_modules/a/node_modules/@b/c".
	At string `json:"at"`
	// From is the path of its tarball at the gate. Empty: another package's tarball brings it along.
	From      string `json:"from"`
	Integrity string `json:"integrity"`
	// Bin are its commands: their names, and the files below At.
	Bin map[string]string `json:"bin"`
	// Scripts says that the lock tells of install scripts.
	Scripts bool `json:"scripts"`
	// Bundles says that its tarball brings others along.
	Bundles bool `json:"bundles"`
}

const modules = "node_modules"

// check refuses orders that no plan gives.
func (o *Orders) check() error {
	var before []string
	seen := map[string]bool{}
	for _, p := range o.Packages {
		if !proper(p.At) || seen[p.At] || !strings.HasPrefix(p.At, modules+"/") {
			return fmt.Errorf("no folder of a package: %q", p.At)
		}
		if p.From != "" && (!strings.HasPrefix(p.From, "/") || strings.ContainsAny(p.From, "?# \\")) {
			return fmt.Errorf("no path of a tarball: %q", p.From)
		}
		for name, file := range p.Bin {
			if !proper(file) || !proper(name) || strings.Contains(name, "/") {
				return fmt.Errorf("%s has a command %q, which is %q", p.At, name, file)
			}
		}
		if slices.ContainsFunc(before, func(one string) bool { return strings.HasPrefix(one, p.At+"/") }) {
			return fmt.Errorf("%s comes after what is below it", p.At)
		}
		seen[p.At] = true
		before = append(before, p.At)
	}
	return nil
}

// proper says whether a path leads below a folder, in one way only.
func proper(name string) bool {
	return name != "" && name != "." && !strings.HasPrefix(name, "/") && path.Clean(name) == name &&
		name != ".." && !strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\\\x00")
}

// home is the folder node_modules in which a package lies.
func home(at string) string {
	return at[:strings.LastIndex("/"+at, "/"+modules+"/")+len(modules)]
}
