package inside

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vibed.dev/agent/confine"
)

// The test binary stands for vibed-agent on both sides of the wall.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "confine":
			os.Exit(confine.Main(os.Args[2:]))
		case "agent":
			os.Exit(Main(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// Each sandbox has two uids of its own: tests run side by side.
var nextUID atomic.Int32

func init() { nextUID.Store(231600) }

// box is a sandbox with an agent as PID 1.
type box struct {
	t    *testing.T
	uid  int // on the host
	in   string
	http *http.Client
	cmd  *exec.Cmd
	err  *bytes.Buffer
}

type options struct {
	oneUID  bool
	zygotes []zygoteSpec
	env     map[string]string
	flags   []string
}

func python(t *testing.T) (dir, program string) {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.base_prefix)").Output()
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: python3 is not installed")
	}
	dir = strings.TrimSpace(string(out))
	return dir, filepath.Join(dir, "bin", "python3")
}

func boot(t *testing.T, o options) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root, to give the agent and the app uids of their own")
	}
	sandboxUID := int(nextUID.Add(2))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	prefix, _ := python(t)
	in, err := os.MkdirTemp("/tmp", "in") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(in) })
	_ = os.Chown(in, sandboxUID, sandboxUID)
	templates, _ := filepath.Abs("../../templates/_zygote")
	zygotes, _ := json.Marshal(o.zygotes)
	env, _ := json.Marshal(o.env)
	root := []map[string]any{
		{"type": "bind", "source": filepath.Dir(self), "target": "/probe", "ro": true},
		{"type": "bind", "source": in, "target": "/run/vibed"}, {"type": "bind", "source": templates, "target": "/zygote", "ro": true},
		{"type": "tmpfs", "target": "/tmp", "size": 8 << 20, "mode": "1777"}, {"type": "tmpfs", "target": "/app", "size": 4 << 20},
		{"type": "tmpfs", "target": "/home/app", "size": 1 << 20}, {"type": "proc", "target": "/proc"}, {"type": "dev", "target": "/dev"},
		{"type": "file", "target": "/etc/passwd", "content": "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"},
		{"type": "file", "target": "/etc/vibed/zygotes.json", "content": string(zygotes)}, {"type": "file", "target": "/etc/vibed/env.json", "content": string(env)},
	}
	if !strings.HasPrefix(prefix, "/usr") {
		root = append(root, map[string]any{"type": "bind", "source": prefix, "target": prefix, "ro": true})
	}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if link, err := os.Readlink(dir); err == nil {
			root = append(root, map[string]any{"type": "symlink", "source": link, "target": dir})
		} else if _, err := os.Stat(dir); err == nil {
			root = append(root, map[string]any{"type": "bind", "source": dir, "target": dir, "ro": true})
		}
	}
	ids := [][3]int{{0, sandboxUID, 1}, {1000, sandboxUID + 1, 1}}
	if o.oneUID {
		ids = ids[:1]
	}
	spec, _ := json.Marshal(map[string]any{"uid": sandboxUID, "gid": sandboxUID, "userns": true, "uid_map": ids, "gid_map": ids,
		"namespaces": []string{"mount", "pid", "net", "ipc", "uts", "cgroup"}, "root": root,
		"capabilities": []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "SETPCAP", "SYS_RESOURCE"},
		"env":          map[string]string{"AGENT_TOKEN": "secret"}, "die_with_parent": true})
	file := filepath.Join(t.TempDir(), "spec.json")
	if err := os.WriteFile(file, spec, 0o644); err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, uid: sandboxUID, in: in, err: &bytes.Buffer{}}
	b.cmd = exec.Command(self, append([]string{"confine", file, "--", "/probe/" + filepath.Base(self), "agent"}, o.flags...)...)
	b.cmd.Stderr = b.err
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cmd.Process.Kill(); _ = b.cmd.Wait() })
	b.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(in, "agent.sock"))
	}}}
	for range 2000 {
		if r, err := b.http.Get("http://agent/health"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return b
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("the agent does not come up: %s", b.err)
	return nil
}

func (b *box) call(method, path string, body any) (int, map[string]any) {
	b.t.Helper()
	var r io.Reader
	switch v := body.(type) {
	case []byte:
		r = bytes.NewReader(v)
	case nil:
	default:
		raw, _ := json.Marshal(v)
		r = bytes.NewReader(raw)
	}
	q, _ := http.NewRequest(method, "http://agent"+path, r)
	a, err := b.http.Do(q)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	var out map[string]any
	_ = json.NewDecoder(a.Body).Decode(&out)
	return a.StatusCode, out
}

func (b *box) must(method, path string, body any) map[string]any {
	b.t.Helper()
	status, out := b.call(method, path, body)
	if status != 200 {
		b.t.Fatalf("%s %s: %d %v", method, path, status, out)
	}
	return out
}

func (b *box) inject(files map[string]string) {
	b.t.Helper()
	b.must("POST", "/inject", tgz(files))
}

func tgz(files map[string]string) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, text := range files {
		_ = w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644, ModTime: time.Unix(1700000000, 0)})
		_, _ = w.Write([]byte(text))
	}
	_ = w.Close()
	_ = z.Close()
	return out.Bytes()
}

