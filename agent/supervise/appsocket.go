package supervise

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

const oPath = 0x200000

// appSocket is a Unix socket that whoever is inside the sandbox has made, and may replace: by a link to a socket of the
// host, for one. It is opened without following links, looked at, and connected through the descriptor that was looked
// at; this also lifts the limit of 107 bytes.
type appSocket struct {
	path string
	mu   sync.Mutex
	dir  *os.File
}

func (a *appSocket) dial(ctx context.Context) (net.Conn, error) {
	dir, err := a.directory()
	if err != nil {
		return nil, err
	}
	fd, err := openat(int(dir.Fd()), filepath.Base(a.path))
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return nil, fmt.Errorf("what is there is not a socket but has mode %o: refused", st.Mode)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}

// directory is opened once: it belongs to the controller, only what is in it does not.
func (a *appSocket) directory() (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dir != nil {
		return a.dir, nil
	}
	fd, err := syscall.Open(filepath.Dir(a.path), oPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(a.path), Err: err}
	}
	a.dir = os.NewFile(uintptr(fd), filepath.Dir(a.path))
	return a.dir, nil
}

func openat(dir int, name string) (int, error) {
	for {
		fd, err := syscall.Openat(dir, name, oPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}
