package npmtree

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"
)

// member is a file of a package, as npm unpacks it (pacote's fetcher.js, and tar's unpack.js).
type member struct {
	name       string
	executable bool
	content    io.Reader
}

// members hears of each file of a tarball. npm leaves out links, devices and folders, takes the first part off each name
// whatever that is, and has .gitignore be .npmignore where there is none before it.
func members(tarball io.Reader, hear func(member) error) error {
	zipped, err := gzip.NewReader(bufio.NewReaderSize(tarball, 64<<10))
	if err != nil {
		return err
	}
	ignores := map[string]bool{}
	t := tar.NewReader(zipped)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			// its checksum comes last
			_, err = io.Copy(io.Discard, zipped)
			return err
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader && (h.PAXRecords["path"] != "" || h.PAXRecords["size"] != "") {
			return errors.New("names for all of its files at once")
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeCont {
			continue
		}
		name, err := stripped(h.Name)
		if err != nil {
			return err
		}
		switch path.Base(name) {
		case ".npmignore":
			ignores[name] = true
		case ".gitignore":
			name = strings.TrimSuffix(name, ".gitignore") + ".npmignore"
			if ignores[name] {
				continue
			}
		}
		if err := hear(member{name, h.Mode&0o111 != 0, t}); err != nil {
			return err
		}
	}
}

// stripped is a name without its first part, and without those that lead nowhere ("package/./index.js").
func stripped(name string) (string, error) {
	_, rest, below := strings.Cut(name, "/")
	if strings.Contains(rest, "./") && !strings.Contains("/"+rest+"/", "/../") {
		rest = path.Clean(rest)
	}
	if !below || !proper(rest) || !utf8.ValidString(rest) || strings.HasSuffix(name, "/") {
		return "", fmt.Errorf("a file %q", name)
	}
	return rest, nil
}
