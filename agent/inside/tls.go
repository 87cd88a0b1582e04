package inside

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"time"
)

// language is what the app's port speaks. Nothing is sent to find out: its first answer shows it. A server that wants
// TLS answers a plain request with an alert, with a sentence, or by closing. If it then takes a TLS handshake, it is
// spoken to with TLS from the next request on: inside the sandbox its certificate is of no account, since the visitor's
// TLS ends in front of vibeD.
type language int

const (
	unknown language = iota
	plain
	overTLS
)

const handshakeTimeout = 5 * time.Second

// wantsTLS says whether an answer to plain HTTP, or the lack of one, could be that of a server that speaks TLS.
func wantsTLS(answer []byte) bool {
	alert := len(answer) >= 3 && answer[0] == 21 && answer[1] == 3
	refused := bytes.HasPrefix(answer, []byte("HTTP/1.")) && (bytes.Contains(answer, []byte("HTTP request to an HTTPS server")) ||
		bytes.Contains(answer, []byte("plain HTTP request was sent to HTTPS port")))
	return len(answer) == 0 || alert || refused
}

// tlsHalf is a TLS connection whose directions end one by one.
type tlsHalf struct {
	*tls.Conn
	raw *net.TCPConn
}

func (t tlsHalf) CloseRead() error { return t.raw.CloseRead() }

// secured speaks TLS on a connection to the app.
func secured(to *net.TCPConn) (conn, error) {
	c := tls.Client(to, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		_ = to.Close()
		return nil, err
	}
	return tlsHalf{c, to}, nil
}

// heardFirst settles what the app speaks, by its first answer; empty when it closed without one.
func (r *relay) heardFirst(answer []byte) {
	if !wantsTLS(answer) {
		r.settle(plain)
		return
	}
	to := r.dialTCP()
	if to == nil {
		return // it is not there any more: that says nothing
	}
	c, err := secured(to)
	if err != nil {
		r.settle(plain)
		return
	}
	_ = c.Close()
	if r.settle(overTLS) && r.tell != nil {
		r.tell("the app speaks TLS on its port: it is spoken to with TLS from now on. Plain HTTP is enough here, visitors' TLS ends in front of it")
	}
}

// settle is true for the first who does.
func (r *relay) settle(l language) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.speaks != unknown {
		return false
	}
	r.speaks = l
	return true
}
