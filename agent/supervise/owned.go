package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"vibed.dev/agent/ingress"
)

// Owned is a sandbox of a process that is more than its supervisor (agent/pod): who may ask it what, where its traffic
// comes in and where its source comes from is that process's business, all else is as everywhere.
type Owned struct {
	// Ingress serves the run that the sandbox is claimed for, and until then nobody's.
	Ingress *ingress.Ingress

	s       *sandbox
	control *control

	reading sync.Mutex
	read    place
}

// Own makes a sandbox of a specification, in its JSON. Its files are kept in dir, and more are operations beside those of
// every supervisor. isolation is told with its state.
func Own(specification []byte, dir string, isolation any, more Ops) (*Owned, error) {
	spec, err := readSpec(specification)
	if err != nil {
		return nil, err
	}
	s := newSandbox(spec, dir)
	s.state.now.Isolation = isolation
	o := &Owned{s: s, Ingress: ingress.New(s.app, nil)}
	o.Ingress.Only("")
	o.Ingress.Watch(s.beginning)
	s.door = standingDoor{o.Ingress}
	o.control = newControl(s)
	o.control.more = more
	return o, nil
}

// standingDoor is an address that is there before the run, and may be another's after it.
type standingDoor struct{ in *ingress.Ingress }

func (d standingDoor) needsPath() bool { return false }

func (d standingDoor) open(run *runState) (*ingress.Ingress, error) {
	d.in.Only(RunName(run.AppID, run.Run))
	return d.in, nil
}

func (d standingDoor) shut(*runState) { d.in.Only("") }

// Live boots the sandbox and returns when it has ended; it can be asked on after that, until End.
func (o *Owned) Live() { o.s.live() }

// End lets go of who is connected, when what they asked is answered.
func (o *Owned) End() { o.control.end() }

// Stop ends the app and the sandbox.
func (o *Owned) Stop() { o.s.stop(signalGrace) }

// Serves tells whether there is a sandbox that can be claimed, or is.
func (o *Owned) Serves() bool {
	now := o.s.state.get().State
	return now != stateBooting && now != stateExited
}

// Warm tells whether it has run nothing yet. One that still boots is waited for: who asks may be told of a pod a moment
// before that is ready.
func (o *Owned) Warm() bool {
	for o.s.state.get().State == stateBooting {
		time.Sleep(10 * time.Millisecond)
	}
	return o.s.state.get().State == stateWarm && !o.s.claimed.Load()
}

// Converse answers a client, of which lines may have read ahead, until it is gone.
func (o *Owned) Converse(conn net.Conn, lines *bufio.Reader) { o.control.serve(conn, lines) }

// Run performs the operation run, whose line says nothing of files: source is one, and logs are kept in the sandbox's
// folder. fetched is how long it took to get it.
func (o *Owned) Run(line []byte, source string, fetched time.Duration) (any, error) {
	var req runRequest
	if err := json.Unmarshal(line, &req); err != nil {
		return nil, faultf("BadRequest", "%v", err)
	}
	req.Source, req.Worker, req.Socket = source, source, ""
	req.LogDir = filepath.Join(o.s.dir, "log")
	answer, err := o.s.run(&req)
	if err != nil {
		return nil, err
	}
	answer.Timings.Fetch = float64(fetched.Microseconds()) / 1000
	return answer, nil
}

// Spawn runs argv with these descriptors beside the sandbox, in a session of its own, and delivers its status once. It ends
// with the sandbox.
func (o *Owned) Spawn(argv []string, files []*os.File) (pid int, ended <-chan syscall.WaitStatus, err error) {
	p, err := o.s.spawn.start(argv, commandEnv(), files)
	if err != nil {
		return 0, nil, err
	}
	return p.pid, p.ended, nil
}

// Logs returns what the run has said after a line's number; it waits for something until ctx ends.
func (o *Owned) Logs(ctx context.Context, after int64) (LogLines, error) {
	l := o.s.log.Load()
	if l == nil {
		return LogLines{Lines: []json.RawMessage{}, Complete: o.s.state.get().State == stateExited}, nil
	}
	o.reading.Lock()
	at := o.read
	o.reading.Unlock()
	found, err := l.read(ctx, after, &at)
	if err == nil {
		o.reading.Lock()
		o.read = at
		o.reading.Unlock()
	}
	return found, err
}

// RunName is how the proxy names a run (ingress.RunField).
func RunName(app string, run int) string { return app + "/" + strconv.Itoa(run) }

// Refusal is an answer that is an error of the contract.
func Refusal(code, format string, args ...any) error { return faultf(code, format, args...) }

// RefusalSaying is one with what a program has said, at length.
func RefusalSaying(code, message, said string) error {
	return &fault{Code: code, Message: message, Details: map[string]any{"said": said}}
}

// Refused tells whether an error has a code of the contract.
func Refused(err error) bool {
	var f *fault
	return errors.As(err, &f)
}

// HasCode tells whether an error has this one.
func HasCode(err error, code string) bool {
	var f *fault
	return errors.As(err, &f) && f.Code == code
}

// Reply is the line that answers a request, for who answers one before a conversation begins.
func Reply(id json.RawMessage, ok any, err error) []byte {
	answer := reply{ID: id, OK: ok}
	if err != nil {
		answer = reply{ID: id, Error: asFault(err)}
	}
	return encode(answer)
}
