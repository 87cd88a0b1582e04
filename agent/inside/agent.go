// Package inside is the agent: PID 1 of a sandbox of the general lane. It takes the source, starts the app as a uid
// of its own, finds the port that the app listens on, relays to it, and keeps what the app writes.
// docs/reference/supervisor.md, section Agent, is its contract.
package inside

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// agent is the whole state. mu guards the fields below it and is never held while anything is waited for.
type agent struct {
	appDir, home string
	hosts        string // the file
	who          Identity
	templateEnv  map[string]string
	nulls        int
	reaper       *reaper
	out          *output
	relay        *relay
	init         bool
	ours         map[int]bool  // ports of the supervisor, where it shares the sandbox's network
	builder      bool          // it runs jobs, and no app
	nobodyLeft   chan struct{} // a token whenever children were reaped

	mu      sync.Mutex
	state   string // warm, injecting, starting, running, exited
	claimed bool
	started bool
	stopped bool
	reading bool
	entropy string
	limits  Limits
	pid     int
	port    int
	site    site
	// singular: what was started is no Node program, nor a shell that may start one
	singular  bool
	noWorkers map[int]bool // processes that are none of a cluster's
	// stopSignal is what tells the app to stop
	stopSignal syscall.Signal
	exit       *exitStatus
	verdict    *exitStatus // how it ended, where that is not its first process's status

	mourning bool
	done     chan struct{} // closed when the app has ended
	zygotes  []*zygote
}

const (
	defaultUID  = 1000
	defaultPort = 8080
)

// Main is the mode "agent".
func Main(args []string) int {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	socketPath := flags.String("socket", "/run/vibed/agent.sock", "where the agent listens")
	appSocket := flags.String("app-socket", "/run/vibed/app.sock", "where connections to the app arrive")
	appDir := flags.String("app", "/app", "the source, working directory of the app")
	home := flags.String("home", "/home/app", "home directory of the app")
	data := flags.String("data", "/run/data", "what the app finds as /data when no data comes")
	hosts := flags.String("hosts", "/run/etc/hosts", "the names of this machine, where /etc/hosts leads")
	uid := flags.Int("uid", defaultUID, "uid and gid of the app")
	zygotes := flags.String("zygotes", "/etc/vibed/zygotes.json", "warm processes of the template")
	env := flags.String("env", "/etc/vibed/env.json", "environment variables of the template")
	alone := flags.Bool("alone", false, "nothing runs in this pid namespace but the sandbox and its supervisor, which is its init")
	ours := flags.String("ours", "", "ports that listen and are not the app's, separated by commas")
	registry := flags.String("registry", "", "the socket of the registry gate, in a builder sandbox")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "vibed-agent agent:", err)
		return 1
	}
	// Small and steady: the agent is in every sandbox.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(24 << 20)
	syscall.Umask(0o022)
	// The app may share the agent's uid: its memory and descriptors are nobody else's.
	const prSetDumpable, prSetChildSubreaper = 4, 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)

	a := &agent{appDir: *appDir, home: *home, hosts: *hosts, who: identity(*uid), reaper: newReaper(), out: newOutput(), relay: &relay{}, ours: map[int]bool{},
		init: os.Getpid() == 1 || *alone, state: "warm", nobodyLeft: make(chan struct{}, 1), done: make(chan struct{})}
	for port := range strings.SplitSeq(*ours, ",") {
		if n, err := strconv.Atoi(port); err == nil {
			a.ours[n] = true
		}
	}
	a.relay.again = a.look
	a.relay.tell = func(text string) { a.out.system("%s", text) }
	a.reaper.onReaped = func() {
		select {
		case a.nobodyLeft <- struct{}{}:
		default:
		}
	}
	var err error
	if a.templateEnv, err = readEnv(*env); err != nil {
		return fail(err)
	}
	if a.nulls, err = syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0); err != nil {
		return fail(fmt.Errorf("/dev/null: %w", err))
	}
	for _, dir := range []string{*appDir, *home} {
		if err := a.own(dir); err != nil {
			return fail(err)
		}
	}
	if err := a.own(*data); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	a.nameHosts()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // all: as PID 1, and against an app of the same uid
	specs, err := readZygotes(*zygotes)
	if err != nil {
		return fail(err)
	}
	control, err := listen(*socketPath)
	if err != nil {
		return fail(err)
	}
	traffic, err := listen(*appSocket)
	if err != nil {
		return fail(err)
	}
	if *registry != "" {
		if err := openRegistry(*registry); err != nil {
			return fail(err)
		}
		a.builder = true
	}
	go a.relay.serve(traffic)
	server := a.server()
	go func() { _ = server.Serve(control) }()
	a.mu.Lock()
	for _, s := range specs {
		a.zygotes = append(a.zygotes, a.startZygote(s))
	}
	a.mu.Unlock()
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			a.reaper.collect()
		case syscall.SIGTERM, syscall.SIGINT:
			go func() {
				a.stop(5 * time.Second)
				os.Exit(0)
			}()
		}
	}
	return 0
}

func listen(file string) (net.Listener, error) {
	_ = os.Remove(file)
	l, err := net.Listen("unix", file)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func readEnv(file string) (map[string]string, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var env map[string]string
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return env, nil
}

// own makes a directory of the app the app's.
func (a *agent) own(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) == a.who.UID && int(st.Gid) == a.who.GID || a.who.Same {
		return nil
	}
	return os.Lchown(dir, a.who.UID, a.who.GID)
}
