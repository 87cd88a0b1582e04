package pod

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// stream is a connection on which the next one at a socket of a builder is carried; the code where it is refused.
func (p *pod) stream(token, at string) (*caller, string) {
	c := p.call()
	_, code := c.ask(map[string]any{"op": "stream", "token": token, "at": at})
	return c, code
}

// within is a connection that is made in the pod.
func (p *pod) within(name string) *net.UnixConn {
	p.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.path(name), Net: "unix"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

func (c *caller) accepted() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err != nil || b != accepted {
		c.t.Fatalf("it said %v %v", b, err)
	}
}

func TestWhatIsConnectedInABuilderIsCarriedToItsController(t *testing.T) {
	p := start(t, "-builder")
	p.claimed()
	const at = "/layers/out/out.sock"
	waiting, code := p.stream(token, at)
	if code != "" {
		t.Fatal(code)
	}
	inner := p.within("layers/out/out.sock")
	waiting.accepted()
	large := make([]byte, 3<<20)
	rand.Read(large)
	go func() {
		inner.Write(large)
		inner.CloseWrite()
	}()
	got, err := io.ReadAll(waiting.r)
	if err != nil || !bytes.Equal(got, large) {
		t.Fatalf("%d bytes of %d came: %v", len(got), len(large), err)
	}

	// the other way, and what comes next waits for who comes next
	early := p.within("layers/out/out.sock")
	early.Write([]byte("asked "))
	next, _ := p.stream(token, at)
	next.accepted()
	next.conn.Write([]byte("answered"))
	next.conn.CloseWrite()
	if said, _ := io.ReadAll(early); string(said) != "answered" {
		t.Errorf("it was answered %q", said)
	}
	early.Close()
	if said, _ := io.ReadAll(next.r); string(said) != "asked " {
		t.Errorf("it was asked %q", said)
	}
}

func TestWhoStopsWaitingTakesNoConnectionWithIt(t *testing.T) {
	p := start(t, "-builder")
	p.claimed()
	const at = "/layers/registry/registry.sock"
	gone, _ := p.stream(token, at)
	gone.conn.Close()
	eventually(t, "its place is free", func() bool {
		stays, code := p.stream(token, at)
		if code != "" {
			t.Fatal(code)
		}
		defer stays.conn.Close()
		inner := p.within("layers/registry/registry.sock")
		defer inner.Close()
		inner.Write([]byte("x"))
		stays.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		b, err := stays.r.ReadByte()
		return err == nil && b == accepted
	})
}

func TestStreamsAreABuildersAndItsControllersAlone(t *testing.T) {
	builder := start(t, "-builder")
	if _, code := builder.stream(token, "/layers/out/out.sock"); code != "NotClaimed" {
		t.Errorf("before the claim: %q", code)
	}
	builder.claimed()
	if _, code := builder.stream("another", "/layers/out/out.sock"); code != "WrongToken" {
		t.Errorf("with another token: %q", code)
	}
	for _, at := range []string{"/run/vibed/agent.sock", "/layers/../app/x.sock", "/layers/"} {
		if _, code := builder.stream(token, at); code != "BadRequest" {
			t.Errorf("at %s: %q", at, code)
		}
	}
	for n := range maxStreams {
		builder.stream(token, filepath.Join("/layers/many", string(rune('a'+n))))
	}
	if _, code := builder.stream(token, "/layers/many/more"); code != "BadRequest" {
		t.Errorf("one too many: %q", code)
	}
	if _, err := os.Lstat(builder.path("layers/many/more")); err == nil {
		t.Error("it listens all the same")
	}
	app := start(t)
	app.claimed()
	if _, code := app.stream(token, "/layers/out/out.sock"); code != "NotSupported" {
		t.Errorf("of an app's pod: %q", code)
	}
}
