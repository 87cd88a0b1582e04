// Package pod is PID 1 of a Kubernetes pod that is a sandbox: the supervisor of the agent beside it, the only one whom the
// controller talks to, and the address at which the app is reached.
//
// It is a member of a warm pool until a claim that the controller has signed makes it one app's, once ever. Everything in
// the pod has one uid, so nothing here is a secret that could be told to the app: of the claim's token only the digest is
// kept, the process cannot be looked into, and its environment is passed on to nobody.
// docs/reference/supervisor.md, section Pod, is the contract.
package pod

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"vibed.dev/agent/supervise"
)

// The ports of a pod that are not the app's. Apps share its network, and no app that is known listens on these unasked:
// 8080 and what is near it are theirs.
const (
	ingressPort = 20080
	controlPort = 20081
	probesPort  = 20082
)

const (
	prSetDumpable = 4
	memoryLimit   = 32 << 20
	// linger is how long the account of a run that has ended waits for a controller that is just not there.
	linger = 10 * time.Minute
)

// agent is what a process of this mode consists of.
type agent struct {
	dir, layers string
	app         string
	bare        bool // the sandbox shares the node's kernel
	owned       *supervise.Owned
	owner       *ownership
	fetching    atomic.Bool
	sent        store
	ahead       *ahead
	isolation   isolation
	workshop    *workshop // nil where apps are no workers
	guests      atomic.Pointer[guests]
}

// Main is the mode `vibed-agent pod`. It returns when its run has ended and was told.
func Main(args []string) int {
	flags := flag.NewFlagSet("pod", flag.ContinueOnError)
	host := flags.String("host", "", "the address to listen at; every one by default")
	dir := flags.String("dir", "/run/vibed", "where its own files are")
	app := flags.String("app", "/app", "the source, working directory of the app")
	home := flags.String("home", "/home/app", "home directory of the app")
	layers := flags.String("layers", "/layers", "where what was installed for an app appears")
	zygotes := flags.String("zygotes", "/etc/vibed/zygotes.json", "warm processes of the template")
	env := flags.String("env", "/etc/vibed/env.json", "environment variables of the template")
	bundler := flags.String("bundler", "/usr/bin/esbuild", "what bundles a worker")
	modules := flags.String("modules", "/modules", "packages that a worker may bundle")
	builder := flags.Bool("builder", false, "it runs jobs and no app, and what goes in and out of it the controller carries")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(memoryLimit)
	// The app has this uid, too.
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
	terminate := supervise.Independent()
	a := &agent{dir: *dir, layers: *layers, app: *app, isolation: measure("/")}
	a.bare = a.isolation.Level == levelProcess
	a.sent.dir = *dir
	a.ahead = newAhead(*layers, a.bring)
	certificate, fingerprint, err := selfMade()
	if err == nil {
		a.owner, err = newOwnership(os.Getenv("VIBED_CLAIM_KEYS"), os.Getenv("VIBED_POD_UID"), os.Getenv("VIBED_POD_NAMESPACE"), fingerprint)
	}
	if err == nil {
		err = prepare(*dir, *layers)
	}
	if err != nil {
		return failed(err)
	}
	command, kind := flags.Args(), "worker"
	var confine map[string]any
	if len(command) > 0 {
		a.workshop = &workshop{bundler: *bundler, modules: *modules}
		confine = confined("/", map[string]string{}, 0)
	} else {
		kind = "agent"
		command = []string{"/proc/self/exe", "agent", "-app", *app, "-home", *home, "-data", filepath.Join(*layers, ".data"), "-hosts", "", "-uid", strconv.Itoa(os.Getuid()),
			"-zygotes", *zygotes, "-env", *env, "-socket", filepath.Join(*dir, "agent.sock"), "-app-socket", filepath.Join(*dir, "app.sock"),
			"-ours", fmt.Sprintf("%d,%d,%d", ingressPort, controlPort, probesPort), fmt.Sprintf("-alone=%t", os.Getpid() == 1)}
		if *builder {
			command = append(command, "-zygotes=", "-registry="+filepath.Join(*layers, "registry", "registry.sock"))
		}
	}
	specification, err := json.Marshal(map[string]any{
		"id": os.Getenv("VIBED_POD_UID"), "driver": "agent-sandbox", "template": os.Getenv("VIBED_TEMPLATE"),
		"template_digest": os.Getenv("VIBED_TEMPLATE_DIGEST"), "kind": kind, "command": command, "confine": confine, "boot_timeout_s": 60,
		"agent_socket": filepath.Join(*dir, "agent.sock"), "app_socket": filepath.Join(*dir, "app.sock"),
		"sockets":    map[string]string{"http": filepath.Join(*dir, "http.sock"), "admin": filepath.Join(*dir, "admin.sock")},
		"cgroup_oom": firstThere("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"),
		"log_owner":  map[string]int{"uid": os.Getuid(), "gid": os.Getgid()},
	})
	if err != nil {
		return failed(err)
	}
	if a.owned, err = supervise.Own(specification, *dir, a.isolation, a.ops()); err != nil {
		return failed(err)
	}
	listeners := map[int]net.Listener{}
	for _, port := range []int{ingressPort, controlPort, probesPort} {
		if listeners[port], err = net.Listen("tcp", net.JoinHostPort(*host, strconv.Itoa(port))); err != nil {
			return failed(err)
		}
	}
	go func() {
		if err := a.owned.Ingress.Serve(listeners[ingressPort]); err != nil {
			log.Printf("ingress: %v", err)
		}
	}()
	guard := newGate(certificate, a.owner, a.owned.Converse)
	switch {
	case *builder:
		guard.streams, guard.most = newStreams(a.place), friendsOfJob
	case a.workshop == nil:
		guard.ahead = a.ahead
	}
	go guard.serve(listeners[controlPort])
	go serveProbes(listeners[probesPort], a.owned)
	told, ended := make(chan struct{}), make(chan struct{})
	go func() {
		<-terminate
		close(told)
		a.owned.Stop()
	}()
	go func() { defer close(ended); a.owned.Live() }()
	<-ended
	if a.owner.taken() {
		select {
		case <-told:
		case <-time.After(linger):
		}
	}
	a.owned.End()
	return 0
}

