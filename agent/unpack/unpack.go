// Package unpack extracts a source (a gzipped tarball, or a plain one) into a directory and never writes, follows or links outside.
package unpack

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
	"unsafe"
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
	root, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, &Error{InjectFailed, "", fmt.Sprintf("%s: %v", dir, err)}
	}
	x := &extraction{root: root, o: o, dirs: map[string]int{}, files: map[string]struct{}{}, buf: make([]byte, bufferBytes)}
	defer x.close()
	if err := x.run(r); err != nil {
		return x.result, err
	}
	return x.result, nil
}

type extraction struct {
	root   int
	o      Options
	dirs   map[string]int      // open directories by their path below root
	files  map[string]struct{} // regular files that were written
	buf    []byte
	result Result
}

func (x *extraction) close() {
	x.closeDirs()
	closeFD(x.root)
}

func (x *extraction) closeDirs() {
	for _, fd := range x.dirs {
		closeFD(fd)
	}
	clear(x.dirs)
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
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
				return &Error{DiskFull, h.Name, "no space left on the sandbox's disk"}
			}
			return &Error{InjectFailed, h.Name, err.Error()}
		}
	}
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
		if rel != "" {
			_, err = x.dir(rel, true)
		}
		return err
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

// dir returns a descriptor of a directory below the root, made if need be, reached without following any link.
func (x *extraction) dir(rel string, create bool) (int, error) {
	if rel == "" || rel == "." {
		return x.root, nil
	}
	if fd, ok := x.dirs[rel]; ok {
		return fd, nil
	}
	parent, err := x.dir(path.Dir(rel), create)
	if err != nil {
		return -1, err
	}
	name := path.Base(rel)
	const flags = oPath | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	fd, err := openat(parent, name, flags, 0)
	if err == syscall.ENOENT && create {
		if err = syscall.Mkdirat(parent, name, 0o755); err != nil {
			return -1, err
		}
		fd, err = openat(parent, name, flags, 0)
	}
	switch err {
	case nil:
	case syscall.ENOTDIR, syscall.ELOOP:
		return -1, refuse("%q is a link or a file, not a directory", rel)
	default:
		return -1, err
	}
	if len(x.dirs) >= maxDirs {
		// The caller holds at most the directory that is returned; its parents are opened again when needed.
		x.closeDirs()
	}
	x.dirs[rel] = fd
	return fd, nil
}

func (x *extraction) file(rel string, content io.Reader, executable bool, mtime time.Time) error {
	parent, err := x.dir(path.Dir(rel), true)
	if err != nil {
		return err
	}
	mode := uint32(0o644)
	if executable {
		mode = 0o755
	}
	fd, err := openat(parent, path.Base(rel), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
	if err == syscall.EEXIST {
		return refuse("the name occurs twice")
	}
	if err != nil {
		return err
	}
	defer closeFD(fd)
	for {
		n, readErr := content.Read(x.buf)
		if x.o.MaxBytes > 0 && x.result.Bytes+int64(n) > x.o.MaxBytes {
			return &Error{DiskFull, "", fmt.Sprintf("more than %d bytes", x.o.MaxBytes)}
		}
		if err := writeAll(fd, x.buf[:n]); err != nil {
			return err
		}
		x.result.Bytes += int64(n)
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return damaged(readErr)
		}
	}
	x.result.Files++
	x.files[rel] = struct{}{}
	return touch(fd, mtime)
}

func (x *extraction) symlink(rel, target string) error {
	if rel == "" {
		return refuse("a link without a name")
	}
	if err := within(rel, target); err != nil {
		if ofATool(rel) {
			return nil // The reader in Python has told the user.
		}
		return err
	}
	parent, err := x.dir(path.Dir(rel), true)
	if err != nil {
		return err
	}
	if err := symlinkat(target, parent, path.Base(rel)); err == syscall.EEXIST {
		return refuse("the name occurs twice")
	} else if err != nil {
		return err
	}
	x.result.Files++
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

// link copies an earlier member: the app's files have no hidden second names.
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
	parent, err := x.dir(path.Dir(source), false)
	if err != nil {
		return err
	}
	fd, err := openat(parent, path.Base(source), syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), source)
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	return x.file(rel, in, info.Mode()&0o111 != 0, info.ModTime())
}

// The system calls that every file costs are made raw, without telling the scheduler: they are short, and under gVisor
// the hand-over between threads that a slow call sets off costs more than the call.

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		b = b[n:]
	}
	return nil
}

func closeFD(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	for {
		fd, _, e := syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags), uintptr(mode), 0, 0)
		if e == 0 {
			return int(fd), nil
		}
		if e != syscall.EINTR {
			return -1, e
		}
	}
}

func symlinkat(target string, dir int, name string) error {
	t, err := syscall.BytePtrFromString(target)
	if err != nil {
		return err
	}
	n, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, e := syscall.Syscall(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(t)), uintptr(dir), uintptr(unsafe.Pointer(n))); e != 0 {
		return e
	}
	return nil
}

// touch keeps a file's time of change, which Python compares with the one that a compiled module remembers.
func touch(fd int, t time.Time) error {
	if t.IsZero() || t.Unix() < 0 {
		return nil
	}
	times := [2]syscall.Timespec{syscall.NsecToTimespec(t.UnixNano()), syscall.NsecToTimespec(t.UnixNano())}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}
