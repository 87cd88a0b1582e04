package pod

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vibed.dev/agent/inside"
	"vibed.dev/agent/sites"
)

// The test binary is also the pod, the agent beside it, the server of its site, and the app.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "pod":
			os.Exit(Main(os.Args[2:]))
		case "agent":
			os.Exit(inside.Main(os.Args[2:]))
		case "site":
			os.Exit(sites.OneMain(os.Args[2:]))
		case "app":
			app()
		}
	}
	os.Exit(m.Run())
}

// app tells what it sees.
func app() {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening")
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/env":
			json.NewEncoder(w).Encode(os.Environ())
		case "/headers":
			json.NewEncoder(w).Encode(r.Header)
		case "/say":
			fmt.Println(r.URL.Query().Get("text"))
		case "/parent":
			parent, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid()))
			w.Write(parent)
		case "/exit":
			os.Exit(3)
		default:
			text, _ := os.ReadFile(filepath.Join(".", filepath.Clean(r.URL.Path)))
			w.Write(text)
		}
	}))
}

const (
	podUID    = "6f1f5c1e-0000-4000-8000-000000000001"
	namespace = "vibed-apps"
)

// pod is one under test, at an address of loopback that is its own.
type pod struct {
	t       *testing.T
	address string
	dir     string
	key     ed25519.PrivateKey
	process *exec.Cmd
	over    chan struct{}
}

func start(t *testing.T, args ...string) *pod {
	t.Helper()
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	var where [3]byte
	rand.Read(where[:])
	p := &pod{t: t, key: private, over: make(chan struct{})}
	p.address = fmt.Sprintf("127.%d.%d.%d", 2+where[0]%250, where[1], 1+where[2]%250)
	p.dir, _ = os.MkdirTemp("/tmp", "pod")
	for _, folder := range []string{"run", "app", "home", "layers"} {
		os.Mkdir(p.path(folder), 0o755)
	}
	self, _ := os.Executable()
	p.process = exec.Command(self, append([]string{"pod", "-host", p.address, "-dir", p.path("run"), "-app", p.path("app"),
		"-home", p.path("home"), "-layers", p.path("layers"), "-zygotes", p.path("none"), "-env", p.path("none")}, args...)...)
	p.process.Env = append(os.Environ(), "VIBED_CLAIM_KEYS="+base64.StdEncoding.EncodeToString(public), "VIBED_POD_UID="+podUID,
		"VIBED_POD_NAMESPACE="+namespace, "KUBERNETES_SERVICE_HOST=10.96.0.1")
	said, _ := os.Create(p.path("said"))
	p.process.Stdout, p.process.Stderr = said, said
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.process.Wait(); said.Close(); close(p.over) }()
	t.Cleanup(func() {
		p.process.Process.Signal(os.Interrupt)
		select {
		case <-p.over:
		case <-time.After(20 * time.Second):
			p.process.Process.Kill()
			t.Error("it did not end")
		}
		if text, _ := os.ReadFile(p.path("said")); t.Failed() {
			t.Logf("it said:\n%s", text)
		}
		os.RemoveAll(p.dir)
	})
	eventually(t, "ready", func() bool { return p.probe("/readyz") == 200 })
	return p
}

func (p *pod) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pod) at(port int) string { return net.JoinHostPort(p.address, strconv.Itoa(port)) }

func (p *pod) probe(path string) int {
	answer, err := http.Get("http://" + p.at(probesPort) + path)
	if err != nil {
		return 0
	}
	answer.Body.Close()
	return answer.StatusCode
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after 30 s", what)
		}
	}
}

// caller is one connection to the control port.
type caller struct {
	t    *testing.T
	conn *tls.Conn
	r    *bufio.Reader
	id   int
}

