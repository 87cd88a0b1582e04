package ingress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// version is a hop whose app says which version it is, after it has read the request.
func version(t *testing.T, name string) *hop {
	t.Helper()
	return takes(newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			time.Sleep(wait)
		}
		io.WriteString(w, name)
	})))
}

// takes lets connections move to h.
func takes(h *hop) *hop {
	l := listen(h.t, filepath.Join(h.dir, "connections")).(*net.UnixListener)
	go h.Inherit(l)
	return h
}

func (h *hop) heir() *Heir {
	h.t.Helper()
	to := func(name string) Dialer {
		return func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(h.dir, name))
		}
	}
	heir, err := NewHeir(to("connections"), to("front"))
	if err != nil {
		h.t.Fatal(err)
	}
	return heir
}

// idle waits until so many connections are idle.
func (h *hop) idle(wanted int) {
	h.t.Helper()
	eventually(h.t, "idle connections", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		n := 0
		for c := range h.conns {
			if c.movable() {
				n++
			}
		}
		return n == wanted
	})
}

// talk is one keep-alive connection of the proxy.
type talk struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

func (h *hop) talk() *talk {
	conn := h.connect()
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &talk{conn, bufio.NewReader(conn), h.t}
}

func (c *talk) send(path string) { fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: todo\r\n\r\n", path) }

func (c *talk) answer() (body string, closes bool) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(data), resp.Close
}

func (c *talk) expect(path, want string, wantClose bool) {
	c.t.Helper()
	c.send(path)
	if body, closes := c.answer(); body != want || closes != wantClose {
		c.t.Fatalf("%q, closes %v; want %q, %v", body, closes, want, wantClose)
	}
}

func TestIdleConnectionsMoveToTheNextVersion(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	used, fresh := one.talk(), one.talk()
	used.expect("/", "one", false)
	one.idle(2)
	if moved := one.HandOver(two.heir()); moved != 2 {
		t.Errorf("%d moved", moved)
	}
	used.expect("/", "two", false)
	used.expect("/", "two", false)
	fresh.expect("/", "two", false)
	// One that was opened before the name had its new meaning, and is accepted only now.
	late := one.talk()
	late.expect("/", "two", false)
	if total := one.Stats().Total; total != 1 {
		t.Errorf("the old version has seen %d requests", total)
	}
}

func TestAConnectionMovesOnAndOn(t *testing.T) {
	before := version(t, "0")
	c := before.talk()
	c.expect("/", "0", false)
	for i := 1; i <= 5; i++ {
		after := version(t, fmt.Sprint(i))
		before.idle(1)
		before.HandOver(after.heir())
		c.expect("/", fmt.Sprint(i), false)
		before = after
	}
}

func TestWhatIsUnderWayIsFinishedByTheVersionThatHasIt(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	c.send("/?wait=200ms")
	eventually(t, "the request", func() bool { return one.Stats().Open == 1 })
	one.HandOver(two.heir())
	if body, _ := c.answer(); body != "one" {
		t.Errorf("%q", body)
	}
	c.send("/")
	if body, _ := c.answer(); body != "two" {
		t.Errorf("%q", body)
	}
}

func TestAnAnswerThatHadBegunMovesItsConnectionAtItsEnd(t *testing.T) {
	end := make(chan struct{})
	one := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		<-end
	}))
	two := version(t, "two")
	c := one.talk()
	c.send("/")
	c.r.Peek(1)
	one.HandOver(two.heir())
	close(end)
	if body, closes := c.answer(); body != "one" || closes {
		t.Errorf("%q, closes %v", body, closes)
	}
	c.send("/")
	if body, _ := c.answer(); body != "two" {
		t.Errorf("%q", body)
	}
}

func TestWebSocketsStayWithTheirVersion(t *testing.T) {
	one := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(conn, r) })
	two := version(t, "two")
	conn, r := one.upgrade("websocket")
	one.HandOver(two.heir())
	conn.Write(frame(1, "still here"))
	if _, payload := readFrame(t, r); payload != "still here" {
		t.Errorf("%q", payload)
	}
}

