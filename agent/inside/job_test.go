package inside

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func job(timeoutS float64, steps ...string) map[string]any {
	var build [][]string
	for _, step := range steps {
		build = append(build, []string{"sh", "-c", step})
	}
	return map[string]any{"build": build, "timeout_s": timeoutS, "env": map[string]string{"K": "v"}}
}

func TestAJobEndsWithItsLastStepAndAllThatItLeft(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"given": "text"})
	out := b.must("POST", "/start", job(20, "echo $K > made; (sleep 3600) & echo first", "cat made given >&2"))
	if out["port"] != 0.0 {
		t.Error(out)
	}
	// It ends: what the first step left in the background, with its standard output, is gone.
	if logs := b.logs(); !strings.Contains(logs, `"text":"first"`) || !strings.Contains(logs, `"text":"v"`) || !strings.Contains(logs, `"text":"text"`) {
		t.Error(logs)
	}
	if out := b.must("GET", "/status", nil); out["state"] != "exited" || fmt.Sprint(out["exit"]) != "map[code:0 signal:<nil>]" {
		t.Error(out)
	}
}

func TestAJobEndsWithTheFirstStepThatFails(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	status, out := b.call("POST", "/start", job(20, "true", "echo why; exit 7", "echo never"))
	if status != 422 || out["code"] != "BuildFailed" || fmt.Sprint(out["exit"]) != "map[code:7 signal:<nil>]" {
		t.Error(status, out)
	}
	if logs := b.logs(); logs != "{\"stream\":\"build\",\"text\":\"why\"}\n" {
		t.Errorf("%q", logs)
	}
}

func TestAJobHasOneTimeForAllOfItsSteps(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	status, out := b.call("POST", "/start", job(3, "sleep 2", "sleep 2", "echo never"))
	if status != 422 || out["code"] != "BuildFailed" || !strings.Contains(fmt.Sprint(out["message"]), "was not done within 3s") {
		t.Error(status, out)
	}
	if logs := b.logs(); logs != "" {
		t.Error(logs)
	}
}

func TestABuilderIsJoinedToItsGateAndRunsNoApp(t *testing.T) {
	t.Parallel()
	b := boot(t, options{flags: []string{"-registry=/run/vibed/gate.sock"}})
	_, program := python(t)
	if status, out := b.start(nil); status != 422 || !strings.Contains(fmt.Sprint(out["message"]), "runs no app") {
		t.Error(status, out)
	}
	socket := filepath.Join(b.in, "gate.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_ = os.Chmod(socket, 0o666)
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s %s %d", r.Host, r.URL.Path, len(body))
		}))
	}()
	ask := program + ` -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:3128/npm/x", b"x" * 300000).read().decode())'`
	b.must("POST", "/start", job(20, ask))
	if logs := b.logs(); !strings.Contains(logs, "127.0.0.1:3128 /npm/x 300000") {
		t.Error(logs)
	}
}

func TestAnAppsSandboxHasNoAddressOfRegistries(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	_, program := python(t)
	ask := program + ` -c 'import socket; print(socket.socket().connect_ex(("127.0.0.1", 3128)))'`
	b.must("POST", "/start", job(20, ask))
	if logs := b.logs(); !strings.Contains(logs, `"text":"111"`) {
		t.Error(logs)
	}
}
