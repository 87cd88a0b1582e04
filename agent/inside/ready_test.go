package inside

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// prefork is a master that binds and listens, and workers that prepare themselves before they serve.
func prefork(prepare string) string {
	return `import os, socket, sys, time
s = socket.create_server(("0.0.0.0", 8080))
def worker():
` + prepare + `
    while True:
        c, _ = s.accept()
        if c.recv(4096):
            c.sendall(b"HTTP/1.0 200 OK\r\n\r\nserved")
        c.close()
for _ in range(2):
    if os.fork() == 0:
        worker()
pid, status = os.wait()
os.kill(0, 9) if not status else os._exit(3)
`
}

func TestAMasterThatListensBeforeItsWorkersServeIsNotReady(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": prefork("    while not os.path.exists('/tmp/go'): time.sleep(0.01)")})
	result := make(chan map[string]any, 1)
	go func() {
		_, out := b.start(nil)
		result <- out
	}()
	for range 1000 {
		if out := b.must("GET", "/status", nil); out["state"] == "starting" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case out := <-result:
		t.Fatalf("ready: %v", out)
	case <-time.After(700 * time.Millisecond):
	}
	if out := b.must("GET", "/status", nil); out["state"] != "starting" || out["port"] != nil {
		t.Error(out)
	}
	b.must("POST", "/stop", nil)
	if out := <-result; out["code"] != "StartFailed" {
		t.Error(out)
	}
}

func TestWorkersThatCannotStartAreAFailedStart(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": prefork("    time.sleep(0.3); os.environ['API_TOKEN']")})
	status, out := b.start(nil)
	if status != 422 || out["code"] != "StartFailed" || fmt.Sprint(out["exit"]) != "map[code:3 signal:<nil>]" {
		t.Errorf("%d %v", status, out)
	}
	if logs := b.logs(); !strings.Contains(logs, "KeyError: 'API_TOKEN'") {
		t.Error(logs)
	}
}

