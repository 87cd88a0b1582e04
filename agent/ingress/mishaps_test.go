package ingress

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An idle connection that moved is closed by the heir's header timeout.
func TestAMovedIdleConnectionIsNotTimedOut(t *testing.T) {
	one := version(t, "one")
	two := impatient(t, "two")
	c := one.talk()
	c.expect("/", "one", false)
	one.idle(1)
	if moved := one.HandOver(two.heir()); moved != 1 {
		t.Fatal(moved)
	}
	time.Sleep(300 * time.Millisecond)
	c.expect("/", "two", false)
}

// The same for a connection that the proxy opened and did not use.
func TestAConnectionOpenedAheadIsNotTimedOut(t *testing.T) {
	one := impatient(t, "one")
	c := one.talk()
	time.Sleep(300 * time.Millisecond)
	c.expect("/", "one", false)
	// the header's time still has an end
	late := one.talk()
	time.Sleep(150 * time.Millisecond)
	io.WriteString(late, "GET / HT")
	late.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.ReadAll(late.r); err != nil {
		t.Errorf("half a head: %v", err)
	}
}

// The hand-over is taken back while connections are being woken.
func TestTakenBackWhileMoving(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	for range 300 {
		var conns []*talk
		for range 8 {
			c := one.talk()
			conns = append(conns, c)
		}
		time.Sleep(time.Millisecond)
		heir := two.heir()
		go one.HandOver(heir)
		time.Sleep(20 * time.Microsecond)
		one.HandOver(nil)
		for _, c := range conns {
			c.send("/")
		}
		for _, c := range conns {
			if body, _ := c.answer(); body != "one" && body != "two" {
				t.Errorf("%q", body)
			}
			c.Close()
		}
	}
}

// Two requests in one segment.
func TestTwoRequestsInOneSegment(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: todo\r\n\r\nGET /?wait=200ms HTTP/1.1\r\nHost: todo\r\n\r\n")
	if body, _ := c.answer(); body != "one" {
		t.Fatal(body)
	}
	eventually(t, "the second", func() bool { return one.Stats().Total == 2 })
	time.Sleep(20 * time.Millisecond)
	one.HandOver(two.heir())
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if body, _ := c.answer(); body != "one" {
		t.Errorf("%q", body)
	}
}

// A request and half of the next in one segment.
func TestOneAndAHalfRequestsInOneSegment(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	io.WriteString(c, "GET /?wait=100ms HTTP/1.1\r\nHost: todo\r\n\r\nGET / HTTP/1.1\r\nHo")
	eventually(t, "the first", func() bool { return one.Stats().Total == 1 })
	one.HandOver(two.heir())
	if body, _ := c.answer(); body != "one" {
		t.Fatal(body)
	}
	time.Sleep(20 * time.Millisecond)
	io.WriteString(c, "st: todo\r\n\r\n")
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if body, _ := c.answer(); body != "two" {
		t.Errorf("%q", body)
	}
}

// The heir's app has ended, its process has not.
func TestHeirClosedWhileARequestIsUnderWay(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	c.send("/?wait=200ms")
	eventually(t, "the request", func() bool { return one.Stats().Open == 1 })
	one.HandOver(two.heir())
	two.Close()
	if body, _ := c.answer(); body != "one" {
		t.Fatal(body)
	}
	time.Sleep(10 * time.Millisecond)
	c.expect("/", "one", true)
}

// HTTP/2 without the heir.
func TestHTTP2WithoutItsHeir(t *testing.T) {
	for _, kind := range []string{"text/plain", "application/grpc"} {
		one, two := version(t, "one"), version(t, "two")
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return net.Dial("unix", filepath.Join(one.dir, "front"))
			}}}
		first, err := client.Do(request("GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, first.Body)
		first.Body.Close()
		one.HandOver(two.heir())
		two.Close()
		r := request("POST", "/svc/Method", strings.NewReader("x"))
		r.Header.Set("Content-Type", kind)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "one" {
			t.Errorf("%s: %d %q", kind, resp.StatusCode, body)
		}
	}
}

// slowHead loses the processor just before the head is written.
type slowHead struct{ net.Conn }

func (s slowHead) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), "HTTP/1.1 101") {
		time.Sleep(30 * time.Millisecond)
	}
	return s.Conn.Write(p)
}

type pipeWriter struct {
	http.ResponseWriter
	conn net.Conn
}

func (p pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return p.conn, bufio.NewReadWriter(bufio.NewReader(p.conn), bufio.NewWriter(p.conn)), nil
}
func (p pipeWriter) Header() http.Header { return http.Header{} }

// A WebSocket that is being opened while the drain's time ends.
func TestRestartIsNotSentBeforeTheUpgrade(t *testing.T) {
	in := New(nil, nil)
	client, ours := net.Pipe()
	app, theirs := net.Pipe()
	defer app.Close()
	resp := &http.Response{Header: http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}}
	go in.tunnel(pipeWriter{conn: slowHead{ours}}, nil, newAppConn(theirs, newPool(nil)), resp)
	eventually(t, "tunnel", func() bool { return in.Stats().WebSockets == 1 })
	go in.closeTunnels()
	client.SetDeadline(time.Now().Add(3 * time.Second))
	r := bufio.NewReader(client)
	for _, want := range []string{"HTTP/1.1 101", "\x88\x11\x03\xf4"} {
		got := make([]byte, len(want))
		io.ReadFull(r, got)
		if string(got) != want {
			rest, _ := r.Peek(r.Buffered())
			t.Errorf("%q %q, not %q", got, rest, want)
		}
		for want[0] == 'H' {
			if line, err := r.ReadString('\n'); line == "\r\n" || err != nil {
				break
			}
		}
	}
}

// impatient is a version with 100 ms for headerTimeout.
func impatient(t *testing.T, name string) *hop {
	h := version(t, name)
	in := New(h.pool.dial, nil)
	in.server.ReadHeaderTimeout = 100 * time.Millisecond
	dir := t.TempDir()
	go in.Serve(listen(t, filepath.Join(dir, "front")))
	n := &hop{Ingress: in, t: t, dir: dir}
	t.Cleanup(in.Close)
	return takes(n)
}
