package ingress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// hop is an ingress in front of an app, both on Unix sockets.
type hop struct {
	*Ingress
	t      *testing.T
	dir    string
	client *http.Client
}

func newHop(t *testing.T, app http.Handler) *hop {
	t.Helper()
	h := emptyHop(t)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: app, Protocols: protocols}
	go server.Serve(listen(t, filepath.Join(h.dir, "app")))
	t.Cleanup(func() { server.Close() })
	return h
}

// rawHop has an app that is given each connection as it is.
func rawHop(t *testing.T, app func(conn net.Conn, r *bufio.Reader)) *hop {
	t.Helper()
	h := emptyHop(t)
	l := listen(t, filepath.Join(h.dir, "app"))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); app(conn, bufio.NewReader(conn)) }()
		}
	}()
	return h
}

func emptyHop(t *testing.T) *hop {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "in")
	if err != nil {
		t.Fatal(err)
	}
	h := &hop{t: t, dir: dir}
	h.Ingress = New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "app"))
	}, nil)
	go h.Serve(listen(t, filepath.Join(dir, "front")))
	h.client = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(dir, "front"))
		},
		ExpectContinueTimeout: 3 * time.Second, DisableCompression: true, MaxIdleConnsPerHost: 100,
	}}
	t.Cleanup(func() { h.client.CloseIdleConnections(); h.Close(); os.RemoveAll(dir) })
	return h
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (h *hop) connect() net.Conn {
	conn, err := net.Dial("unix", filepath.Join(h.dir, "front"))
	if err != nil {
		h.t.Error(err)
		return nil
	}
	return conn
}

// exchange sends text and reads until the other side closes.
func (h *hop) exchange(text string) string {
	h.t.Helper()
	conn := h.connect()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(conn, text)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func (h *hop) do(r *http.Request) (*http.Response, string) {
	h.t.Helper()
	resp, err := h.client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp, string(body)
}

func request(method, path string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, "http://todo.localhost"+path, body)
	if err != nil {
		panic(err)
	}
	return r
}

func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not come about", what)
		}
	}
}

func TestHeadersPassUnchangedExceptTheHopsOwn(t *testing.T) {
	got := make(chan string, 1)
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		var head strings.Builder
		for {
			line, err := r.ReadString('\n')
			if head.WriteString(line); err != nil || line == "\r\n" {
				break
			}
		}
		got <- head.String()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-App: a\r\nX-App: b\r\nKeep-Alive: timeout=5\r\nConnection: X-Gone\r\nX-Gone: 1\r\nContent-Length: 2\r\n\r\nok")
	})
	answer := h.exchange("GET /a%2Fb?x=;&y=%zz HTTP/1.1\r\nHost: todo.localhost:18080\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n" +
		"X-Forwarded-Host: h\r\nCookie: a=b; c=d\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nTE: trailers, gzip\r\nKeep-Alive: x\r\nProxy-Authorization: p\r\n\r\n")
	head := <-got
	if !strings.HasPrefix(head, "GET /a%2Fb?x=;&y=%zz HTTP/1.1\r\nHost: todo.localhost:18080\r\n") {
		t.Errorf("request line: %q", head)
	}
	for _, want := range []string{"X-Forwarded-For: 10.0.0.1\r\n", "X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: h\r\n", "Cookie: a=b; c=d\r\n", "Te: trailers\r\n"} {
		if !strings.Contains(head, want) {
			t.Errorf("lacks %q in %q", want, head)
		}
	}
	for _, not := range []string{"X-Mine", "Connection", "Keep-Alive", "Proxy-Auth", "User-Agent", "Accept-Encoding", "gzip"} {
		if strings.Contains(head, not) {
			t.Errorf("has %q in %q", not, head)
		}
	}
	if !strings.Contains(answer, "X-App: a\r\nX-App: b\r\n") || strings.Contains(answer, "X-Gone") || !strings.Contains(answer, "Content-Type: \r\n") {
		t.Errorf("response %q", answer)
	}
}

