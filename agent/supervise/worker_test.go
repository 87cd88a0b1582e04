package supervise

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestAWorkerTakesItsSocketsAndItsCode(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindWorker)
	b.spec["confine"] = map[string]any{"uid": 1, "rlimits": map[string]int{"nofile": 100}}
	c := b.warm()
	ok := c.ok(b.runRequest(`{"mainModule": "index.js"}`))
	if ok["port"] != nil {
		t.Errorf("port %v", ok["port"])
	}
	if status, body := b.get("/"); status != 200 || body != "from the worker "+b.path("confine.json") {
		t.Errorf("%d %q", status, body)
	}
	confine, _ := os.ReadFile(b.path("confine.json"))
	if !strings.Contains(string(confine), `"keep_fds":[3,4]`) || !strings.Contains(string(confine), `"nofile":100`) {
		t.Errorf("confine.json: %s", confine)
	}
	c.ok(map[string]any{"op": "stop"})
	b.ended()
	log := b.log()
	for _, want := range []string{"stderr: a complaint\nstderr: of two lines\n", "stdout: plain\n", "stdout: told to end\n",
		"system: exited with status 0\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	for _, name := range []string{"http.sock", "admin.sock", "app.a.sock"} {
		if _, err := os.Lstat(b.path(name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

func TestAWorkerThatRejectsItsCodeSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindWorker)
	c := b.warm()
	failure := c.refused(b.runRequest("syntax error"), "WorkerRejected")
	if failure["message"] != "Failed to start Worker" {
		t.Errorf("message %v", failure["message"])
	}
	log, _ := failure["details"].(map[string]any)["log"].([]any)
	if len(log) != 1 || log[0] != "Uncaught SyntaxError at index.js:1" {
		t.Errorf("details %v", failure["details"])
	}
	b.ended()
}

func TestAWorkerThatDoesNotYieldIsKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, kindWorker)
	c := b.warm()
	c.ok(b.runRequest("{}"))
	status := make(chan int, 1)
	go func() {
		resp, err := b.http().Get("http://todo/wedge")
		if err != nil {
			status <- 0
			return
		}
		status <- resp.StatusCode
	}()
	if st := c.await(stateExited); st.Exit.Signal == nil || *st.Exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", st.Exit)
	}
	if got := <-status; got != http.StatusBadGateway && got != 0 {
		t.Errorf("the request in it got %d", got)
	}
	b.ended()
	if !strings.Contains(b.log(), "system: the worker did not yield for 5 s\n") {
		t.Error("the log does not say why")
	}
}
