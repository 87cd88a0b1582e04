package supervise

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// The states, in their order.
const (
	stateBooting   = "booting"
	stateWarm      = "warm"
	stateInjecting = "injecting"
	stateStarting  = "starting"
	stateRunning   = "running"
	stateDraining  = "draining"
	stateExited    = "exited"
)

// stateRetry is when a state.json that could not be written (a full disk) is tried again.
const stateRetry = time.Second

// state is state.json. pid is the supervisor's own.
type state struct {
	ID             string    `json:"id"`
	PID            int       `json:"pid"`
	PIDStart       string    `json:"pid_start"`
	CommandPID     int       `json:"command_pid"`
	State          string    `json:"state"`
	Driver         string    `json:"driver"`
	Template       string    `json:"template"`
	TemplateDigest string    `json:"template_digest"`
	Run            *runState `json:"run"`
	Exit           *exit     `json:"exit"`
	Port           *int      `json:"port"`
	WarmAt         *float64  `json:"warm_at"`
	StartedAt      *float64  `json:"started_at"`
	// Isolation is what the sandbox was measured to stand in, where its supervisor stands in it too (agent/pod).
	Isolation any `json:"isolation,omitempty"`
}

type runState struct {
	AppID   string `json:"app_id"`
	AppKey  string `json:"app_key"`
	Layer   string `json:"layer,omitempty"`
	Version int    `json:"version"`
	Run     int    `json:"run"`
	LogDir  string `json:"log_dir"`
	Socket  string `json:"socket"`
}

// exit is how the app ended, or the boot that failed.
type exit struct {
	Code   *int     `json:"code"`
	Signal *string  `json:"signal"`
	OOM    bool     `json:"oom"`
	At     float64  `json:"at"`
	Tail   []string `json:"tail"`
}

// stateFile is the one copy of the state: in memory, on disk, and with everyone who listens.
type stateFile struct {
	path     string
	mu       sync.Mutex
	now      state
	encoded  []byte
	announce func(state []byte) // called in the order of the changes, must not block
	retrying bool
}

func newStateFile(path string, first state) *stateFile {
	first.PID, first.PIDStart = os.Getpid(), processStart("self")
	return &stateFile{path: path, now: first, announce: func([]byte) {}}
}

func (f *stateFile) get() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// update changes the state and makes the change known. change returns false to leave things as they are.
func (f *stateFile) update(change func(*state) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !change(&f.now) {
		return false
	}
	f.encoded, _ = json.Marshal(f.now)
	f.write()
	f.announce(f.encoded)
	return true
}

// json returns the state as it was last made known, and calls with it while nothing can change.
func (f *stateFile) json(with func(state []byte)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	with(f.encoded)
}

func (f *stateFile) write() {
	err := replaceFile(f.path, f.encoded)
	if err == nil || f.retrying {
		return
	}
	log.Printf("state: %v", err)
	f.retrying = true
	time.AfterFunc(stateRetry, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.retrying = false
		f.write()
	})
}

func replaceFile(path string, data []byte) error {
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.WriteFile(next, append(data, '\n'), 0o600); err != nil {
		os.Remove(next)
		return err
	}
	return os.Rename(next, path)
}

// processStart is field 22 of /proc/PID/stat, which tells two processes with one pid apart.
func processStart(pid string) string {
	data, _ := os.ReadFile("/proc/" + pid + "/stat")
	// The name in field 2 may hold anything, also blanks and brackets.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return string(fields[19])
}

func unixSeconds(t time.Time) float64 {
	s, _ := strconv.ParseFloat(strconv.FormatFloat(float64(t.UnixMicro())/1e6, 'f', 6, 64), 64)
	return s
}

func ptr[T any](v T) *T { return &v }
