package supervise

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestAnAgentSandboxGoesFromWarmToRunningToNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	b.spec["cleanup"] = [][]string{{"/bin/sh", "-c", "echo cleaned > " + b.path("cleaned")}}
	c := b.warm()
	ok := c.ok(b.runRequest("well behaved"))
	if ok["port"] != 8080.0 {
		t.Errorf("port %v", ok["port"])
	}
	if st := c.await(stateRunning); st.Run == nil || st.Run.AppID != "todo" || *st.Port != 8080 || st.StartedAt == nil {
		t.Errorf("running as %+v", st)
	}
	if status, body := b.get("/x"); status != 200 || body != "hello 0" {
		t.Errorf("%d %q", status, body)
	}
	if want := []string{"claimed", "injected", "started", "listening"}; !reflect.DeepEqual(c.stages, want) {
		t.Errorf("stages %v", c.stages)
	}
	if total := c.ok(map[string]any{"op": "requests"})["total"]; total != 1.0 {
		t.Errorf("total %v", total)
	}
	command := b.state().CommandPID
	c.ok(map[string]any{"op": "stop", "grace_s": 2})
	st := b.state()
	if st.State != stateExited || st.Exit == nil || st.Exit.Code == nil || *st.Exit.Code != 0 {
		t.Errorf("ended as %+v", st.Exit)
	}
	b.ended()
	for _, name := range []string{"ctl.sock", "app.a.sock"} {
		if _, err := os.Lstat(b.path(name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	if _, err := os.Stat(b.path("cleaned")); err != nil {
		t.Error("the clean-up did not run")
	}
	if alive(command) {
		t.Error("the command is left")
	}
	log := b.log()
	for _, want := range []string{`"hostname":"todo"`, `"limits":{"nproc":64}`, "strip=folder/", `"timeout_s":5`,
		"stdout: asked to stop", "system: exited with status 0"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "agent is there") {
		t.Error("output from before the run is in the app's log")
	}
	if boot, _ := os.ReadFile(b.path("boot.log")); !strings.Contains(string(boot), "agent is there") {
		t.Errorf("boot.log: %q", boot)
	}
}

func TestADrainUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	c := b.warm()
	c.ok(b.runRequest("well behaved"))
	var draining atomic.Bool
	var served, failed atomic.Int64
	var load sync.WaitGroup
	for i := range 8 {
		load.Add(1)
		go func() {
			defer load.Done()
			client := b.http()
			for !draining.Load() {
				var resp *http.Response
				var err error
				if i%2 == 0 {
					resp, err = client.Get("http://todo/")
				} else {
					resp, err = client.Post("http://todo/", "text/plain", strings.NewReader(strings.Repeat("x", 5000)))
				}
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("%v %v", resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				served.Add(1)
			}
		}()
	}
	slow := make(chan string, 1)
	go func() { _, body := b.get("/slow"); slow <- body }()
	eventually(t, "load", func() bool { return served.Load() > 500 })
	answer := c.send(map[string]any{"op": "drain", "deadline_s": 10})
	c.await(stateDraining)
	time.Sleep(50 * time.Millisecond) // requests that begin late are served too
	draining.Store(true)
	load.Wait()
	got := <-answer
	if ok, _ := got["ok"].(map[string]any); ok["open"] != 0.0 || ok["closed_websockets"] != 0.0 {
		t.Errorf("drain: %v", got)
	}
	if body := <-slow; body != "done" {
		t.Errorf("the slow request got %q", body)
	}
	if failed.Load() != 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load())
	}
	b.ended()
	if !strings.Contains(b.log(), "system: drained: 0 requests open") {
		t.Error("the drain is not in the log")
	}
}

func TestASandboxIsClaimedOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	first, second := b.warm(), b.connect()
	answers := make(chan map[string]any, 2)
	for _, c := range []*controlClient{first, second} {
		answer := c.send(b.runRequest("well behaved"))
		go func() { answers <- <-answer }()
	}
	won, refused := 0, 0
	for range 2 {
		answer := <-answers
		if answer["ok"] != nil {
			won++
		} else if answer["error"].(map[string]any)["code"] == "AlreadyClaimed" {
			refused++
		}
	}
	if won != 1 || refused != 1 {
		t.Errorf("%d won, %d refused", won, refused)
	}
	first.refused(b.runRequest("well behaved"), "AlreadyClaimed")
	if status, _ := b.get("/"); status != 200 {
		t.Error("the refusals disturbed the app")
	}
}

func TestARunThatFailsSaysWhyAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]struct{ code, log string }{
		"disk-full":      {"DiskFull", "no room"},
		"crash-at-start": {"StartFailed", "Traceback: it does not work"},
		"die-at-start":   {"StartFailed", "last words"},
		// it has ended already when the rest of its output is asked for again
		"crash-at-start, log-breaks-off": {"StartFailed", "Traceback: it does not work"},
	} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, kindAgent)
			c := b.warm()
			failure := c.refused(b.runRequest(source), want.code)
			if want.code == "StartFailed" && failure["details"].(map[string]any)["exit"] == nil {
				t.Errorf("no exit in %v", failure)
			}
			b.ended()
			if log := b.log(); !strings.Contains(log, want.log) {
				t.Errorf("the log lacks the reason:\n%s", log)
			}
		})
	}
}

func TestACrashedAppHasItsLastWordsAndItsSignal(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	c := b.warm()
	c.ok(b.runRequest("well behaved"))
	b.get("/crash")
	st := c.await(stateExited)
	if st.Exit.Signal == nil || *st.Exit.Signal != "SIGSEGV" || st.Exit.Code != nil {
		t.Errorf("exit %+v", st.Exit)
	}
	if tail := st.Exit.Tail; len(tail) == 0 || tail[len(tail)-1] != "I crash now" {
		t.Errorf("tail %q", tail)
	}
	b.ended()
	if log := b.log(); !strings.HasSuffix(log, "system: ended by SIGSEGV\n") {
		t.Errorf("log ends %q", log[max(0, len(log)-200):])
	}
}

func TestASandboxThatFailsUnderARunIsNotTheAppsFault(t *testing.T) {
	t.Parallel()
	for source, told := range map[string]string{"break-off-at-start": "EOF", "fail-at-start": "the agent failed: index out of range"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, kindAgent)
			failure := b.warm().refused(b.runRequest(source), "SandboxLost")
			if message := failure["message"].(string); !strings.Contains(message, told) {
				t.Error(message)
			}
			b.ended()
		})
	}
}

func TestALogTellsThatTheAppFailsFromItsFirstAnswerOn(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	c := b.warm()
	c.ok(b.runRequest("well behaved"))
	for range 3 {
		b.get("/fails-once?secret=1")
	}
	b.get("/fails-once")
	c.ok(map[string]any{"op": "stop"})
	b.ended()
	failed := "system: failed before any request succeeded: GET /fails-once was answered 500\n"
	if log := b.log(); strings.Count(log, failed) != 1 ||
		strings.Count(log, "system: succeeds now: GET /fails-once was answered 200\n") != 1 {
		t.Errorf("log %q", log)
	}
}

func TestAKilledCommandIsAnExitWithASignal(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	c := b.warm()
	c.ok(b.runRequest("well behaved"))
	syscall.Kill(b.state().CommandPID, syscall.SIGKILL)
	if st := c.await(stateExited); st.Exit.Signal == nil || *st.Exit.Signal != "SIGKILL" || st.Exit.OOM {
		t.Errorf("exit %+v", st.Exit)
	}
	b.ended()
}

func TestAFailedBootEndsWithItsOutput(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	b.spec["command"] = []string{"/bin/sh", "-c", "echo cannot boot >&2; sleep 0.2; exit 7"}
	c := b.start().connect()
	st := c.await(stateExited)
	if st.Exit.Code == nil || *st.Exit.Code != 7 || !reflect.DeepEqual(st.Exit.Tail, []string{"cannot boot"}) {
		t.Errorf("exit %+v", st.Exit)
	}
	b.ended()
}

func TestABootThatTakesTooLongIsEnded(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	b.spec["command"], b.spec["boot_timeout_s"] = []string{"/bin/sleep", "100"}, 0.3
	c := b.start().connect()
	if st := c.await(stateExited); len(st.Exit.Tail) == 0 || !strings.Contains(st.Exit.Tail[0], "not warm") {
		t.Errorf("exit %+v", st.Exit)
	}
	b.ended()
}

func TestStopLeavesNoDescendant(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	// A grandchild in a session of its own that ignores SIGTERM, whose parent is gone.
	pidFile := b.path("grandchild")
	agent := b.spec["command"].([]string)
	script := fmt.Sprintf(`(setsid sh -c 'trap "" TERM; echo $$ > %s; while :; do sleep 1; done' &) ; exec "$@"`, pidFile)
	b.spec["command"] = append([]string{"/bin/sh", "-c", script, "sh"}, agent...)
	c := b.warm()
	var grandchild int
	eventually(t, "grandchild", func() bool {
		data, _ := os.ReadFile(pidFile)
		grandchild, _ = strconv.Atoi(strings.TrimSpace(string(data)))
		return grandchild > 0
	})
	c.ok(map[string]any{"op": "stop"})
	if alive(grandchild) {
		t.Error("the grandchild is left")
		syscall.Kill(grandchild, syscall.SIGKILL)
	}
	b.ended()
}

