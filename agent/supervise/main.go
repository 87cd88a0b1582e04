// Package supervise owns one sandbox from boot to its end: it boots it, writes its logs, holds its ingress socket, keeps
// its exit status, and leaves nothing behind. It outlives vibeD, which talks to it over a socket and may come and go.
// docs/reference/supervisor.md is the contract with the Python side.
package supervise

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const prSetChildSubreaper = 36

// signalGrace is what an app gets when the supervisor itself is told to end.
const signalGrace = 5.0

// Main is the mode `vibed-agent supervise SPEC.json`. It returns when the sandbox is gone.
// `supervise --join FILE… -- ARGV…` is the launcher that it uses itself to put a command into cgroups.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "--join" {
		return joinAndExec(args[1:])
	}
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: vibed-agent supervise SPEC.json")
		return 2
	}
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	spec, err := loadSpec(args[0])
	if err != nil {
		log.Print(err)
		return 2
	}
	terminate := Independent()
	dir, err := filepath.Abs(filepath.Dir(args[0]))
	if err != nil {
		log.Print(err)
		return 2
	}
	s := newSandbox(spec, dir)
	control, err := serveControl(filepath.Join(dir, "ctl.sock"), s)
	if err != nil {
		log.Print(err)
		return 1
	}
	go func() {
		for range terminate {
			go s.stop(signalGrace)
		}
	}()
	s.live()
	control.end()
	return 0
}

// Independent cuts what would tie this process to the one that started it, and makes it the parent of last resort of all
// that its sandbox leaves behind. It returns the channel on which requests to end arrive.
func Independent() <-chan os.Signal {
	// It fails when we lead a group already, that is, when the controller has done it.
	syscall.Setsid()
	syscall.Umask(0o022)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		log.Printf("cannot become a child subreaper: %v", errno)
	}
	// Caught, not ignored: an ignored signal stays ignored in the command that we start.
	unwanted := make(chan os.Signal, 8)
	signal.Notify(unwanted, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT)
	go func() {
		for range unwanted {
		}
	}()
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM, syscall.SIGINT)
	return terminate
}
