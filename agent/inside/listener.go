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

// socket is a listening TCP socket of the sandbox.
type socket struct {
	addr netip.AddrPort
	uid  int
}

// listening reads the kernel's tables. In a sandbox nobody listens on TCP but the app (the agent does not).
func listening() []socket {
	var out []socket
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		out = append(out, parseTable(table)...)
	}
	return out
}

// parseTable reads the format of proc_net_tcp(5): addresses in hexadecimal, each 32-bit word in host order.
func parseTable(table []byte) []socket {
	var out []socket
	for _, line := range bytes.Split(table, []byte("\n")) {
		f := bytes.Fields(line)
		if len(f) < 8 || string(f[3]) != "0A" {
			continue
		}
		host, port, ok := strings.Cut(string(f[1]), ":")
		if !ok {
			continue
		}
		raw, err := hex.DecodeString(host)
		n, err2 := strconv.ParseUint(port, 16, 16)
		if err != nil || err2 != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i < len(raw); i += 4 {
			slices.Reverse(raw[i : i+4])
		}
		ip, ok := netip.AddrFromSlice(raw)
		if !ok {
			continue
		}
		uid, err := strconv.Atoi(string(f[7]))
		if err != nil {
			uid = -1
		}
		out = append(out, socket{netip.AddrPortFrom(ip.Unmap(), uint16(n)), uid})
	}
	return out
}

const firstEphemeral = 32768 // ip_local_port_range of Linux and of gVisor

// choose picks the port that the app serves on: the wanted one, else the lowest non-ephemeral, else the lowest.
func choose(sockets []socket, wanted int) (port int, ok bool) {
	best := 0
	for _, s := range sockets {
		p := int(s.addr.Port())
		if p == wanted {
			return p, true
		}
		if best == 0 || (p < firstEphemeral) == (best < firstEphemeral) && p < best || p < firstEphemeral && best >= firstEphemeral {
			best = p
		}
	}
	return best, best != 0
}

// targets lists the addresses to dial for a port, in order.
func targets(sockets []socket, port int) []string {
	var out []string
	add := func(host string) {
		if a := net.JoinHostPort(host, strconv.Itoa(port)); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, s := range sockets {
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