// app talks to the app through the relay.
func (b *box) app() net.Conn {
	b.t.Helper()
	c, err := net.Dial("unix", filepath.Join(b.in, "app.sock"))
	if err != nil {
		b.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func (b *box) get() string {
	b.t.Helper()
	c := b.app()
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	raw, _ := io.ReadAll(c)
	_, body, _ := strings.Cut(string(raw), "\r\n\r\n")
	return body
}

func (b *box) logs() string {
	b.t.Helper()
	r, err := b.http.Get("http://agent/logs")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	raw, _ := io.ReadAll(r.Body)
	return string(raw)
}

// server answers each request with what an expression gives.
func server(expression, address string, port int) string {
	return fmt.Sprintf(`import http.server, os, sys, random, json, socket
def can(f):
    try: f()
    except OSError: return False
    return True
def status(key): return [l.split(":")[1].strip() for l in open("/proc/self/status") if l.startswith(key + ":")][0]
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(%s).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in %q else socket.AF_INET
    def server_bind(self): __import__("socketserver").TCPServer.server_bind(self); self.server_name = ""
print("serving", flush=True)
S((%q, %d), H).serve_forever()
`, expression, address, address, port)
}

func (b *box) start(extra map[string]any) (int, map[string]any) {
	_, program := python(b.t)
	s := map[string]any{"argv": []string{program, "app.py"}, "port": 8080, "timeout_s": 20, "env": map[string]string{"K": "v"}}
	for k, v := range extra {
		s[k] = v
	}
	return b.call("POST", "/start", s)
}

const facts = `json.dumps([os.getuid(), os.getgid(), os.getgroups(), status("CapEff"), status("CapBnd"), status("NoNewPrivs"), os.getcwd(), sorted(os.environ), os.environ["HOME"],
  sorted(os.listdir("/proc/self/fd"))[:3], __import__("resource").getrlimit(6)[0], __import__("resource").getrlimit(7)[0], os.access("/run/vibed/agent.sock", os.W_OK), os.access("/app/x", os.W_OK) or open("/app/x", "w") and 1])`

func TestTheAppRunsAsItsOwnUidWithNothingOfTheAgents(t *testing.T) {
	t.Parallel()
	for _, warm := range []bool{false, true} {
		_, program := python(t)
		b := boot(t, options{zygotes: []zygoteSpec{{Name: "base", Kind: "python", Argv: []string{program, "/zygote/zygote.py", "base", "json"}, Modules: []string{"json"}}}})
		b.must("POST", "/claim", map[string]any{"hostname": "x", "entropy": "00ff", "time": 0, "limits": map[string]int{"nproc": 50, "nofile": 200}})
		b.inject(map[string]string{"app.py": server(facts, "127.0.0.1", 5000)})
		if status, out := b.start(map[string]any{"warm": warm}); status != 200 || out["port"] != 5000.0 {
			t.Fatalf("warm %v: %d %v", warm, status, out)
		}
		got := b.get()
		want := `[1000, 1000, [], "0000000000000000", "0000000000000000", "1", "/app", ["HOME", "HOST", "K", "LANG", "PATH", "PORT", "TMPDIR"], "/home/app", ["0", "1", "2"], 50, 200, false, 1]`
		if got != want {
			t.Errorf("warm %v:\n%s\n%s", warm, got, want)
		}
		b.must("POST", "/stop", map[string]any{"grace_s": 3})
		if out := b.must("GET", "/status", nil); out["state"] != "exited" {
			t.Error(out)
		}
		if logs := b.logs(); !strings.Contains(logs, `{"stream":"stdout","text":"serving"}`) {
			t.Error(logs)
		}
	}
}

func TestAWarmProcessIsTheAppThatAFreshOneWouldBe(t *testing.T) {
	t.Parallel()
	_, program := python(t)
	z := func(name string, modules ...string) zygoteSpec {
		return zygoteSpec{Name: name, Kind: "python", Argv: append([]string{program, "/zygote/zygote.py", name}, modules...), Modules: modules}
	}
	b := boot(t, options{zygotes: []zygoteSpec{z("base"), z("web", "http.server", "email"), z("more", "http.server", "email", "sqlite3")}})
	if out := b.must("GET", "/health", nil); fmt.Sprint(out["zygotes"]) != "[base web more]" || out["same_uid"] != false {
		t.Error(out)
	}
	b.inject(map[string]string{"app.py": server(`[sys.argv, __name__, __file__, sys.path[0], os.getpid() > 1, "sqlite3" in sys.modules, "email" in sys.modules, sys.orig_argv[1:]]`, "0.0.0.0", 8080)})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	if got := b.get(); got != `[['app.py'], '__main__', '/app/app.py', '/app', True, False, True, ['app.py']]` {
		t.Error(got)
	}
	kept, _ := os.ReadDir("/proc")
	n := 0
	for _, e := range kept {
		if cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline"); bytes.Contains(cmd, []byte("/zygote/zygote.py")) {
			if st, err := os.Stat("/proc/" + e.Name()); err == nil && st.Sys().(*syscall.Stat_t).Uid == uint32(b.uid+1) {
				n++
			}
		}
	}
	if n != 1 {
		t.Errorf("%d warm processes are alive, the others were to be killed", n)
	}
}

func TestAnyPortAndLoopbackAddressIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		address string
		port    int
	}{{"127.0.0.1", 8080}, {"::1", 3000}, {"::", 8501}, {"0.0.0.0", 5000}, {"127.0.0.3", 9999}} {
		b := boot(t, options{})
		b.inject(map[string]string{"app.py": server(`"here"`, c.address, c.port)})
		if status, out := b.start(nil); status != 200 || out["port"] != float64(c.port) {
			t.Errorf("%v: %d %v", c, status, out)
		} else if got := b.get(); got != "here" {
			t.Errorf("%v: %q", c, got)
		}
		_ = b.cmd.Process.Kill()
	}
}

