package supervise

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary is also everything that a supervisor meets: itself, the agent in a sandbox, a worker, and commands.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "supervise":
			os.Exit(Main(os.Args[2:]))
		case "confine":
			syscall.Exec(os.Args[4], os.Args[4:], append(os.Environ(), "CONFINED="+os.Args[2]))
			os.Exit(127)
		case "fake-agent":
			fakeAgent(os.Args[2], os.Args[3])
		case "fake-worker":
			fakeWorker(os.Args[2], os.Args[3])
		}
	}
	os.Exit(m.Run())
}

// fakeAgent speaks the agent's routes on one socket and is the app on another. The source that it is given says how the
// app behaves, one word a line.
func fakeAgent(agentSocket, appSocket string) {
	output, exited, ended := make(chan string, 1<<16), make(chan struct{}), make(chan struct{})
	var breaksOff atomic.Bool
	unsent := ""
	status := map[string]any{"state": "idle", "exit": nil}
	behaviour := ""
	finish := func(code any, signal any) {
		status["exit"] = map[string]any{"code": code, "signal": signal}
		close(output)
		close(exited)
		<-ended
	}
	say := func(stream, text string) {
		line, _ := json.Marshal(map[string]string{"stream": stream, "text": text})
		output <- string(line)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"ok": true}`) })
	mux.HandleFunc("POST /claim", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		say("stdout", "claimed "+string(body))
	})
	mux.HandleFunc("POST /inject", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		behaviour = string(body)
		say("stdout", fmt.Sprintf("injected %d strip=%s", len(body), r.URL.Query().Get("strip")))
		if strings.Contains(behaviour, "disk-full") {
			w.WriteHeader(413)
			io.WriteString(w, `{"code": "DiskFull", "message": "no room for it"}`)
		}
	})
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		say("stdout", "start "+string(body))
		breaksOff.Store(strings.Contains(behaviour, "log-breaks-off"))
		switch {
		case strings.Contains(behaviour, "crash-at-start"):
			say("stderr", "Traceback: it does not work")
			w.WriteHeader(422)
			io.WriteString(w, `{"code": "StartFailed", "message": "the app ended", "exit": {"code": 3, "signal": null}}`)
			go finish(3, nil)
		case strings.Contains(behaviour, "die-at-start"):
			say("stderr", "last words")
			time.Sleep(50 * time.Millisecond)
			os.Exit(137)
		case strings.Contains(behaviour, "break-off-at-start"):
			panic(http.ErrAbortHandler)
		case strings.Contains(behaviour, "fail-at-start"):
			w.WriteHeader(500)
			io.WriteString(w, `{"code": "Internal", "message": "the agent failed: index out of range"}`)
		default:
			l, _ := net.Listen("unix", appSocket)
			go http.Serve(l, app(say, finish))
			io.WriteString(w, `{"port": 8080}`)
		}
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		say("stdout", "asked to stop")
		go finish(0, nil)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(status) })
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, unsent)
		for line := range output {
			if breaksOff.CompareAndSwap(true, false) {
				unsent = line + "\n"
				<-exited
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, line+"\n")
			w.(http.Flusher).Flush()
		}
		close(ended)
	})
	l, err := net.Listen("unix", agentSocket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("agent is there")
	http.Serve(l, mux)
}

func app(say func(stream, text string), finish func(code, signal any)) http.Handler {
	var failed atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Millisecond)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "hello %d", n)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(500 * time.Millisecond)
		io.WriteString(w, "done")
	})
	mux.HandleFunc("/fails-once", func(w http.ResponseWriter, r *http.Request) {
		if failed.CompareAndSwap(false, true) {
			say("stderr", "ZeroDivisionError")
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/crash", func(w http.ResponseWriter, r *http.Request) {
		say("stderr", "I crash now")
		go finish(nil, "SIGSEGV")
	})
	mux.HandleFunc("/lines", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		for i := range n {
			say("stdout", fmt.Sprintf("line %d %s", i, strings.Repeat("x", 100)))
		}
	})
	return mux
}

// fakeWorker takes its sockets as descriptors, its behaviour as the code that is posted to the admin socket.
func fakeWorker(httpFD, adminFD string) {
	listener := func(fd string) net.Listener {
		n, _ := strconv.Atoi(fd)
		l, err := net.FileListener(os.NewFile(uintptr(n), fd))
		if err != nil {
			fmt.Fprintln(os.Stderr, fd, err)
			os.Exit(1)
		}
		return l
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() { <-terminate; fmt.Println("told to end"); os.Exit(0) }()
	wedged := make(chan struct{})
	admin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-wedged:
			select {}
		default:
		}
		code, _ := io.ReadAll(r.Body)
		if strings.Contains(string(code), "syntax error") {
			fmt.Fprintln(os.Stderr, "Uncaught SyntaxError at index.js:1")
			w.WriteHeader(422)
			io.WriteString(w, `{"ok": false, "message": "Failed to start Worker"}`)
			return
		}
		io.WriteString(w, `{"ok": true}`)
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(`{"timestamp": 1764000000, "level": "error", "message": "a complaint\nof two lines"}`)
		fmt.Println("plain")
		io.WriteString(w, "from the worker "+os.Getenv("CONFINED"))
	})
	mux.HandleFunc("/wedge", func(w http.ResponseWriter, r *http.Request) { close(wedged); select {} })
	mux.HandleFunc("/raw", func(w http.ResponseWriter, r *http.Request) { io.Copy(os.Stdout, r.Body) })
	go http.Serve(listener(adminFD), admin)
	http.Serve(listener(httpFD), mux)
}