func TestAnHTTP2RequestOnAnOldConnectionReachesTheNextVersion(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	front := &atomic.Pointer[hop]{}
	front.Store(one)
	dials := atomic.Int64{}
	client := &http.Client{Transport: &http.Transport{Protocols: protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return front.Load().connect(), nil
		}}}
	ask := func() string {
		r := request("POST", "/svc/Method", strings.NewReader("x"))
		r.Header.Set("Content-Type", "application/grpc")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if got := ask(); got != "one" {
		t.Fatal(got)
	}
	front.Store(two)
	one.HandOver(two.heir())
	for range 3 {
		if got := ask(); got != "two" {
			t.Fatal(got)
		}
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d connections: the old one is to be left after one request", n)
	}
}

func TestWithoutItsHeirTheOldVersionServesOn(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	c.expect("/", "one", false)
	heir := two.heir()
	heir.conn.Close()
	two.Close()
	one.HandOver(heir)
	c.expect("/", "one", true)
	one.HandOver(nil)
	c = one.talk()
	c.expect("/", "one", false)
	c.expect("/", "one", false)
}

func TestARequestOnAConnectionThatCannotMoveIsPassedOn(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	c.expect("/", "one", false)
	one.idle(1)
	one.mu.Lock()
	for stuck := range one.conns {
		stuck.fixed = true
	}
	one.mu.Unlock()
	one.HandOver(two.heir())
	c.expect("/", "two", true)
	if total := two.Stats().Total; total != 1 {
		t.Errorf("%d", total)
	}
}

func TestAClientThatSendsBeforeItsAnswerIsNotMoved(t *testing.T) {
	one, two := version(t, "one"), version(t, "two")
	c := one.talk()
	c.send("/?wait=100ms")
	eventually(t, "the request", func() bool { return one.Stats().Open == 1 })
	c.send("/second")
	time.Sleep(20 * time.Millisecond) // net/http takes a byte of it
	c.answer()
	one.HandOver(two.heir())
	// Its first byte is in the old version: it cannot move, so it is passed on, or was served already.
	if body, _ := c.answer(); body != "one" && body != "two" {
		t.Errorf("%q", body)
	}
}

func TestThingsOtherThanConnectionsAreNotTaken(t *testing.T) {
	h := version(t, "one")
	for range 3 {
		conn, err := net.Dial("unix", filepath.Join(h.dir, "connections"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it was answered")
		}
		conn.Close()
	}
	h.talk().expect("/", "one", false)
}

// TestNoRequestFailsAndNoneIsStaleWhileVersionsChange is the promise: clients with pools of connections, POSTs with
// bodies, one address, many switches, and every old version drained at once. As the controller does (src/vibed/controller/
// name.py), all that still drain hand over to the newest before the name leads to it.
func TestNoRequestFailsAndNoneIsStaleWhileVersionsChange(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "nm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "name")
	point := func(h *hop) {
		os.Symlink(filepath.Join(h.dir, "front"), name+".new")
		os.Rename(name+".new", name)
	}
	serving := version(t, "0")
	point(serving)
	var switched atomic.Int64
	transport := &http.Transport{MaxIdleConnsPerHost: 32, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", name)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	stop, requests := make(chan struct{}), atomic.Int64{}
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				least := switched.Load()
				size := []int{0, 10, 2000, 70000}[(n+i)%4]
				resp, err := client.Post("http://todo.localhost/", "text/plain", strings.NewReader(strings.Repeat("x", size)))
				if err != nil {
					t.Errorf("failed: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				var got int64
				fmt.Sscan(string(body), &got)
				if err != nil || resp.StatusCode != 200 || got < least {
					t.Errorf("%d %q %v; at least version %d was due", resp.StatusCode, body, err, least)
				}
				requests.Add(1)
				if n%50 == 0 {
					time.Sleep(3 * time.Millisecond) // some connections are idle at any time
				}
			}
		}()
	}
	var drains sync.WaitGroup
	var draining sync.Map
	for n := int64(1); n <= 40; n++ {
		next, before := version(t, fmt.Sprint(n)), serving
		var handing sync.WaitGroup
		draining.Store(before, nil)
		draining.Range(func(old, _ any) bool {
			handing.Add(1)
			go func() { defer handing.Done(); old.(*hop).HandOver(next.heir()) }()
			return true
		})
		handing.Wait()
		point(next)
		switched.Store(n)
		serving = next
		drains.Add(1)
		go func() {
			defer drains.Done()
			before.Drain(context.Background(), 0)
			draining.Delete(before)
			before.Close()
		}()
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	close(stop)
	clients.Wait()
	drains.Wait()
	t.Logf("%d requests, %d switches", requests.Load(), switched.Load())
}
