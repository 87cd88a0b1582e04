package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bed is a supervisor under test, a real process, and what a controller would have.
type bed struct {
	t       *testing.T
	dir     string
	spec    map[string]any
	process *exec.Cmd
	over    chan struct{}
}

func newBed(t *testing.T, kind string) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sv") // t.TempDir is longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.MkdirAll(filepath.Join(dir, "in"), 0o700)
	b := &bed{t: t, dir: dir, over: make(chan struct{})}
	b.spec = map[string]any{
		"id": "s0123456789a", "driver": "test", "template": "t", "template_digest": "d", "kind": kind, "confine": nil,
		"boot_timeout_s": 10, "log_owner": map[string]int{"uid": os.Getuid(), "gid": os.Getgid()},
		"socket_owner": map[string]int{"uid": os.Getuid(), "gid": os.Getgid()},
	}
	self, _ := os.Executable()
	if kind == kindAgent {
		b.spec["agent_socket"], b.spec["app_socket"] = dir+"/in/agent.sock", dir+"/in/app.sock"
		b.spec["command"] = []string{self, "fake-agent", dir + "/in/agent.sock", dir + "/in/app.sock"}
	} else {
		b.spec["sockets"] = map[string]string{"http": dir + "/http.sock", "admin": dir + "/admin.sock"}
		b.spec["command"] = []string{self, "fake-worker", "{http_fd}", "{admin_fd}"}
	}
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bed) write(name, content string) string {
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return b.path(name)
}

func (b *bed) start() *bed {
	b.t.Helper()
	data, _ := json.Marshal(b.spec)
	b.write("spec.json", string(data))
	self, _ := os.Executable()
	b.process = exec.Command(self, "supervise", b.path("spec.json"))
	log, _ := os.Create(b.path("supervisor.log"))
	b.process.Stdout, b.process.Stderr = log, log
	if err := b.process.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { b.process.Wait(); log.Close(); close(b.over) }()
	b.t.Cleanup(func() {
		b.process.Process.Kill()
		<-b.over
		if out, _ := os.ReadFile(b.path("supervisor.log")); b.t.Failed() && len(out) > 0 {
			b.t.Logf("supervisor.log:\n%s", out)
		}
	})
	eventually(b.t, "control socket", func() bool { _, err := os.Stat(b.path("ctl.sock")); return err == nil })
	return b
}

// warm starts it and waits until it can be claimed.
func (b *bed) warm() *controlClient {
	b.t.Helper()
	c := b.start().connect()
	c.await(stateWarm)
	return c
}

func (b *bed) state() state {
	b.t.Helper()
	data, err := os.ReadFile(b.path("state.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		b.t.Fatalf("state.json: %v: %q", err, data)
	}
	return s
}

func (b *bed) ended() {
	b.t.Helper()
	select {
	case <-b.over:
	case <-time.After(15 * time.Second):
		b.t.Fatal("the supervisor did not end")
	}
}

// runRequest is what a controller sends; the source is the behaviour of the fake app.
func (b *bed) runRequest(source string) map[string]any {
	return map[string]any{
		"op": "run", "app_id": "todo", "version": 3, "run": 7, "socket": b.path("app.a.sock"), "log_dir": b.path("log"),
		"source": b.write("source.tar.gz", source), "strip": "folder/", "worker": b.write("worker.json", source),
		"start": map[string]any{"argv": []string{"x"}, "timeout_s": 5}, "limits": map[string]any{"nproc": 64},
	}
}

func (b *bed) http() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", b.path("app.a.sock"))
		}}}
}

func (b *bed) get(path string) (int, string) {
	b.t.Helper()
	client := b.http()
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://todo" + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

type record struct {
	Seq    int64   `json:"seq"`
	TS     float64 `json:"ts"`
	Stream string  `json:"stream"`
	Text   string  `json:"text"`
	More   bool    `json:"cont"`
}

func readRecords(t *testing.T, dir string) (records []record) {
	t.Helper()
	for _, name := range []string{"log.1.jsonl", "log.jsonl"} {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		for line := range bytes.Lines(data) {
			var r record
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatalf("%s: %v: %q", name, err, line)
			}
			records = append(records, r)
		}
	}
	return records
}

func (b *bed) log() string {
	b.t.Helper()
	var text strings.Builder
	for i, r := range readRecords(b.t, b.path("log")) {
		if r.Seq != int64(i+1) {
			b.t.Fatalf("line %d has seq %d", i, r.Seq)
		}
		text.WriteString(r.Stream + ": " + r.Text + "\n")
	}
	return text.String()
}

// controlClient is one connection to ctl.sock.
type controlClient struct {
	t    *testing.T
	conn net.Conn

	mu      sync.Mutex
	next    int
	answers map[int]chan map[string]any
	stages  []string
	states  chan state
	closed  chan struct{}
}

func (b *bed) connect() *controlClient {
	b.t.Helper()
	conn, err := net.Dial("unix", b.path("ctl.sock"))
	if err != nil {
		b.t.Fatal(err)
	}
	c := &controlClient{t: b.t, conn: conn, answers: map[int]chan map[string]any{}, states: make(chan state, 100),
		closed: make(chan struct{})}
	go c.read()
	b.t.Cleanup(func() { conn.Close() })
	return c
}

func (c *controlClient) read() {
	defer close(c.closed)
	lines := bufio.NewReader(c.conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var message struct {
			ID    int    `json:"id"`
			Event string `json:"event"`
			State state  `json:"state"`
			Stage string `json:"stage"`
		}
		json.Unmarshal(line, &message)
		switch message.Event {
		case "state":
			c.states <- message.State
		case "stage":
			c.mu.Lock()
			c.stages = append(c.stages, message.Stage)
			c.mu.Unlock()
		default:
			var answer map[string]any
			json.Unmarshal(line, &answer)
			c.mu.Lock()
			ch := c.answers[message.ID]
			c.mu.Unlock()
			ch <- answer
		}
	}
}

// send returns the channel of the answer.
func (c *controlClient) send(request map[string]any) <-chan map[string]any {
	c.mu.Lock()
	c.next++
	id, answer := c.next, make(chan map[string]any, 1)
	c.answers[id] = answer
	c.mu.Unlock()
	request["id"] = id
	data, _ := json.Marshal(request)
	c.conn.Write(append(data, '\n'))
	return answer
}

func (c *controlClient) ask(request map[string]any) map[string]any {
	c.t.Helper()
	select {
	case answer := <-c.send(request):
		return answer
	case <-time.After(15 * time.Second):
		c.t.Fatalf("no answer to %v", request["op"])
		return nil
	}
}

func (c *controlClient) ok(request map[string]any) map[string]any {
	c.t.Helper()
	answer := c.ask(request)
	if answer["error"] != nil {
		c.t.Fatalf("%v: %v", request["op"], answer["error"])
	}
	return answer["ok"].(map[string]any)
}

func (c *controlClient) refused(request map[string]any, code string) map[string]any {
	c.t.Helper()
	answer := c.ask(request)
	failure, _ := answer["error"].(map[string]any)
	if failure["code"] != code {
		c.t.Fatalf("%v: want %s, got %v", request["op"], code, answer)
	}
	return failure
}

func (c *controlClient) await(name string) state {
	c.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case s := <-c.states:
			if s.State == name {
				return s
			}
		case <-deadline:
			c.t.Fatalf("the state did not become %s", name)
		}
	}
}

func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !reached(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not come about", what)
		}
	}
}

func alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(data[bytes.LastIndexByte(data, ')'):]), ") Z")
}
