package pod

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"vibed.dev/agent/supervise"
)

// maxStreams bounds from how many sockets a builder's connections are carried.
const maxStreams = 8

// accepted is said on a stream when a connection has come: from then on it carries that connection's bytes alone.
const accepted = 1

// streams are the ways in and out of a builder, which has no network: sockets below /layers, at which its programs find
// the registries and whoever waits for what they make. Each connection to one is carried by one of the controller's, which
// was there before it: nothing in the pod ever connects to anything outside of it.
type streams struct {
	place func(target string) (string, error)

	mu     sync.Mutex
	coming map[string]chan *net.UnixConn
}

func newStreams(place func(string) (string, error)) *streams {
	return &streams{place: place, coming: map[string]chan *net.UnixConn{}}
}

// open listens at a socket, which others may have asked for before.
func (s *streams) open(at string) error {
	if s == nil {
		return supervise.Refusal("NotSupported", "this pod is no builder, and has no streams")
	}
	path, err := s.place(at)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming[at] != nil {
		return nil
	}
	if len(s.coming) >= maxStreams {
		return supervise.Refusal("BadRequest", "a builder has at most %d sockets", maxStreams)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	coming := make(chan *net.UnixConn)
	s.coming[at] = coming
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(5 * time.Millisecond) // out of descriptors: wait for some to be closed
				continue
			}
			coming <- conn // the next wait in the socket's backlog
		}
	}()
	return nil
}

// carry joins the next connection at a socket to the controller's, which says nothing before it is told that one has come.
func (s *streams) carry(conn net.Conn, lines io.Reader, at string) {
	s.mu.Lock()
	coming := s.coming[at]
	s.mu.Unlock()
	type piece struct {
		data []byte
		err  error
	}
	first := make(chan piece, 1)
	go func() {
		data := make([]byte, 32<<10)
		n, err := lines.Read(data)
		first <- piece{data[:n], err}
	}()
	var inner *net.UnixConn
	select {
	case <-first:
		return // whoever waited has gone
	case inner = <-coming:
	}
	defer inner.Close()
	if _, err := conn.Write([]byte{accepted}); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		begun := <-first
		if _, err := inner.Write(begun.data); err == nil && begun.err == nil {
			io.Copy(inner, lines)
		}
		inner.CloseWrite()
	}()
	_, err := io.Copy(conn, inner)
	if outer, ok := conn.(*tls.Conn); ok && (err == nil || errors.Is(err, syscall.ECONNRESET)) {
		outer.CloseWrite()
	}
	<-done
}