func failed(err error) int {
	log.Print(err)
	fmt.Fprintln(os.Stderr, "vibed-agent pod:", err)
	return 1
}

// prepare makes what is to be there in volumes that begin empty.
func prepare(dir, layers string) error {
	for _, folder := range []string{dir, filepath.Join(layers, ".data")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func firstThere(files ...string) string {
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// longestWait bounds how long a request for lines of the log waits.
const longestWait = 60 * time.Second

// ops are what can be asked of a pod beside what every supervisor answers.
func (a *agent) ops() supervise.Ops {
	return supervise.Ops{
		"claim":   {Do: a.claimedAlready},
		"attach":  {Do: func([]byte, reader) (any, error) { return struct{}{}, nil }},
		"source":  {Do: a.receive, Reads: true},
		"bundle":  {Do: a.bundle},
		"bundled": {Do: a.piece},
		"run":     {Do: a.run},
		"site":    {Do: a.addGuest},
		"unsite":  {Do: a.removeGuest},
		"sites":   {Do: a.listGuests},
		"logs":    {Do: a.logs},
		"closing": {Do: a.closing},
		"refused": {Do: func([]byte, reader) (any, error) { return map[string]int64{"refused": a.owner.refusals()}, nil }},
	}
}

// claimedAlready answers a claim on a connection that has proven itself already: it is right if it is the same.
func (a *agent) claimedAlready(line []byte, _ reader) (any, error) {
	var asked proof
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	return struct{}{}, a.owner.take(asked.Document, time.Now())
}

func (a *agent) closing(line []byte, _ reader) (any, error) {
	asked := struct {
		Closing bool `json:"closing"`
	}{true}
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	a.owned.Ingress.Closing(asked.Closing)
	return struct{}{}, nil
}

func (a *agent) logs(line []byte, _ reader) (any, error) {
	var asked struct {
		After int64   `json:"after"`
		WaitS float64 `json:"wait_s"`
	}
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	wait := time.Duration(max(0, asked.WaitS) * float64(time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), min(wait, longestWait))
	defer cancel()
	return a.owned.Logs(ctx, asked.After)
}

// short is a text that is safe to say, of somebody who may not be.
func short(text string) string { return strings.ToValidUTF8(text[:min(len(text), 200)], "\uFFFD") }