func TestSIGTERMStopsAndSIGHUPDoesNot(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	c := b.warm()
	c.ok(b.runRequest("well behaved"))
	b.process.Process.Signal(syscall.SIGHUP)
	b.process.Process.Signal(syscall.SIGPIPE)
	if status, _ := b.get("/"); status != 200 {
		t.Error("SIGHUP disturbed it")
	}
	b.process.Process.Signal(syscall.SIGTERM)
	b.ended()
	if st := b.state(); st.State != stateExited || *st.Exit.Code != 0 {
		t.Errorf("%+v", st)
	}
}

func TestACommandDoesNotOutliveItsSupervisor(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	b.warm()
	command := b.state().CommandPID
	b.process.Process.Kill()
	eventually(t, "death of the command", func() bool { return !alive(command) })
}

func TestLinksAndFilesInPlaceOfTheAgentsSocketAreRefused(t *testing.T) {
	t.Parallel()
	dir, _ := os.MkdirTemp("/tmp", "sv")
	defer os.RemoveAll(dir)
	l, _ := net.Listen("unix", filepath.Join(dir, "host.sock"))
	defer l.Close()
	os.Symlink("host.sock", filepath.Join(dir, "link.sock"))
	os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600)
	for _, name := range []string{"link.sock", "file.sock"} {
		if conn, err := (&appSocket{path: filepath.Join(dir, name)}).dial(t.Context()); err == nil {
			conn.Close()
			t.Errorf("%s was connected to", name)
		} else if !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if conn, err := (&appSocket{path: filepath.Join(dir, "host.sock")}).dial(t.Context()); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	os.Symlink(dir, dir+"-link")
	defer os.Remove(dir + "-link")
	if _, err := (&appSocket{path: filepath.Join(dir+"-link", "host.sock")}).dial(t.Context()); err == nil {
		t.Error("a linked directory was followed")
	}
}

func TestSocketsMayHaveLongPaths(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	os.MkdirAll(dir, 0o700)
	l, err := listenUnix(filepath.Join(dir, "a.sock"), 0o660, owner{os.Getuid(), os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := (&appSocket{path: filepath.Join(dir, "a.sock")}).dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestTheControlSocketAnswersNonsenseWithAnError(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	good := b.warm()
	conn, _ := net.Dial("unix", b.path("ctl.sock"))
	defer conn.Close()
	nonsense := "{\n[]\n\x00\xff\n{\"id\": {}, \"op\": 5}\n{\"id\": 9, \"op\": \"fly\"}\n{\"id\": 8, \"op\": \"run\", \"version\": \"x\"}\n" +
		strings.Repeat("x", 3<<20) + "\n{\"id\": 7, \"op\": \"status\"}\n"
	go io.WriteString(conn, nonsense)
	decoder := json.NewDecoder(conn)
	errors, codes := 0, map[string]int{}
	for {
		var message struct {
			ID    any            `json:"id"`
			OK    map[string]any `json:"ok"`
			Error *fault         `json:"error"`
		}
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if err := decoder.Decode(&message); err != nil {
			t.Fatal(err)
		}
		if message.Error != nil {
			errors++
			codes[message.Error.Code]++
		}
		if message.OK != nil {
			break
		}
	}
	if errors != 7 && codes["UnknownOp"] != 1 {
		t.Errorf("%d errors: %v", errors, codes)
	}
	if good.ok(map[string]any{"op": "status"})["state"] != stateWarm {
		t.Error("another connection was disturbed")
	}
}

func TestClientsThatFloodOrNeverReadDisturbNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindAgent)
	c := b.warm()
	for range 20 {
		conn, err := net.Dial("unix", b.path("ctl.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			for range 20000 {
				if _, err := io.WriteString(conn, "{\"id\": 1, \"op\": \"status\"}\n"); err != nil {
					return
				}
			}
		}()
	}
	c.ok(b.runRequest("well behaved"))
	if status, _ := b.get("/"); status != 200 {
		t.Error("the app does not answer")
	}
	c.ok(map[string]any{"op": "stop", "grace_s": 1})
	b.ended()
}

func TestStateJSONIsWholeAtEveryMoment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	f := newStateFile(path, state{ID: "s0123456789a", State: stateBooting})
	f.update(func(*state) bool { return true })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 3000 {
			f.update(func(s *state) bool { s.Template = strings.Repeat("x", i%500); return true })
		}
	}()
	for {
		data, err := os.ReadFile(path)
		if err != nil || !json.Valid(data) {
			t.Fatalf("%v: %q", err, data)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestCgroupAndOOMKill(t *testing.T) {
	group := fmt.Sprintf("/sys/fs/cgroup/memory/vibed-test-%d", os.Getpid())
	procs, oom, limit := group+"/cgroup.procs", group+"/memory.oom_control", group+"/memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		base := fmt.Sprintf("/sys/fs/cgroup/vibed-test-%d", os.Getpid())
		group, procs, oom, limit = base, base+"/cgroup.procs", base+"/memory.events", base+"/memory.max"
		os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0)
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatalf("this test needs to make a cgroup: %v", err)
	}
	defer func() { eventually(t, "removal of the cgroup", func() bool { return os.Remove(group) == nil }) }()
	os.WriteFile(limit, []byte("134217728"), 0)
	b := newBed(t, kindAgent)
	b.spec["cgroup_procs"], b.spec["cgroup_oom"] = []string{procs}, oom
	b.spec["command"] = []string{"/bin/sh", "-c", "sleep 0.1; tail /dev/zero; sleep 100"}
	c := b.start().connect()
	// The shell itself goes on when its tail is killed: the boot ends it.
	eventually(t, "kill for memory", func() bool { return oomKills(oom) > 0 })
	if pids := cgroupPids([]string{procs}); len(pids) == 0 {
		t.Error("the command is not in its cgroup")
	}
	c.ok(map[string]any{"op": "stop"})
	if st := b.state(); !st.Exit.OOM {
		t.Errorf("exit %+v", st.Exit)
	}
	if pids := cgroupPids([]string{procs}); len(pids) != 0 {
		t.Errorf("left in the cgroup: %v", pids)
	}
	b.ended()
}