func TestLargeBodiesStreamBothWays(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		sum := sha256.New()
		n, _ := io.Copy(io.MultiWriter(w, sum), r.Body)
		w.Header().Set(http.TrailerPrefix+"X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
		_ = n
	}))
	data := make([]byte, 20<<20)
	rand.Read(data)
	for name, body := range map[string]io.Reader{"with a length": bytes.NewReader(data), "chunked": struct{ io.Reader }{bytes.NewReader(data)}} {
		resp, got := h.do(request("POST", "/", body))
		if got != string(data) {
			t.Errorf("%s: %d bytes came back", name, len(got))
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(data)); resp.Trailer.Get("X-Sum") != sum {
			t.Errorf("%s: trailer %v", name, resp.Trailer)
		}
	}
}

func TestRequestTrailersReachTheApp(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, r.Trailer.Get("X-End"))
	}))
	r := request("POST", "/", struct{ io.Reader }{strings.NewReader("body")})
	r.Trailer = http.Header{"X-End": {"here"}}
	if _, body := h.do(r); body != "here" {
		t.Errorf("%q", body)
	}
}

func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan string)
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for event := range next {
			io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	}))
	resp, err := h.client.Do(request("GET", "/", nil)) // returns on the headers alone
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 3 {
		event := fmt.Sprintf("data: %d\n\n", i)
		next <- event
		buf := make([]byte, len(event))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != event {
			t.Fatalf("%q %v", buf, err)
		}
	}
	if h.Stats().Open != 1 {
		t.Errorf("%d open", h.Stats().Open)
	}
	close(next)
}

func TestExpectContinueIsTheAppsDecision(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}))
	for path, want := range map[string]string{"/no": "403 ", "/yes": "200 100000"} {
		body := &countingReader{r: strings.NewReader(strings.Repeat("x", 100000))}
		r := request("PUT", path, body)
		r.ContentLength = 100000
		r.Header.Set("Expect", "100-continue")
		resp, text := h.do(r)
		if got := fmt.Sprintf("%d %s", resp.StatusCode, text); got != want {
			t.Errorf("%s: %s", path, got)
		}
		if path == "/no" && body.n.Load() != 0 {
			t.Errorf("%d bytes were sent to an app that does not want them", body.n.Load())
		}
	}
}

type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestAnAppMayAnswerBeforeTheBodyIsThere(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too large")
	}))
	conn := h.connect()
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: todo\r\nContent-Length: 100000000\r\n\r\nthe first bytes")
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatalf("%v %v", resp, err)
	}
	body := make([]byte, 9)
	if _, err := io.ReadFull(resp.Body, body); err != nil || string(body) != "too large" {
		t.Errorf("%q %v", body, err)
	}
	eventually(t, "end of the request", func() bool { return h.Stats().Open == 0 })
}

func TestInformationalResponsesPass(t *testing.T) {
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	answer := h.exchange("GET / HTTP/1.1\r\nHost: todo\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n") || strings.Count(answer, "Link:") != 1 || !strings.HasSuffix(answer, "ok") {
		t.Errorf("%q", answer)
	}
}