func TestAMasterThatStartsDyingWorkersForEverIsAFailedStart(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": `import os, socket, time
s = socket.create_server(("0.0.0.0", 8080))
while True:
    if os.fork() == 0:
        time.sleep(0.3)
        raise RuntimeError("no table")
    os.wait()
`})
	status, out := b.start(nil)
	if status != 422 || out["code"] != "StartFailed" || !strings.Contains(fmt.Sprint(out["message"]), "workers end before they serve") {
		t.Errorf("%d %v", status, out)
	}
	if logs := b.logs(); !strings.Contains(logs, "no table") {
		t.Error(logs)
	}
}

func TestAServerThatBindsBeforeItIsPreparedIsNotReady(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": strings.Replace(strings.Replace(server(`prepared`, "127.0.0.1", 8080),
		"S((", "prepared = None\nimport time\ns = S((", 1), ".serve_forever()", "\ntime.sleep(0.6); prepared = 'yes'\ns.serve_forever()", 1)})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	if got := b.get(); got != "yes" {
		t.Error(got)
	}
}

func TestHowReadinessIsFoundOutCostsTheAppNothing(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	// It takes one connection at a time, counts them, and would end at an empty request.
	b.inject(map[string]string{"app.py": `import socket
s = socket.create_server(("127.0.0.1", 8080))
n = 0
while True:
    c, _ = s.accept()
    n += 1
    path = c.recv(4096).split()[1]
    c.sendall(b"HTTP/1.0 200 OK\r\n\r\n%d %s" % (n, path)); c.close()
`})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	time.Sleep(300 * time.Millisecond)
	for i, want := range []string{"1 /", "2 /", "3 /"} {
		if got := b.get(); got != want {
			t.Errorf("request %d: %q", i+1, got)
		}
	}
}

func TestAConnectionThatTheAppClosedMeanwhileIsNotUsed(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": `import socket
s = socket.create_server(("127.0.0.1", 8080))
while True:
    c, _ = s.accept()
    c.settimeout(0.2)
    try:
        c.recv(4096); c.sendall(b"HTTP/1.0 200 OK\r\n\r\nserved")
    except TimeoutError: pass
    c.close()
`})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	time.Sleep(500 * time.Millisecond)
	if got := b.get(); got != "served" {
		t.Error(got)
	}
}

// beside is a server that answers "pages", after some other code.
func beside(code string, port int) string {
	head, tail, _ := strings.Cut(server(`"pages"`, "127.0.0.1", port), "print(\"serving\"")
	return head + "import threading, time\ndef beside(port):\n    threading.Thread(target=lambda: __import__('socketserver').TCPServer(('127.0.0.1', port), None).serve_forever()).start()\n" +
		code + "\nprint(\"serving\"" + tail
}

func TestThePagesAreServedAlthoughMetricsAreThereFirst(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": beside("beside(9100)  # the port of the metrics\ntime.sleep(1)", 5000)})
	status, out := b.start(map[string]any{"expected_ports": []int{5000}})
	if status != 200 || out["note"] != "listens on 5000 and 9100: 5000 is served, since the source starts its site there; 9100 is out of reach from outside" {
		t.Errorf("%d %v", status, out)
	}
	if got := b.get(); got != "pages" {
		t.Errorf("%q", got)
	}
}

func TestThePortInPORTTakesOverWhenItOpensLater(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": strings.Replace(beside("beside(7000 + 1)\ntime.sleep(1)", 1), "S((\"127.0.0.1\", 1)", "S((\"127.0.0.1\", int(os.environ['PORT']))", 1)})
	if status, out := b.start(nil); status != 200 || out["port"] != 7001.0 {
		t.Fatal(status, out)
	}
	var got string
	for range 200 {
		if got = b.get(); got == "pages" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got != "pages" {
		t.Errorf("%q", got)
	}
	b.must("POST", "/stop", nil)
	if logs := b.logs(); !strings.Contains(logs, "no longer 7001: the app listens on 8080 and 7001: 8080 is served, since it is the one in PORT") {
		t.Error(logs)
	}
}

func TestAServerOfSeveralProcessesKeepsNoWorkerWaiting(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": prefork("    pass")})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	for range 20 {
		c := b.app()
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		raw, _ := io.ReadAll(c)
		_ = c.Close()
		if !strings.Contains(string(raw), "served") {
			t.Fatalf("%q", raw)
		}
	}
}

func TestAPoolOfHelpersThatEndsAtOnceIsNotTakenForWorkersThatFailOneAfterTheOther(t *testing.T) {
	pool := &turnover{}
	for _, now := range []map[int]bool{{1: true}, {1: true, 2: true, 3: true, 4: true, 5: true, 6: true}, {1: true}, {1: true}} {
		if n := pool.seen(now); n >= tooMany {
			t.Errorf("given up after %d", n)
		}
	}
	workers := &turnover{}
	for pid := 2; pid < 2+tooMany; pid++ {
		workers.seen(map[int]bool{1: true, pid: true})
	}
	if n := workers.seen(map[int]bool{1: true}); n != tooMany {
		t.Errorf("%d have ended, %d are counted", tooMany, n)
	}
}

func TestPoolsThatAWorkerStartsOneAfterTheOtherAreNotTakenForWorkersThatFail(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": prefork(`    for _ in range(6):
        for _ in range(2):
            if os.fork() == 0:
                time.sleep(0.2)
                os._exit(0)
        os.wait(); os.wait()
        time.sleep(0.15)`)})
	if status, out := b.start(nil); status != 200 {
		t.Error(out)
	}
}

func TestAnAppThatIsToEndGetsNoConnectionToWaitFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := &agent{relay: &relay{}, stopped: true}
	held := knockAt(0, []string{l.Addr().String()})
	a.keep(held, nil)
	if a.relay.holds(held.conn) {
		t.Error("it is held although nobody will use it, and the app drains until it is closed")
	}
}