func (p *pod) call() *caller {
	p.t.Helper()
	conn, err := tls.Dial("tcp", p.at(controlPort), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &caller{t: p.t, conn: conn, r: bufio.NewReaderSize(conn, 1<<20)}
}

// certificate is the SHA-256 of the one that it was shown.
func (c *caller) certificate() string {
	sum := sha256.Sum256(c.conn.ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

func (c *caller) send(request map[string]any) {
	c.id++
	request["id"] = c.id
	line, _ := json.Marshal(request)
	c.conn.Write(append(line, '\n'))
}

// answer is that to the last request: what is good, or the code of the error.
func (c *caller) answer() (ok json.RawMessage, code string) {
	c.t.Helper()
	for {
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			return nil, "closed"
		}
		var said struct {
			ID    int             `json:"id"`
			OK    json.RawMessage `json:"ok"`
			Error *struct {
				Code, Message string
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &said); err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		if said.ID != c.id {
			continue // an event
		}
		if said.Error != nil {
			return nil, said.Error.Code
		}
		return said.OK, ""
	}
}

func (c *caller) ask(request map[string]any) (json.RawMessage, string) {
	c.t.Helper()
	c.send(request)
	return c.answer()
}

func (c *caller) must(request map[string]any) json.RawMessage {
	c.t.Helper()
	ok, code := c.ask(request)
	if code != "" {
		c.t.Fatalf("%v: %s", request["op"], code)
	}
	return ok
}

const token = "the token of this claim"

func tokenHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (p *pod) document(c *caller) document {
	return document{addressee: addressed(c), Claim: "todo-7", TokenSHA256: tokenHash(token)}
}

func addressed(c *caller) addressee {
	return addressee{PodUID: podUID, Namespace: namespace, Certificate: c.certificate(), Expires: float64(time.Now().Add(time.Minute).Unix())}
}

func signed(key ed25519.PrivateKey, d document) string { return signedAs(domain, key, d) }

func signedAs(domain string, key ed25519.PrivateKey, what any) string {
	said, _ := json.Marshal(what)
	by := ed25519.Sign(key, append([]byte(domain), said...))
	return base64.RawURLEncoding.EncodeToString(said) + "." + base64.RawURLEncoding.EncodeToString(by)
}

// claimed is a connection of the pod's owner.
func (p *pod) claimed() *caller {
	p.t.Helper()
	c := p.call()
	c.must(map[string]any{"op": "claim", "document": signed(p.key, p.document(c))})
	return c
}

func tarball(files map[string]string) []byte {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	for name, text := range files {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
		io.WriteString(w, text)
	}
	w.Close()
	z.Close()
	return packed.Bytes()
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func (c *caller) give(data []byte) {
	c.t.Helper()
	c.send(map[string]any{"op": "source", "sha256": sum(data), "size": len(data)})
	c.conn.Write(data)
	if _, code := c.answer(); code != "" {
		c.t.Fatalf("source: %s", code)
	}
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (p *pod) order(source map[string]any, argv ...string) map[string]any {
	if len(argv) == 0 {
		self, _ := os.Executable()
		argv = []string{self, "app"}
	}
	return map[string]any{"op": "run", "app_id": "todo", "app_key": "k", "version": 3, "run": 7, "source": source, "strip": "",
		"start":  map[string]any{"argv": argv, "env": map[string]string{"GREETING": "hello"}, "port": freePort(p.t), "timeout_s": 30, "kind": "go"},
		"limits": map[string]any{"nproc": 1}}
}

// running has an app of these files.
func (p *pod) running(files map[string]string) *caller {
	p.t.Helper()
	c := p.claimed()
	source := tarball(files)
	c.give(source)
	c.must(p.order(map[string]any{"sha256": sum(source), "size": len(source)}))
	return c
}

// get asks the app as the proxy does; run is what the proxy means.
func (p *pod) get(run, path string) (int, string, http.Header) {
	p.t.Helper()
	r, _ := http.NewRequest("GET", "http://"+p.at(ingressPort)+path, nil)
	if run != "" {
		r.Header.Set("X-Vibed-Run", run)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), answer.Header
}

// serves waits until a page is served: an agent that shares its network with others of its uid may have taken one of their
// ports for the app's, until the app listened.
func (p *pod) serves(run, path, page string) {
	p.t.Helper()
	eventually(p.t, run+" is served", func() bool { _, body, _ := p.get(run, path); return body == page })
}

func TestAnUnclaimedPodIsNobodysWhoAsksFirst(t *testing.T) {
	p := start(t)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	for name, make := range map[string]func(*document) ed25519.PrivateKey{
		"signed by a stranger":     func(*document) ed25519.PrivateKey { return stranger },
		"of another pod":           func(d *document) ed25519.PrivateKey { d.PodUID = "another"; return p.key },
		"of another namespace":     func(d *document) ed25519.PrivateKey { d.Namespace = "default"; return p.key },
		"seen another certificate": func(d *document) ed25519.PrivateKey { d.Certificate = tokenHash("another"); return p.key },
		"expired":                  func(d *document) ed25519.PrivateKey { d.Expires = float64(time.Now().Unix() - 1); return p.key },
		"without a token":          func(d *document) ed25519.PrivateKey { d.TokenSHA256 = ""; return p.key },
		"of no claim":              func(d *document) ed25519.PrivateKey { d.Claim = ""; return p.key },
	} {
		c := p.call()
		d := p.document(c)
		key := make(&d)
		if _, code := c.ask(map[string]any{"op": "claim", "document": signed(key, d)}); code != "ClaimRefused" {
			t.Errorf("%s: %q", name, code)
		}
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("%s: the connection goes on: %v", name, err)
		}
	}
	p.claimed() // and none of them has made it theirs
}

func TestWithoutProofNothingIsAnswered(t *testing.T) {
	p := start(t)
	for _, op := range []string{"status", "run", "stop", "logs", "source"} {
		c := p.call()
		if _, code := c.ask(map[string]any{"op": op}); code != "NotProven" {
			t.Errorf("%s: %q", op, code)
		}
	}
	c := p.call()
	if _, code := c.ask(map[string]any{"op": "attach", "token": token}); code != "NotClaimed" {
		t.Errorf("attach: %q", code)
	}
}

func TestAClaimedPodAnswersItsTokenAndNoOtherClaim(t *testing.T) {
	p := start(t)
	first := p.claimed()
	if _, code := p.call().ask(map[string]any{"op": "attach", "token": "another"}); code != "WrongToken" {
		t.Errorf("wrong token: %q", code)
	}
	other := p.call()
	d := p.document(other)
	d.Claim, d.TokenSHA256 = "todo-8", tokenHash("its token")
	if _, code := other.ask(map[string]any{"op": "claim", "document": signed(p.key, d)}); code != "AlreadyClaimed" {
		t.Errorf("another claim: %q", code)
	}
	for range 3 {
		c := p.call()
		c.must(map[string]any{"op": "attach", "token": token})
		c.must(map[string]any{"op": "status"})
	}
	p.claimed() // the answer may have been lost: the same claim again is fine
	var counted struct{ Refused int64 }
	json.Unmarshal(first.must(map[string]any{"op": "refused"}), &counted)
	if counted.Refused != 2 {
		t.Errorf("%d refusals are counted", counted.Refused)
	}
}

func TestWhoHasProvenItselfAndFindsNoRoomIsLetInAsSoonAsThereIsSome(t *testing.T) {
	p := start(t)
	p.claimed()
	var in []*caller
	for len(in) < friends-1 {
		c := p.call()
		c.must(map[string]any{"op": "attach", "token": token})
		in = append(in, c)
	}
	for range 2 * failuresOfOne {
		if _, code := p.call().ask(map[string]any{"op": "attach", "token": token}); code == "" {
			t.Fatal("there was room")
		}
	}
	in[0].conn.Close()
	eventually(t, "room", func() bool {
		_, code := p.call().ask(map[string]any{"op": "attach", "token": token})
		return code == ""
	})
}

func TestWhatComesToTheControlPortIsBounded(t *testing.T) {
	p := start(t)
	for name, garbage := range map[string]string{"no TLS": strings.Repeat("GET / HTTP/1.1\r\n", 2000), "zeroes": strings.Repeat("\x00", 1<<20)} {
		conn, err := net.Dial("tcp", p.at(controlPort))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, garbage)
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: it is listened to", name)
		}
		conn.Close()
	}
	for name, line := range map[string]string{"a huge line": strings.Repeat("x", 1<<20), "no JSON": "hello\n", "a list": "[1]\n"} {
		c := p.call()
		io.WriteString(c.conn, line)
		if _, err := io.Copy(io.Discard, c.conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: it is listened to", name)
		}
	}
	slow := p.call()
	if _, err := slow.r.ReadByte(); err != io.EOF {
		t.Errorf("who says nothing stays: %v", err)
	}
	// who has failed so often is not met any more for a while
	for range failuresOfOne {
		if conn, err := tls.Dial("tcp", p.at(controlPort), &tls.Config{InsecureSkipVerify: true}); err == nil {
			io.WriteString(conn, "x\n")
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
	if conn, err := tls.Dial("tcp", p.at(controlPort), &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("it is met again")
		conn.Close()
	}
	// somebody else is: another address of loopback
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
	conn, err := tls.DialWithDialer(from, "tcp", p.at(controlPort), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestAnAppRunsFromASourceThatIsSent(t *testing.T) {
	p := start(t)
	if status, _, _ := p.get("todo/7", "/"); status != 421 {
		t.Errorf("before the claim: %d", status)
	}
	c := p.running(map[string]string{"page": "it works"})
	if status, body, _ := p.get("todo/7", "/page"); status != 200 || body != "it works" {
		t.Errorf("%d %q", status, body)
	}
	for _, run := range []string{"", "todo/8", "other/7", "todo/7/"} {
		if status, body, _ := p.get(run, "/page"); status != 421 || strings.Contains(body, "works") {
			t.Errorf("%q: %d %q", run, status, body)
		}
	}
	_, seen, _ := p.get("todo/7", "/headers")
	if strings.Contains(seen, "X-Vibed-Run") {
		t.Errorf("the app sees %s", seen)
	}
	_, environment, _ := p.get("todo/7", "/env")
	if !strings.Contains(environment, "GREETING=hello") || strings.Contains(environment, "VIBED_") || strings.Contains(environment, "KUBERNETES_") {
		t.Errorf("its environment: %s", environment)
	}
	var state struct {
		State     string
		Run       struct{ Run int }
		Isolation isolation
	}
	json.Unmarshal(c.must(map[string]any{"op": "status"}), &state)
	if state.State != "running" || state.Run.Run != 7 || state.Isolation.Level == "" || len(state.Isolation.Evidence) == 0 {
		t.Errorf("%+v", state)
	}
	if _, code := c.ask(p.order(map[string]any{"sha256": tokenHash("x"), "size": 1})); code != "AlreadyClaimed" {
		t.Errorf("a second run: %q", code)
	}
}

func TestItsLogIsReadFromAnywhereAndWaitedFor(t *testing.T) {
	p := start(t)
	c := p.running(map[string]string{"page": ""})
	type lines struct {
		Lines []struct {
			Seq          int64
			Stream, Text string
		}
		Complete bool
	}
	read := func(after int64, wait float64) (got lines) {
		json.Unmarshal(c.must(map[string]any{"op": "logs", "after": after, "wait_s": wait}), &got)
		return got
	}
	first := read(0, 30)
	if len(first.Lines) == 0 || first.Lines[0].Seq != 1 {
		t.Fatalf("%+v", first)
	}
	last := first.Lines[len(first.Lines)-1].Seq
	c.send(map[string]any{"op": "logs", "after": last, "wait_s": 30})
	p.get("todo/7", "/say?text=good+news")
	answer, _ := c.answer()
	var next lines
	json.Unmarshal(answer, &next)
	if len(next.Lines) == 0 || next.Lines[0].Text != "good news" || next.Lines[0].Seq != last+1 {
		t.Fatalf("%s", answer)
	}
	if empty := read(next.Lines[len(next.Lines)-1].Seq, 0); len(empty.Lines) != 0 || empty.Complete {
		t.Errorf("%+v", empty)
	}
	func() {
		r, _ := http.NewRequest("GET", "http://"+p.at(ingressPort)+"/exit", nil)
		r.Header.Set("X-Vibed-Run", "todo/7")
		if answer, err := http.DefaultClient.Do(r); err == nil {
			answer.Body.Close()
		}
	}()
	eventually(t, "the end in the log", func() bool {
		all := read(0, 1)
		return all.Complete && all.Lines[len(all.Lines)-1].Text == "exited with status 3"
	})
	if p.probe("/readyz") != 503 || p.probe("/healthz") != 200 {
		t.Error("a pod whose run has ended is not ready, and alive as long as it can tell")
	}
}

func TestDrainingLetsWhatIsOpenFinishAndShutsTheDoor(t *testing.T) {
	p := start(t)
	c := p.running(map[string]string{"page": "it works"})
	c.must(map[string]any{"op": "closing", "closing": true})
	r, _ := http.NewRequest("GET", "http://"+p.at(ingressPort)+"/page", nil)
	r.Header.Set("X-Vibed-Run", "todo/7")
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != 200 || !answer.Close {
		t.Fatalf("%v %v", answer, err)
	}
	answer.Body.Close()
	var drained struct{ Open int }
	json.Unmarshal(c.must(map[string]any{"op": "drain", "deadline_s": 10, "calm_s": 0.2}), &drained)
	if drained.Open != 0 {
		t.Errorf("%+v", drained)
	}
	eventually(t, "the end", func() bool {
		var state struct{ State string }
		json.Unmarshal(c.must(map[string]any{"op": "status"}), &state)
		return state.State == "exited"
	})
}

func TestASourceAndLayersAreGotFromTheirAddresses(t *testing.T) {
	source, packages := tarball(map[string]string{"page": "it works"}), tarball(map[string]string{"lib/module": "installed"})
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked++; {
		case asked == 1:
			http.Error(w, "slow down", 503)
		case r.URL.Path == "/source":
			w.Write(source)
		default:
			w.Write(packages)
		}
	}))
	defer server.Close()
	p := start(t)
	c := p.claimed()
	order := p.order(map[string]any{"url": server.URL + "/source?signature=s", "sha256": sum(source), "size": len(source)})
	order["layers"] = []map[string]any{{"url": server.URL + "/layer", "sha256": sum(packages), "size": len(packages), "target": "/layers/python"}}
	var started struct{ Timings struct{ Fetch float64 } }
	json.Unmarshal(c.must(order), &started)
	if _, body, _ := p.get("todo/7", "/page"); body != "it works" {
		t.Errorf("%q", body)
	}
	if text, _ := os.ReadFile(p.path("layers/python/lib/module")); string(text) != "installed" {
		t.Errorf("%q", text)
	}
	if left, _ := filepath.Glob(p.path("run/object-*")); len(left) != 0 || started.Timings.Fetch <= 0 {
		t.Errorf("%v %v", left, started)
	}
}

func TestWhatIsNotWhatItWasSaidToBeIsNotRun(t *testing.T) {
	good := tarball(map[string]string{"page": "x"})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other":
			w.Write(bytes.Repeat([]byte("x"), len(good)))
		case "/longer":
			w.Write(append(good, 0))
		case "/elsewhere":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/secret":
			w.WriteHeader(403)
		default:
			w.Write(good)
		}
	}))
	defer server.Close()
	p := start(t)
	c := p.claimed()
	for path, want := range map[string]string{"/other": "SourceDamaged", "/longer": "SourceDamaged", "/elsewhere": "SourceUnavailable", "/secret": "SourceUnavailable"} {
		order := p.order(map[string]any{"url": server.URL + path + "?signature=s", "sha256": sum(good), "size": len(good)})
		if _, code := c.ask(order); code != want {
			t.Errorf("%s: %q", path, code)
		}
	}
	for _, target := range []string{"/etc", "/layers/../app", "/layers/", "/layers/.data", "layers/x"} {
		order := p.order(map[string]any{"url": server.URL + "/good", "sha256": sum(good), "size": len(good)})
		order["layers"] = []map[string]any{{"url": server.URL + "/good", "sha256": sum(good), "size": len(good), "target": target}}
		if _, code := c.ask(order); code != "BadRequest" {
			t.Errorf("%s: %q", target, code)
		}
	}
	// it is as warm as before
	c.must(p.order(map[string]any{"url": server.URL + "/good", "sha256": sum(good), "size": len(good)}))
}

