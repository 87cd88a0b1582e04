package inside

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// knock is how it is found out that a request would be answered: a connection to the app on which nothing is sent. A
// socket that listens proves little, since the kernel takes connections for it before any process does (a master binds
// before its workers have imported the app; a script binds and then loads a model). A connection that a process has
// taken proves that somebody is there to serve it (unless that one only hands connections on: cluster.go). It is not
// wasted either: it carries the app's first request, so that an app sees not one connection more than it has visitors.
type knock struct {
	port     int
	conn     *net.TCPConn
	from, to netip.AddrPort
	since    time.Time

	// of a cluster alone:
	deaths   int       // how many workers had ended before
	handedOn time.Time // when a worker had it first
}

// knockAt connects; nil when the app does not let it.
func knockAt(port int, targets []string) *knock {
	for _, t := range targets {
		c, err := net.DialTimeout("tcp", t, time.Second)
		if err != nil {
			continue
		}
		return &knock{port: port, conn: c.(*net.TCPConn), from: unmapped(c.LocalAddr()), to: unmapped(c.RemoteAddr()), since: time.Now()}
	}
	return nil
}

func unmapped(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// drop closes the connection, if there is one.
func (k *knock) drop() {
	if k != nil {
		_ = k.conn.Close()
	}
}

// deferredAfter is how long the kernel may keep a connection back for a server that asked for those only that have sent
// something (TCP_DEFER_ACCEPT), until we believe that it does.
const deferredAfter = time.Second

// answered says whether a process has taken the connection, by the kernel's tables: it has an inode from then on.
func (k *knock) answered(sockets []socket) bool {
	for _, s := range sockets {
		if s.addr == k.to && s.peer == k.from {
			if s.state == stateSynReceived {
				return time.Since(k.since) > deferredAfter
			}
			return s.inode != 0 || k.heard()
		}
	}
	// It is not there any more, or has not come into the table yet.
	return k.heard()
}

// heard says whether the app has said or closed something on it.
func (k *knock) heard() bool {
	h := hearing(k.conn)
	return h == spoken || h == ended
}

// inodes are those of the app's end of the connection.
func (k *knock) inodes(sockets []socket) []uint64 {
	for _, s := range sockets {
		if s.addr == k.to && s.peer == k.from && s.inode != 0 {
			return []uint64{s.inode}
		}
	}
	return nil
}

type heard int

const (
	silent heard = iota // open, and nothing has come
	spoken              // something has come
	ended               // the app has closed it
	broken              // reset: nobody ever had it
)

// hearing looks at a connection without taking anything from it.
func hearing(c *net.TCPConn) heard {
	raw, err := c.SyscallConn()
	if err != nil {
		return broken
	}
	state := broken
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		switch n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); {
		case err == nil && n > 0:
			state = spoken
		case err == nil:
			state = ended
		case err == syscall.EAGAIN || err == syscall.EINTR:
			state = silent
		}
	})
	return state
}

// holders lists the processes that have one of the sockets with these inodes open: more than one share it, as a master
// and its workers do.
func holders(who Identity, inodes []uint64) []int {
	var links []string
	for _, i := range inodes {
		links = append(links, "socket:["+strconv.FormatUint(i, 10)+"]")
	}
	var out []int
	_ = lockedAs(who, func() error { // the descriptors of a process are its user's to see
		for _, pid := range processes() {
			dir := "/proc/" + strconv.Itoa(pid) + "/fd"
			descriptors, _ := os.ReadDir(dir)
			for _, d := range descriptors {
				if link, err := os.Readlink(dir + "/" + d.Name()); err == nil && strings.HasPrefix(link, "socket:") && slices.Contains(links, link) {
					out = append(out, pid)
					break
				}
			}
		}
		return nil
	})
	return out
}

// processes lists those of the sandbox, but the agent.
func processes() []int {
	var out []int
	all, _ := os.ReadDir("/proc")
	for _, p := range all {
		if pid, err := strconv.Atoi(p.Name()); err == nil && pid != os.Getpid() {
			out = append(out, pid)
		}
	}
	return out
}

// inodesOf are the sockets that listen on a port.
func inodesOf(listening []socket, port int) []uint64 {
	var out []uint64
	for _, s := range listening {
		if int(s.addr.Port()) == port {
			out = append(out, s.inode)
		}
	}
	return out
}
