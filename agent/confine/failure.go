package confine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"vibed.dev/agent/launch"
)

func fail(err error) int {
	var step *launch.StepError
	if errors.As(err, &step) {
		if cure := cureFor(step); cure != "" {
			err = fmt.Errorf("%w (%s)", err, cure)
		}
	}
	fmt.Fprintln(os.Stderr, "vibed-agent confine: "+err.Error())
	return launch.Failed
}

// cureFor says what usually has to change when a step fails.
func cureFor(e *launch.StepError) string {
	is := func(prefix string) bool { return strings.HasPrefix(e.Step, prefix) }
	switch {
	case e.Errno == syscall.ENOSYS:
		return "the kernel is too old: 5.12 or newer is needed"
	case is("start a process") || is("namespaces") || is("user namespace"):
		switch e.Errno {
		case syscall.EPERM:
			return "user namespaces are not allowed here: sysctl kernel.unprivileged_userns_clone=1, " +
				"kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
		case syscall.ENOSPC, syscall.EUSERS:
			return "raise sysctl user.max_user_namespaces"
		case syscall.EAGAIN:
			return "the limit on processes of this user is reached"
		}
	case is("exec "):
		switch e.Errno {
		case syscall.ENOENT:
			return "the program, or the loader that it names, is not in the root that the spec describes"
		case syscall.EACCES:
			return "the sandbox's uid may not execute it"
		}
	case is("mount proc") && e.Errno == syscall.EPERM:
		return "/proc is partly hidden here, as in a container: give it an unmasked /proc, or run as root"
	case is("target ") && (e.Errno == syscall.EROFS || e.Errno == syscall.ENOENT):
		return "the directory must exist in the image below it"
	case is("cgroup ") && (e.Errno == syscall.EACCES || e.Errno == syscall.EPERM):
		return "the cgroup is not delegated to this user"
	case is("the parent is gone"):
		return "die_with_parent: what started confine has ended"
	case is("bind ") && e.Errno == syscall.EACCES:
		return "this user may not search the directories above it"
	}
	return ""
}
