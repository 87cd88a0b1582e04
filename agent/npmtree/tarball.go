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
	plain, err := unzipped(tarball)
	if err != nil {
		return err
	}
	ignores := map[string]bool{}
	t := tar.NewReader(plain)
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && !first {
			// its checksum comes last
			_, err = io.Copy(io.Discard, plain)
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

// unzipped is a tarball as tar reads it: some, of npm's early years, never were zipped.
func unzipped(tarball io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(tarball, 64<<10)
	if head, _ := buffered.Peek(2); len(head) < 2 || head[0] != 0x1f || head[1] != 0x8b {
		return buffered, nil
	}
	return gzip.NewReader(buffered)
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