func TestOOMCountsOfBothCgroupVersions(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"v1": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "v2": "low 0\nhigh 1\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n",
	} {
		file := filepath.Join(dir, name)
		os.WriteFile(file, []byte(content), 0o600)
		if n := oomKills(file); n != 2 {
			t.Errorf("%s: %d", name, n)
		}
	}
}

func TestTheProxysConnectionsAreHandedOverToTheNextVersion(t *testing.T) {
	old, next := newBed(t, kindAgent), newBed(t, kindAgent)
	for _, b := range []*bed{old, next} {
		b.warm().ok(b.runRequest("serve"))
	}
	oldControl, nextControl := old.connect(), next.connect()
	client := old.http()
	ask := func() {
		t.Helper()
		resp, err := client.Get("http://todo/")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	total := func(c *controlClient) any { return c.ok(map[string]any{"op": "requests"})["total"] }
	ask()
	oldControl.ok(map[string]any{"op": "hand_over", "to": next.dir, "socket": next.path("app.a.sock")})
	ask()
	ask()
	if one, two := total(oldControl), total(nextControl); one.(float64)+two.(float64) < 3 || two.(float64) != 2 {
		t.Errorf("%v requests of the old version, %v of the next", one, two)
	}
	oldControl.refused(map[string]any{"op": "hand_over", "to": old.path("nowhere"), "socket": "x"}, "HeirUnreachable")
	oldControl.ok(map[string]any{"op": "hand_over", "to": "", "socket": ""})
	fresh := old.http()
	resp, err := fresh.Get("http://todo/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if two := total(nextControl); two.(float64) != 2 {
		t.Errorf("after it was taken back the next version has seen %v", two)
	}
}

func TestOfSeveralHandOversTheLastWordCountsInWhateverOrderTheyAreHeard(t *testing.T) {
	old, over, next := newBed(t, kindAgent), newBed(t, kindAgent), newBed(t, kindAgent)
	for _, b := range []*bed{old, over, next} {
		b.warm().ok(b.runRequest("serve"))
	}
	control := old.connect()
	tell := func(to *bed, order int) {
		control.ok(map[string]any{"op": "hand_over", "to": to.dir, "socket": to.path("app.a.sock"), "order": order})
	}
	tell(next, 2)
	tell(over, 1)
	control.ok(map[string]any{"op": "hand_over", "to": "", "socket": "", "order": 1})
	resp, err := old.http().Get("http://todo/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for b, want := range map[*bed]float64{old: 0, over: 0, next: 1} {
		if got := b.connect().ok(map[string]any{"op": "requests"})["total"]; got != want {
			t.Errorf("%s has seen %v requests, not %v", b.dir, got, want)
		}
	}
	tell(over, 3)
	if resp, err = old.http().Get("http://todo/"); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := over.connect().ok(map[string]any{"op": "requests"})["total"]; got != 1.0 {
		t.Errorf("the later word was not heard: %v", got)
	}
}

func TestNothingIsHandedOverBeforeAnAppRuns(t *testing.T) {
	newBed(t, kindAgent).warm().refused(map[string]any{"op": "hand_over", "to": "/x", "socket": "/x"}, "NotRunning")
}

func TestALinkOrAPipeInPlaceOfASourceIsRefused(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink("/etc/hostname", path) },
		"pipe": func(path string) error { return syscall.Mkfifo(path, 0o666) },
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if f, _, err := openRegular(path); err == nil {
			f.Close()
			t.Errorf("a %s was opened", name)
		}
	}
}
