package gobuild

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// moduleOf is the folder with the go.mod that a package below root belongs to (root itself where there is none), and the
// package as the go command is told of it there.
func moduleOf(root, pkg string) (folder, pattern string) {
	folder = filepath.Join(root, pkg)
	for at := folder; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			folder = at
			break
		}
		if at == root || at == "/" {
			folder = root
			break
		}
	}
	inner, err := filepath.Rel(folder, filepath.Join(root, pkg))
	if err != nil || inner == "." {
		return folder, "."
	}
	return folder, "./" + filepath.ToSlash(inner)
}

// moduleName is what a source without go.mod calls itself: the beginning of an import whose end is one of its own folders.
func moduleName(root string) string {
	imports := map[string]bool{}
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "vendor" || entry.Name() == "node_modules") {
			return fs.SkipDir
		}
		if entry.Type().IsRegular() && strings.HasSuffix(path, ".go") {
			if file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly); err == nil {
				for _, one := range file.Imports {
					if name, err := strconv.Unquote(one.Path.Value); err == nil {
						imports[name] = true
					}
				}
			}
		}
		return nil
	})
	counts := map[string]int{}
	for name := range imports {
		parts := strings.Split(name, "/")
		// the longest end that is a folder: a/b/c/d with c/d there is of a/b
		for at := 1; at < len(parts); at++ {
			below := filepath.Join(append([]string{root}, parts[at:]...)...)
			if found, _ := filepath.Glob(filepath.Join(below, "*.go")); len(found) > 0 {
				counts[strings.Join(parts[:at], "/")]++
				break
			}
		}
	}
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if counts[names[i]] != counts[names[j]] {
			return counts[names[i]] > counts[names[j]]
		}
		return names[i] < names[j]
	})
	if len(names) == 0 || standard(names[0]) {
		return "app"
	}
	return names[0]
}

// standard says whether a name is that of a part of the standard library, which no module may have.
func standard(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	info, err := os.Stat(filepath.Join(os.Getenv("GOROOT"), "src", first))
	return err == nil && info.IsDir()
}
