package inside

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestAStartAfterAStopIsRefusedAndTheAgentStillAnswers(t *testing.T) {
	a := &agent{appDir: t.TempDir(), home: t.TempDir(), who: identity(1000), reaper: newReaper(), out: newOutput(), relay: &relay{},
		state: "warm", nobodyLeft: make(chan struct{}, 1), done: make(chan struct{})}
	a.stop(0)
	func() {
		defer func() { // as net/http does
			if r := recover(); r != nil {
				t.Errorf("panic: %v", r)
			}
		}()
		if _, err := a.run(startSpec{Argv: []string{"/bin/true"}}); err == nil {
			t.Error("started")
		}
	}()
	locked := make(chan struct{})
	go func() { a.mu.Lock(); a.mu.Unlock(); close(locked) }()
	select {
	case <-locked:
	case <-time.After(time.Second):
		t.Error("the agent's lock is held for ever")
	}
}

func TestAnOrphansStatusIsNotTakenForALaterProcess(t *testing.T) {
	r := newReaper()
	// an orphan of a build step ends
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	for syscall.Kill(pid, 0) == nil {
		r.collect()
		time.Sleep(time.Millisecond)
	}
	// the kernel's numbers come round: the app gets the same one
	select {
	case status := <-r.exit(pid):
		t.Errorf("the new process is taken for ended: %v", status)
	case <-time.After(50 * time.Millisecond):
	}
}

// The thread that becomes the app must not be the agent's first: its credentials are what the kernel takes for the
// process's, and their change disarms the signal by which the sandbox dies with its parent.
func TestTheFirstThreadKeepsItsCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root")
	}
	if os.Getenv("VIBED_TEST_LOCKED") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "VIBED_TEST_LOCKED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for range 50 {
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				lockedAs(Identity{UID: 231600, GID: 231600}, func() error { time.Sleep(time.Millisecond); return nil })
			}()
		}
		all.Wait()
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", os.Getpid()))
	if !strings.Contains(string(status), "Uid:\t0\t0\t0\t0") {
		t.Errorf("%s", status)
	}
}
