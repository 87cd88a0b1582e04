package inside

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// shell starts a command line as an app.
func (b *box) shell(line string) (int, map[string]any) {
	_, program := python(b.t)
	return b.call("POST", "/start", map[string]any{"shell": strings.ReplaceAll(line, "python3", program), "port": 8080, "timeout_s": 20})
}

func (b *box) state() map[string]any { return b.must("GET", "/status", nil) }

func TestACommandWithTwoProcessesRunsBoth(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": server(`open("/tmp/worker").read()`, "127.0.0.1", 8080), "worker.py": "import time\nopen('/tmp/worker', 'w').write('works')\ntime.sleep(60)\n"})
	if status, out := b.shell("python3 worker.py & python3 app.py"); status != 200 {
		t.Fatal(out)
	}
	var got string
	for range 100 {
		if got = b.get(); got == "works" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got != "works" {
		t.Errorf("%q", got)
	}
}

func TestTheAppLivesWhileTheProcessThatServesLives(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": server(`"served"`, "127.0.0.1", 8080), "worker.py": "import time, sys\ntime.sleep(1)\nsys.exit('the worker is broken')\n"})
	if status, out := b.shell("python3 app.py & python3 worker.py"); status != 200 {
		t.Fatal(out)
	}
	time.Sleep(2 * time.Second)
	if got := b.get(); got != "served" {
		t.Errorf("%q", got)
	}
	b.must("POST", "/stop", nil)
	if logs := b.logs(); !strings.Contains(logs, "the worker is broken") || !strings.Contains(logs, "the first process of the app ended (exit code 1); another one serves on") {
		t.Error(logs)
	}
}

func TestTheAppEndsWhenNobodyServesAnyMore(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import os, threading\nthreading.Timer(0.7, lambda: os._exit(5)).start()\n" + server(`"served"`, "127.0.0.1", 8080)})
	if status, out := b.shell("python3 app.py & sleep 60"); status != 200 {
		t.Fatal(out)
	}
	for range 600 { // visitors find nobody there
		b.get()
		if b.state()["state"] == "exited" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if fmt.Sprint(b.state()["exit"]) != "map[code:1 signal:<nil>]" {
		t.Error(b.state())
	}
	if logs := b.logs(); !strings.Contains(logs, "no process of the app listens any more") {
		t.Error(logs)
	}
}

func TestAFailureOfTheServerIsOneOfTheStartAlthoughAnotherProcessRuns(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import sys\nsys.exit(4)\n"})
	if status, out := b.shell("sleep 60 & python3 app.py"); status != 422 || fmt.Sprint(out["exit"]) != "map[code:4 signal:<nil>]" {
		t.Error(status, out)
	}
}

func TestAServerBelowAShellEndsInOrder(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": "import signal, time, os\ndef end(*_):\n    time.sleep(0.5); print('saved', flush=True); os._exit(0)\nsignal.signal(signal.SIGTERM, end)\n" +
		server(`"served"`, "127.0.0.1", 8080)})
	if status, out := b.shell("python3 app.py; true"); status != 200 {
		t.Fatal(out)
	}
	b.must("POST", "/stop", map[string]any{"grace_s": 5})
	if logs := b.logs(); !strings.Contains(logs, "saved") {
		t.Errorf("the server was killed with its shell: %s", logs)
	}
}

func TestAnAppIsToldToStopByTheSignalThatItTakes(t *testing.T) {
	t.Parallel()
	deaf := "import signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" +
		"def bye(*_):\n    print('it says goodbye', flush=True)\n    sys.exit(0)\nsignal.signal(signal.SIGINT, bye)\n"
	for signal, goodbye := range map[string]bool{"SIGINT": true, "": false, "SIGKILL": false} {
		t.Run("signal "+signal, func(t *testing.T) {
			t.Parallel()
			b := boot(t, options{})
			b.inject(map[string]string{"app.py": deaf + server(`"served"`, "127.0.0.1", 8080)})
			_, program := python(t)
			start := map[string]any{"argv": []string{program, "app.py"}, "port": 8080, "timeout_s": 20, "stop_signal": signal}
			if status, out := b.call("POST", "/start", start); status != 200 {
				t.Fatal(out)
			}
			b.must("POST", "/stop", map[string]any{"grace_s": 2})
			if said := strings.Contains(b.logs(), "it says goodbye"); said != goodbye {
				t.Error(b.logs())
			}
		})
	}
}