func TestADeadAppIsA502ThatSaysSo(t *testing.T) {
	h := emptyHop(t)
	resp, body := h.do(request("GET", "/", nil))
	var said struct {
		Code    string
		Details struct{ Retryable bool }
	}
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 502 || resp.Header.Get("X-Vibed-Error") != "AppUnreachable" || said.Code != "AppUnreachable" || !said.Details.Retryable {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
}

func TestNoRequestIsSentTwice(t *testing.T) {
	var seen atomic.Int64
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		// Good for one request a connection; the second one it reads, and hangs up.
		for i := 0; ; i++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			seen.Add(1)
			if i > 0 {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	sent, failed := int64(0), 0
	for range 20 {
		for _, r := range []*http.Request{request("GET", "/", nil), request("PUT", "/", strings.NewReader("x"))} {
			r.Header.Set("Idempotency-Key", "k") // Go's transport would take it for permission
			resp, body := h.do(r)
			sent++
			if resp.StatusCode == 502 {
				failed++
				if !strings.Contains(body, `"retryable":false`) {
					t.Errorf("told to repeat it: %s", body)
				}
			}
		}
	}
	if seen.Load() != sent || failed != 20 {
		t.Errorf("%d requests sent, %d seen, %d failed", sent, seen.Load(), failed)
	}
}

func TestAConnectionThatTheAppHasClosedIsNotUsed(t *testing.T) {
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		// Says keep-alive, and closes all the same.
		if req, err := http.ReadRequest(r); err == nil {
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	for range 50 {
		if resp, _ := h.do(request("POST", "/", strings.NewReader("x"))); resp.StatusCode != 200 {
			t.Fatalf("%d", resp.StatusCode)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestABrokenResponseBreaksOff(t *testing.T) {
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
	})
	resp, err := h.client.Do(request("GET", "/", nil))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a part was passed off as the whole")
	}
	h2 := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X-Endless: "+strings.Repeat("x", 1000)+"\r\n", 2000))
	})
	if resp, _ := h2.do(request("GET", "/", nil)); resp.StatusCode != 502 {
		t.Errorf("endless headers: %d", resp.StatusCode)
	}
}

func TestAClientThatGoesAwayTakesItsRequestWithIt(t *testing.T) {
	cancelled := make(chan struct{}, 2)
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		cancelled <- struct{}{}
	}))
	conn := h.connect()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: todo\r\n\r\n")
	eventually(t, "request", func() bool { return h.Stats().Open == 1 })
	time.Sleep(20 * time.Millisecond)
	conn.Close()
	<-cancelled
	conn = h.connect()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: todo\r\nContent-Length: 100000\r\n\r\nonly a part")
	time.Sleep(50 * time.Millisecond)
	conn.Close()
	<-cancelled
	eventually(t, "end of the requests", func() bool { return h.Stats().Open == 0 })
}

func TestAmbiguousRequestsDoNotPass(t *testing.T) {
	var seen atomic.Int64
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		seen.Add(1)
	}))
	for _, text := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n",
		"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
	} {
		if answer := h.exchange(text); !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 501") {
			t.Errorf("%.60q: %.60q", text, answer)
		}
	}
	if seen.Load() != 0 {
		t.Errorf("%d reached the app", seen.Load())
	}
	// Length and chunks together: the chunks count, and the app is told of them alone.
	h.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if seen.Load() != 1 {
		t.Errorf("%d requests instead of 1", seen.Load())
	}
}

func TestGRPCStreamsAndTrailersOverHTTP2(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Host != "todo.localhost" || r.Header.Get("Te") != "trailers" || r.Header.Get("X-Forwarded-For") != "1.2.3.4" {
			t.Errorf("%s %s %v", r.Proto, r.Host, r.Header)
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc")
		w.(http.Flusher).Flush()
		buf := make([]byte, 4)
		for {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				break
			}
			w.Write(buf)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	clientOf := func(h *hop) *http.Client {
		return &http.Client{Transport: &http.Transport{Protocols: protocols,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return h.connect(), nil }}}
	}
	reader, writer := io.Pipe()
	r := request("POST", "/svc/Method", reader)
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	r.Header.Set("X-Forwarded-For", "1.2.3.4")
	resp, err := clientOf(h).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 4)
	for _, message := range []string{"ping", "pong"} {
		io.WriteString(writer, message)
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != message {
			t.Fatalf("%q %v", buf, err)
		}
	}
	writer.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	// Plain HTTP/2 goes to the app as HTTP/1.1.
	plain := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Proto, " ", n)
	}))
	resp, err = clientOf(plain).Do(request("POST", "/", strings.NewReader(strings.Repeat("x", 100000))))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "HTTP/1.1 100000" {
		t.Errorf("%q", body)
	}
}

func TestAFullAcceptQueueIsWaitedFor(t *testing.T) {
	h := emptyHop(t)
	// Not accepting yet: the kernel's queue fills up, and connect fails with EAGAIN.
	l := listen(t, filepath.Join(h.dir, "app"))
	raw, _ := l.(*net.UnixListener).SyscallConn()
	raw.Control(func(fd uintptr) { shortBacklog(fd) })
	results := make(chan int, 20)
	for range 20 {
		go func() {
			resp, err := h.client.Do(request("GET", "/", nil))
			if err != nil {
				results <- 0
				return
			}
			resp.Body.Close()
			results <- resp.StatusCode
		}()
	}
	time.Sleep(50 * time.Millisecond)
	go http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 20 {
		if status := <-results; status != 200 {
			t.Errorf("status %d", status)
		}
	}
}
