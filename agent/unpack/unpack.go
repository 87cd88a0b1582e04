// Package unpack extracts a source (a gzipped tarball, or a plain one) into a directory or an EROFS image, and never
// writes, follows or links outside.
package unpack

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// Code is a stable, machine-readable reason.
type Code string

const (
	// InjectFailed: the archive is damaged, or holds what is refused.
	InjectFailed Code = "InjectFailed"
	// DiskFull: the file system, or the bound on bytes, is exhausted.
	DiskFull Code = "DiskFull"
)

// Error is why an extraction ended. What was written before it stays; the sandbox is to be destroyed.
type Error struct {
	Code    Code
	Member  string
	Message string
}

func (e *Error) Error() string {
	if e.Member == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: %q: %s", e.Code, e.Member, e.Message)
}

// Options bound and shape an extraction.
type Options struct {
	Strip    string // a prefix that is removed from every name; members outside of it are skipped
	MaxBytes int64  // of file content, 0: no bound but the file system's
	MaxFiles int    // members of any kind, 0: no bound
	Plain    bool   // the tarball is not gzipped
	Beyond   string // an absolute folder that links may lead to as well, "": none
}

// Result says what was extracted.
type Result struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

const (
	oPath         = 0x200000
	maxName       = 4096
	maxDirs       = 256 // directories held open at a time
	bufferBytes   = 64 << 10
	maxTrailBytes = 1 << 20
)

// Extract reads a tar.gz (or, with o.Plain, a tar) from r into dir. The calling thread's credentials own the files.
func Extract(r io.Reader, dir string, o Options) (Result, error) {
	t, err := openTree(dir)
	if err != nil {
		return Result{}, &Error{InjectFailed, "", fmt.Sprintf("%s: %v", dir, err)}
	}
	defer t.close()
	x := &extraction{sink: t, o: o, files: map[string]struct{}{}}
	err = x.run(r)
	return x.result, err
}

// sink takes in what an archive holds. Names are below its root; none may lead through a link, or be there already.
type sink interface {
	directory(name string) error
	file(name string, content io.Reader, executable bool, mtime time.Time) error
	symlink(name, target string) error
	// hardlink gives an earlier file another name, under which it must not change with the other. count wraps what is
	// read where it has to be written again.
	hardlink(name, earlier string, count func(io.Reader) io.Reader) error
}

type extraction struct {
	sink   sink
	o      Options
	files  map[string]struct{} // regular files that were written
	result Result
}

func (x *extraction) run(r io.Reader) error {
	in := bufio.NewReaderSize(r, bufferBytes)
	if x.o.Plain {
		// nothing in a plain tarball tells that it was cut short between two members: who sends it has to say that it
		// came to its end
		if err := x.members(tar.NewReader(in)); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			return damaged(err)
		}
		return nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return damaged(err)
	}
	z.Multistream(false)
	if err := x.members(tar.NewReader(z)); err != nil {
		return err
	}
	// The checksum comes last: a truncated archive can end exactly where a member does.
	if n, err := io.CopyN(io.Discard, z, maxTrailBytes); err != nil && err != io.EOF {
		return damaged(err)
	} else if n == maxTrailBytes {
		return &Error{InjectFailed, "", "data after the end of the archive"}
	}
	for {
		b, err := in.ReadByte()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		if b != 0 {
			return &Error{InjectFailed, "", "data after the end of the archive"}
		}
	}
}

func (x *extraction) members(t *tar.Reader) error {
	for n := 1; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		if x.o.MaxFiles > 0 && n > x.o.MaxFiles {
			return &Error{DiskFull, "", fmt.Sprintf("more than %d files", x.o.MaxFiles)}
		}
		if err := x.member(h, t); err != nil {
			var e *Error
			if errors.As(err, &e) {
				if e.Member == "" {
					e.Member = h.Name
				}
				return e
			}
			return full(err, h.Name)
		}
	}
}

// full tells a file system without space from what is wrong with the archive.
func full(err error, member string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Error{DiskFull, member, "no space left on the sandbox's disk"}
	case errors.Is(err, ErrClash):
		return err
	}
	return &Error{InjectFailed, member, err.Error()}
}

func damaged(err error) error {
	return &Error{InjectFailed, "", "the archive is damaged: " + err.Error()}
}

func refuse(format string, args ...any) error {
	return &Error{InjectFailed, "", fmt.Sprintf(format, args...)}
}

// place turns a member's name into a path below the root, "" for the root itself; ok is false outside of the prefix.
func (x *extraction) place(name string) (rel string, ok bool, err error) {
	if len(name) > maxName {
		return "", false, refuse("the name is longer than %d bytes", maxName)
	}
	if !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return "", false, refuse("the name is not UTF-8")
	}
	if strings.HasPrefix(name, "/") {
		return "", false, refuse("absolute path")
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return "", false, refuse("path with ..")
		}
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	prefix := strings.TrimPrefix(path.Clean("/"+x.o.Strip), "/")
	switch {
	case prefix == "":
		return clean, true, nil
	case clean == prefix:
		return "", true, nil
	case strings.HasPrefix(clean, prefix+"/"):
		return clean[len(prefix)+1:], true, nil
	}
	return "", false, nil
}