func TestTheRelayPassesOnEachEndByItself(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": `import socket
s = socket.create_server(("127.0.0.1", 8080))
while True:
    c, _ = s.accept()
    data = b""
    while chunk := c.recv(65536): data += chunk
    c.sendall(str(len(data)).encode()); c.close()
`})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	for range 20 {
		c := b.app().(*net.UnixConn)
		_, _ = c.Write(make([]byte, 300_000))
		_ = c.CloseWrite()
		if got, _ := io.ReadAll(c); string(got) != "300000" {
			t.Fatalf("%q", got)
		}
		_ = c.Close()
	}
}

func TestAnAppThatEndsIsReportedWithItsLastWords(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import sys\nprint('last words', end='')\nsys.exit(3)\n"})
	status, out := b.start(nil)
	if status != 422 || out["code"] != "StartFailed" || fmt.Sprint(out["exit"]) != "map[code:3 signal:<nil>]" {
		t.Errorf("%d %v", status, out)
	}
	if logs := b.logs(); logs != "{\"stream\":\"stdout\",\"text\":\"last words\"}\n" {
		t.Errorf("%q", logs)
	}
}

func TestAnAppThatNeverListensTimesOutAndIgnoringSigtermDoesNotHelp(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import signal, time, os\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nif os.fork() == 0: os.setsid()\ntime.sleep(60)\n"})
	if status, out := b.start(map[string]any{"timeout_s": 3}); status != 504 || out["code"] != "StartTimeout" {
		t.Errorf("%d %v", status, out)
	}
	began := time.Now()
	b.must("POST", "/stop", map[string]any{"grace_s": 0.2})
	if out := b.must("GET", "/status", nil); fmt.Sprint(out["exit"]) != "map[code:<nil> signal:SIGKILL]" || time.Since(began) > 3*time.Second {
		t.Error(out, time.Since(began))
	}
	if b.logs() != "" { // ends: the process in a session of its own is gone, too
		t.Error("output from nowhere")
	}
}

func TestShellFormAndBuildSteps(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	_, program := python(t)
	b.inject(map[string]string{"app.py": server(`open("built").read()`, "127.0.0.1", 4000)})
	s := map[string]any{"shell": "A=1; " + program + " app.py", "port": 8080, "timeout_s": 20, "build": [][]string{{"sh", "-c", "echo building; id -u > built"}}}
	if status, out := b.call("POST", "/start", s); status != 200 || out["port"] != 4000.0 {
		t.Fatal(status, out)
	}
	if got := b.get(); got != "1000\n" {
		t.Error(got)
	}
	b.must("POST", "/stop", nil)
	if logs := b.logs(); !strings.Contains(logs, `{"stream":"build","text":"building"}`) {
		t.Error(logs)
	}
}

func TestAFailedBuildIsAFailedStart(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": ""})
	status, out := b.start(map[string]any{"build": [][]string{{"sh", "-c", "echo why >&2; exit 4"}}})
	if status != 422 || fmt.Sprint(out["exit"]) != "map[code:4 signal:<nil>]" {
		t.Error(status, out)
	}
	if logs := b.logs(); logs != "{\"stream\":\"build\",\"text\":\"why\"}\n" {
		t.Errorf("%q", logs)
	}
}

func TestAFullDiskIsSaidSo(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	if status, out := b.call("POST", "/inject", tgz(map[string]string{"big": strings.Repeat("x", 5<<20)})); status != 413 || out["code"] != "DiskFull" {
		t.Error(status, out)
	}
	if status, out := b.call("POST", "/inject", tgz(map[string]string{"../x": ""})); status != 422 || out["code"] != "InjectFailed" {
		t.Error(status, out)
	}
}

func TestAFloodOfOutputNeitherBlocksTheAppNorLosesItsEnd(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "for i in range(200000): print('line', i)\nprint('x' * 40000)\nprint('the end')\n"})
	if status, _ := b.start(nil); status != 422 {
		t.Error(status)
	}
	logs := strings.Split(strings.TrimSpace(b.logs()), "\n")
	if !strings.Contains(logs[0], "lines were dropped") || logs[len(logs)-1] != `{"stream":"stdout","text":"the end"}` || !strings.Contains(logs[len(logs)-3], `"cont":true`) {
		t.Error(logs[0], logs[len(logs)-1])
	}
}

func TestADaemonIsTheApp(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import os\nif os.fork(): os._exit(0)\nos.setsid()\n" + server(`"daemon"`, "127.0.0.1", 8000)})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(status, out)
	}
	if got := b.get(); got != "daemon" {
		t.Error(got)
	}
}

func TestWithOneUidTheAgentIsStillOutOfReach(t *testing.T) {
	t.Parallel()
	b := boot(t, options{oneUID: true})
	if out := b.must("GET", "/health", nil); out["same_uid"] != true {
		t.Error(out)
	}
	b.inject(map[string]string{"app.py": server(`[status("CapEff"), can(lambda: open("/proc/1/environ").read()), can(lambda: open("/proc/1/mem", "r+b")), can(lambda: os.readlink("/proc/1/fd/1"))]`, "127.0.0.1", 8080)})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(status, out)
	}
	got := b.get()
	if !strings.HasPrefix(got, "['0000000000000000', False, False, False]") {
		t.Error(got)
	}
}
