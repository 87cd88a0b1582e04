package supervise

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// listenUnix makes a listening socket at path, replacing one that an earlier run has left there. The path appears when it
// is complete: between bind and listen, and before its owner is set, a connection would be refused. It is bound through
// its directory's descriptor, so that it may be longer than 107 bytes; the file is not removed when it is closed.
func listenUnix(path string, mode os.FileMode, who owner) (*net.UnixListener, error) {
	fd, err := syscall.Open(filepath.Dir(path), oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer syscall.Close(fd)
	at := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + filepath.Base(path)
	if info, err := os.Lstat(at); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%s is there and is not a socket", path)
	}
	next := at + ".next"
	os.Remove(next)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(next, mode)
	if err == nil && (os.Geteuid() == 0 || who.UID != os.Geteuid() || who.GID != os.Getegid()) {
		err = os.Lchown(next, who.UID, who.GID)
	}
	if err == nil {
		err = os.Rename(next, at)
	}
	if err != nil {
		l.Close()
		os.Remove(next)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}
