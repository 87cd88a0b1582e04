package unpack

import (
	"io"
	"os"
	"path"
	"syscall"
	"time"
	"unsafe"
)

// tree is a directory that an archive is extracted into.
type tree struct {
	root int
	dirs map[string]int // open directories by their path below root
	buf  []byte
}

func openTree(dir string) (*tree, error) {
	root, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	return &tree{root: root, dirs: map[string]int{}, buf: make([]byte, bufferBytes)}, err
}

func (t *tree) close() {
	t.closeDirs()
	closeFD(t.root)
}

func (t *tree) closeDirs() {
	for _, fd := range t.dirs {
		closeFD(fd)
	}
	clear(t.dirs)
}

// dir returns a descriptor of a directory below the root, made if need be, reached without following any link.
func (t *tree) dir(rel string, create bool) (int, error) {
	if rel == "" || rel == "." {
		return t.root, nil
	}
	if fd, ok := t.dirs[rel]; ok {
		return fd, nil
	}
	parent, err := t.dir(path.Dir(rel), create)
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
	if len(t.dirs) >= maxDirs {
		// The caller holds at most the directory that is returned; its parents are opened again when needed.
		t.closeDirs()
	}
	t.dirs[rel] = fd
	return fd, nil
}

func (t *tree) directory(name string) error {
	_, err := t.dir(name, true)
	return err
}

func (t *tree) file(name string, content io.Reader, executable bool, mtime time.Time) error {
	parent, err := t.dir(path.Dir(name), true)
	if err != nil {
		return err
	}
	mode := uint32(0o644)
	if executable {
		mode = 0o755
	}
	fd, err := openat(parent, path.Base(name), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
	if err == syscall.EEXIST {
		return refuse("the name occurs twice")
	}
	if err != nil {
		return err
	}
	defer closeFD(fd)
	for {
		n, readErr := content.Read(t.buf)
		if err := writeAll(fd, t.buf[:n]); err != nil {
			return err
		}
		if readErr == io.EOF {
			return touch(fd, mtime)
		}
		if readErr != nil {
			return readErr
		}
	}
}

func (t *tree) symlink(name, target string) error {
	parent, err := t.dir(path.Dir(name), true)
	if err != nil {
		return err
	}
	err = symlinkat(target, parent, path.Base(name))
	if err == syscall.EEXIST {
		return refuse("the name occurs twice")
	}
	return err
}

// hardlink copies: the app's files have no hidden second names.
func (t *tree) hardlink(name, earlier string, count func(io.Reader) io.Reader) error {
	parent, err := t.dir(path.Dir(earlier), false)
	if err != nil {
		return err
	}
	fd, err := openat(parent, path.Base(earlier), syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), earlier)
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	return t.file(name, count(in), info.Mode()&0o111 != 0, info.ModTime())
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
