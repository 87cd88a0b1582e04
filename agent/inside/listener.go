package inside

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// socket is a row of the kernel's tables of TCP sockets.
type socket struct {
	addr  netip.AddrPort
	peer  netip.AddrPort
	state string // hexadecimal, as proc_net_tcp(5) has it
	uid   int
	inode uint64 // 0 while no process has it: of a connection, until it is accepted
}

const (
	stateEstablished = "01"
	stateSynReceived = "03"
	stateListening   = "0A"
)

// table reads all sockets of the sandbox.
func table() []socket {
	if nothingOpen("/proc/net/sockstat", "TCP: inuse 0 ") && nothingOpen("/proc/net/sockstat6", "TCP6: inuse 0\n") {
		return nil
	}
	var out []socket
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		out = append(out, parseTable(text)...)
	}
	return out
}

// nothingOpen asks the kernel's counters, where it has them: Linux walks a hash table of the whole machine for the tables
// themselves, some ten milliseconds each.
func nothingOpen(file, said string) bool {
	text, err := os.ReadFile(file)
	return err == nil && bytes.Contains(text, []byte(said))
}

// parseTable reads the format of proc_net_tcp(5): addresses in hexadecimal, each 32-bit word in host order.
func parseTable(text []byte) []socket {
	var out []socket
	for _, line := range bytes.Split(text, []byte("\n")) {
		f := bytes.Fields(line)
		if len(f) < 10 {
			continue
		}
		addr, ok := parseAddress(string(f[1]))
		peer, ok2 := parseAddress(string(f[2]))
		if !ok || !ok2 {
			continue
		}
		uid, err := strconv.Atoi(string(f[7]))
		if err != nil {
			uid = -1
		}
		inode, _ := strconv.ParseUint(string(f[9]), 10, 64)
		out = append(out, socket{addr, peer, string(f[3]), uid, inode})
	}
	return out
}

func parseAddress(text string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok
}

// listeners are the rows that listen.
func listeners(sockets []socket) []socket {
	var out []socket
	for _, s := range sockets {
		if s.state == stateListening {
			out = append(out, s)
		}
	}
	return out
}

// targets lists the addresses to dial for a port, in order.
func targets(listening []socket, port int) []string {
	var out []string
	add := func(host string) {
		if a := net.JoinHostPort(host, strconv.Itoa(port)); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, s := range listening {
		if int(s.addr.Port()) != port {
			continue
		}
		switch ip := s.addr.Addr(); {
		case ip == netip.IPv4Unspecified():
			add("127.0.0.1")
		case ip == netip.IPv6Unspecified():
			add("127.0.0.1")
			add("::1")
		default:
			add(ip.String())
		}
	}
	return out
}