func TestALayerThatIsLargerThanItsVolumeIsRefusedBeforeItFillsIt(t *testing.T) {
	p := start(t)
	c := p.claimed()
	source, packages := tarball(map[string]string{"page": "x"}), tarball(map[string]string{"lib/module": strings.Repeat("x", 10_000)})
	order := func(most int) map[string]any {
		c.give(source)
		c.give(packages)
		order := p.order(map[string]any{"sha256": sum(source), "size": len(source)})
		order["layers"] = []map[string]any{{"sha256": sum(packages), "size": len(packages), "target": "/layers/python"}}
		order["layer_bytes"] = most
		return order
	}
	if _, code := c.ask(order(9_999)); code != "DiskFull" {
		t.Error(code)
	}
}

func TestASiteIsServedAsAnApp(t *testing.T) {
	p := start(t)
	c := p.claimed()
	source := tarball(map[string]string{"site/index.html": "<p>home", "site/style.css": "p {}", "types.json": `{"types": {"css": "text/css", "html": "text/html"}}`})
	c.give(source)
	c.must(p.order(map[string]any{"sha256": sum(source), "size": len(source)},
		"/proc/self/exe", "site", "-types", p.path("app/types.json"), "-fallback", "/index.html", p.path("app/site")))
	p.serves("todo/7", "/", "<p>home")
	for path, want := range map[string]string{"/": "<p>home", "/a/page": "<p>home", "/style.css": "p {}"} {
		if status, body, _ := p.get("todo/7", path); status != 200 || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if _, _, header := p.get("todo/7", "/style.css"); header.Get("Content-Type") != "text/css" {
		t.Errorf("%v", header)
	}
}

// site puts a site into the pod; the answer's code.
func (c *caller) site(app string, run int, files map[string]string) string {
	source := tarball(files)
	c.give(source)
	_, code := c.ask(map[string]any{"op": "site", "app_id": app, "app_key": "k", "run": run, "version": 1, "bytes": 4096,
		"max_bytes": 1 << 20, "source": map[string]any{"sha256": sum(source), "size": len(source)}})
	return code
}

func TestManySitesShareAPodAndNoneIsPutBesideCode(t *testing.T) {
	p := start(t)
	c := p.claimed()
	source := tarball(map[string]string{"types.json": "{}"})
	c.give(source)
	order := p.order(map[string]any{"sha256": sum(source), "size": len(source)},
		"/proc/self/exe", "site", "-types", p.path("app/types.json"), "-many", p.path("app/sites"))
	order["app_id"], order["run"], order["sites"] = "vibed.sites", 1, true
	c.must(order)
	facts := map[string]string{"site/.vibed.json": `{"fallback": "/index.html"}`}
	for app, page := range map[string]string{"one": "<p>1", "two": "<p>2"} {
		if code := c.site(app, 5, map[string]string{"site/index.html": page, "site/.vibed.json": facts["site/.vibed.json"], "beside": "no visitor's"}); code != "" {
			t.Fatalf("%s: %s", app, code)
		}
	}
	p.serves("one/5", "/any", "<p>1") // whatever else this machine's root has listening
	for run, want := range map[string]string{"one/5": "<p>1", "two/5": "<p>2"} {
		if status, body, _ := p.get(run, "/any"); status != 200 || body != want {
			t.Errorf("%s: %d %q", run, status, body)
		}
	}
	for _, run := range []string{"", "one/6", "one/5/..", "../one/5", "vibed.sites/2"} {
		if status, _, _ := p.get(run, "/"); status != 421 {
			t.Errorf("%q: %d", run, status)
		}
	}
	for _, app := range []string{"", "../up", ".new-x", "a/b"} {
		if code := c.site(app, 5, facts); code != "BadRequest" {
			t.Errorf("%q: %q", app, code)
		}
	}
	if said := string(c.must(map[string]any{"op": "sites"})); strings.Count(said, `"app_id"`) != 2 {
		t.Error(said)
	}
	c.must(map[string]any{"op": "unsite", "app_id": "one", "app_key": "an earlier app's", "run": 5})
	if status, _, _ := p.get("one/5", "/"); status != 200 {
		t.Errorf("after an earlier app of its name was taken out: %d", status)
	}
	c.must(map[string]any{"op": "unsite", "app_id": "one", "app_key": "k", "run": 5})
	if status, _, _ := p.get("one/5", "/"); status != 421 {
		t.Errorf("after it was taken out: %d", status)
	}
	if code := c.site("one", 5, facts); code != "AlreadyClaimed" {
		t.Errorf("put in after it was taken out: %q", code)
	}
	anew := tarball(map[string]string{"site/index.html": "<p>anew", "site/.vibed.json": "{}"})
	c.give(anew)
	c.must(map[string]any{"op": "site", "app_id": "one", "app_key": "of a later app", "run": 5, "version": 1, "bytes": 4096,
		"max_bytes": 1 << 20, "source": map[string]any{"sha256": sum(anew), "size": len(anew)}})
	if status, body, _ := p.get("one/5", "/"); status != 200 || body != "<p>anew" {
		t.Errorf("a later app of that name: %d %q", status, body)
	}
	if status, _, _ := p.get("one/5", "/any"); status != 404 {
		t.Errorf("what was known of the earlier app's site answers for it: %d", status)
	}
	c.must(map[string]any{"op": "unsite", "app_id": "one", "app_key": "of a later app", "run": 5})
	eventually(t, "its files are gone", func() bool {
		left, _ := os.ReadDir(p.path("app/sites"))
		return len(left) == 2 // the other one's, and the link to it
	})
	if status, body, _ := p.get("two/5", "/"); status != 200 || body != "<p>2" {
		t.Errorf("the other one: %d %q", status, body)
	}

	other := start(t)
	d := other.running(map[string]string{"x": "y"})
	if _, code := d.ask(map[string]any{"op": "site", "app_id": "one", "run": 5, "max_bytes": 1, "source": map[string]any{"sha256": sum(nil), "size": 0}}); code != "NotRunning" {
		t.Errorf("beside code: %q", code)
	}
}

func TestIsolationIsWhatShowsAndNotWhatWouldBeNice(t *testing.T) {
	for name, one := range map[string]struct {
		files map[string]string
		level string
	}{
		"a container on a node that is a virtual machine": {map[string]string{"proc/cpuinfo": "flags : sse hypervisor", "sys/class/dmi/id/product_name": "KVM",
			"proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1"}, levelProcess},
		"gVisor":             {map[string]string{"proc/sys/kernel/osrelease": "4.19.0-gvisor"}, levelKernel},
		"an older gVisor":    {map[string]string{"proc/sys/kernel/osrelease": "4.4.0", "dmesg": "[ 0.0] Starting gVisor..."}, levelKernel},
		"Kata":               {map[string]string{"proc/cpuinfo": "flags : sse hypervisor", "proc/cmdline": "console=hvc0 systemd.unit=kata-containers.target"}, levelVM},
		"Kata, emulated":     {map[string]string{"proc/cpuinfo": "model name : QEMU TCG CPU\nflags : hypervisor", "proc/cmdline": "systemd.unit=kata-containers.target"}, levelVMEmulated},
		"words without a VM": {map[string]string{"proc/cpuinfo": "flags : sse", "proc/cmdline": "systemd.unit=kata-containers.target"}, levelProcess},
		"nothing to see":     {nil, levelProcess},
	} {
		root := t.TempDir()
		for file, text := range one.files {
			os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755)
			os.WriteFile(filepath.Join(root, file), []byte(text), 0o644)
		}
		if found := measure(root); found.Level != one.level {
			t.Errorf("%s: %+v", name, found)
		}
	}
}
