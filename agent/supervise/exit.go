package supervise

import (
	"fmt"
	"syscall"
)

// readStatus takes a wait status apart. A launcher of sandboxes reports a signal inside as 128 + its number.
func readStatus(status syscall.WaitStatus, nested bool) (code *int, signal *string) {
	switch {
	case status.Signaled():
		return nil, ptr(signalName(status.Signal()))
	case nested && status.ExitStatus() > 128 && status.ExitStatus() <= 128+64:
		return nil, ptr(signalName(syscall.Signal(status.ExitStatus() - 128)))
	default:
		return ptr(status.ExitStatus()), nil
	}
}

// describe is the system line that ends an app's log.
func (e *exit) describe() string {
	switch {
	case e.OOM:
		return "killed: out of memory"
	case e.Signal != nil:
		return "ended by " + *e.Signal
	case e.Code != nil:
		return fmt.Sprintf("exited with status %d", *e.Code)
	default:
		return "ended"
	}
}

func signalName(s syscall.Signal) string {
	if name, ok := signalNames[s]; ok {
		return name
	}
	return fmt.Sprintf("SIG%d", int(s))
}

var signalNames = map[syscall.Signal]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
	10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 16: "SIGSTKFLT",
	17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU", 23: "SIGURG",
	24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO", 30: "SIGPWR", 31: "SIGSYS",
}