func (x *extraction) member(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	rel, ok, err := x.place(h.Name)
	if err != nil || !ok {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if rel == "" {
			return nil
		}
		return x.sink.directory(rel)
	case tar.TypeReg, tar.TypeGNUSparse, '\x00', tar.TypeCont:
		if rel == "" || strings.HasSuffix(h.Name, "/") {
			return refuse("a file without a name")
		}
		return x.file(rel, content, h.FileInfo().Mode()&0o111 != 0, h.ModTime)
	case tar.TypeSymlink:
		return x.symlink(rel, h.Linkname)
	case tar.TypeLink:
		return x.link(rel, h)
	}
	return refuse("a member of type %q (device, pipe or unknown)", string(rune(h.Typeflag)))
}

// counted bounds what is read of the content of files, and says of what the archive fails with that it is damaged.
type counted struct {
	x       *extraction
	content io.Reader
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.content.Read(b)
	if c.x.o.MaxBytes > 0 && c.x.result.Bytes+int64(n) > c.x.o.MaxBytes {
		return 0, &Error{DiskFull, "", fmt.Sprintf("more than %d bytes", c.x.o.MaxBytes)}
	}
	c.x.result.Bytes += int64(n)
	if err != nil && err != io.EOF {
		err = damaged(err)
	}
	return n, err
}

func (x *extraction) counted(content io.Reader) io.Reader { return counted{x, content} }

func (x *extraction) file(rel string, content io.Reader, executable bool, mtime time.Time) error {
	if err := x.sink.file(rel, x.counted(content), executable, mtime); err != nil {
		return err
	}
	x.result.Files++
	x.files[rel] = struct{}{}
	return nil
}

func (x *extraction) symlink(rel, target string) error {
	if rel == "" {
		return refuse("a link without a name")
	}
	if err := within(rel, target); err != nil && !x.beyond(target) {
		if ofATool(rel) {
			return nil // The reader in Python has told the user.
		}
		return err
	}
	if err := x.sink.symlink(rel, target); err != nil {
		return err
	}
	x.result.Files++
	return nil
}

func (x *extraction) link(rel string, h *tar.Header) error {
	source, ok, err := x.place(h.Linkname)
	if err != nil {
		return err
	}
	if _, written := x.files[source]; !ok || !written {
		return refuse("a hard link to %q, which is no earlier file", h.Linkname)
	}
	if rel == "" {
		return refuse("a link without a name")
	}
	if err := x.sink.hardlink(rel, source, x.counted); err != nil {
		return err
	}
	x.result.Files++
	x.files[rel] = struct{}{}
	return nil
}

var (
	toolFolders = regexp.MustCompile(`(?:^|/)(?:\.agents|\.claude|\.cursor|\.codex|\.gemini|\.opencode|\.windsurf|\.github|\.vscode|\.idea|` +
		`\.zed|\.fleet|\.vs|\.continue|\.kiro|\.junie|\.roo|\.augment|\.devcontainer|\.husky|\.pixi|\.conda|__pypackages__|node_modules|` +
		`\.venv|venv|virtualenv|\.virtualenv|\.tox|\.nox|\.direnv|\.devenv)/`)
	toolLinks = regexp.MustCompile(`(?:^|/)(?:bin/(?:python|pypy)[\w.-]*|lib64|node_modules/\.bin/[^/]+)$`)
)

// ofATool says whether a link is a virtual environment's or another tool's: one that leads out is left out, as by the
// reader in Python (vibed.sources.links).
func ofATool(rel string) bool { return toolFolders.MatchString(rel) || toolLinks.MatchString(rel) }

// beyond says whether a target lies where links may lead beside the root. Nothing here follows one, so that it means
// something only to whoever has both places.
func (x *extraction) beyond(target string) bool {
	return x.o.Beyond != "" && len(target) <= maxName && path.Clean(target) == target && !strings.ContainsRune(target, 0) &&
		strings.HasPrefix(target, strings.TrimSuffix(x.o.Beyond, "/")+"/")
}

// within refuses link targets that lead out of the root. After the leading ".." no further one may come: a step into
// another link and back up could end anywhere.
func within(rel, target string) error {
	if target == "" || strings.HasPrefix(target, "/") || strings.ContainsRune(target, 0) || len(target) > maxName {
		return refuse("a link to %q leads out of the source", target)
	}
	depth := strings.Count(rel, "/")
	down := false
	for _, part := range strings.Split(target, "/") {
		switch part {
		case "", ".":
		case "..":
			depth--
			if down || depth < 0 {
				return refuse("a link to %q leads out of the source", target)
			}
		default:
			down = true
		}
	}
	return nil
}
