package inside

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// cluster starts a node:cluster of two workers; worker is what each of them does, id its number among all that were
// forked, and onExit what the primary does when one has ended.
func (b *box) cluster(worker, onExit string) (int, map[string]any) {
	b.t.Helper()
	program, err := exec.LookPath("node")
	if err != nil || !strings.HasPrefix(program, "/usr/") {
		b.t.Skip("SKIPPED, NOT TESTED: needs Node in /usr, which the sandboxes of these tests have")
	}
	b.inject(map[string]string{"app.js": `const cluster = require("node:cluster"), http = require("node:http");
if (cluster.isPrimary) {
  cluster.fork(); cluster.fork();
  cluster.on("exit", () => {` + onExit + `});
} else {
  const id = cluster.worker.id;
  const serve = (then) => http.createServer((q, r) => r.end("worker " + id)).listen(8080, then);
  ` + worker + `
}
`})
	return b.start(map[string]any{"argv": []string{program, "app.js"}})
}

func TestAClusterWhoseWorkersEndWhenTheyListenIsAFailedStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ worker, onExit, told string }{
		"others follow":      {`serve(() => { throw new Error("no licence file") });`, `cluster.fork();`, "workers end before they serve"},
		"no one follows":     {`serve(() => { throw new Error("no licence file") });`, ``, "the app ended before it served"},
		"a moment later":     {`serve(() => setTimeout(() => { throw new Error("no licence file") }, 30));`, `cluster.fork();`, "workers end before they serve"},
		"before they listen": {`throw new Error("no licence file");`, `cluster.fork();`, "workers end before they serve"},
	} {
		t.Run(name, func(t *testing.T) {
			b := boot(t, options{})
			if status, out := b.cluster(c.worker, c.onExit); status != 422 || out["code"] != "StartFailed" || !strings.Contains(out["message"].(string), c.told) {
				t.Errorf("%d %v", status, out)
			}
			b.must("POST", "/stop", nil)
			if logs := b.logs(); !strings.Contains(logs, "no licence file") {
				t.Error(logs)
			}
		})
	}
}

func TestAClusterIsReadyWhenOneOfItsWorkersServes(t *testing.T) {
	t.Parallel()
	for name, worker := range map[string]string{
		"all do":                 `serve();`,
		"one of two ends":        `if (id === 1) serve(() => { throw new Error("worker 1") }); else serve();`,
		"one of two ends always": `if (id !== 2) serve(() => { throw new Error("worker " + id) }); else serve();`,
		"they take their time":   `setTimeout(serve, 1000);`,
	} {
		t.Run(name, func(t *testing.T) {
			b := boot(t, options{})
			if status, out := b.cluster(worker, `cluster.fork();`); status != 200 {
				t.Fatalf("%d %v", status, out)
			}
			// The primary hands connections to workers that are about to end as well: those are lost, and are the app's loss.
			got := ""
			for range 50 {
				if got = b.get(); got != "" {
					break
				}
			}
			if !strings.HasPrefix(got, "worker") {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestAClusterWhoseWorkersEndSoonAfterItWasReadyIsEndedWhenItHasAnsweredNobody(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	if status, out := b.cluster(`serve(() => setTimeout(() => { throw new Error("no licence file") }, 1000));`, `cluster.fork();`); status != 200 {
		t.Fatalf("%d %v", status, out)
	}
	for range 600 {
		if b.state()["state"] == "exited" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if fmt.Sprint(b.state()["exit"]) != "map[code:1 signal:<nil>]" {
		t.Error(b.state())
	}
	if logs := b.logs(); !strings.Contains(logs, "no licence file") || !strings.Contains(logs, "workers end before they serve a request") {
		t.Error(logs)
	}
}

func TestAPrimaryThatServesItselfIsReadyWhateverItsWorkersDo(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	if status, out := b.cluster(`setInterval(() => {}, 1000);`, `}); http.createServer((q, r) => r.end("primary")).listen(8080, () => {`); status != 200 {
		t.Fatalf("%d %v", status, out)
	}
	if got := b.get(); got != "primary" {
		t.Errorf("%q", got)
	}
}

// pids are processes that run at the same time.
func pids(of ...int) map[int]bool {
	out := map[int]bool{}
	for _, pid := range of {
		out[pid] = true
	}
	return out
}

func TestWorkersHaveFailedWhenWholeGenerationsOfThemHaveEnded(t *testing.T) {
	for name, c := range map[string]struct {
		looks []map[int]bool
		fails bool
	}{
		"each is followed by another":    {[]map[int]bool{pids(1), pids(2), pids(3), pids(4), pids(5)}, true},
		"with moments without any":       {[]map[int]bool{pids(1, 2), pids(), pids(3, 4), pids(), pids(5), pids(6), pids(), pids(7)}, true},
		"no other follows":               {[]map[int]bool{pids(1, 2, 3, 4, 5), pids(2, 3, 4, 5), pids(3, 4, 5), pids(5), pids()}, false},
		"one of them lives":              {[]map[int]bool{pids(1, 2), pids(1, 3), pids(1, 4), pids(1, 5), pids(1, 6), pids(1, 7)}, false},
		"one that came later lives":      {[]map[int]bool{pids(1, 2), pids(2, 3), pids(3, 4), pids(3, 5), pids(3, 6), pids(3, 7), pids(3, 8)}, false},
		"there are none, as almost ever": {[]map[int]bool{pids(), pids(), pids()}, false},
	} {
		crew := &cluster{}
		for _, now := range c.looks {
			crew.seen(now)
		}
		if crew.fails() != c.fails {
			t.Errorf("%s: fails is %v after %d generations", name, crew.fails(), crew.generations)
		}
	}
}

func TestAServerWhoseHelpersComeAndGoIsReadyAtOnceAndStays(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import subprocess, threading, time\ndef helpers():\n    while True: subprocess.run(['/bin/sleep', '0.1'])\n" +
		"threading.Thread(target=helpers, daemon=True).start()\ntime.sleep(0.3)\n" + server(`"served"`, "127.0.0.1", 8080)})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	time.Sleep(3 * time.Second) // nobody visits it
	if got := b.get(); got != "served" {
		t.Errorf("%q", got)
	}
}
