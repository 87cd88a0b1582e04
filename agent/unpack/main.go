package unpack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"vibed.dev/agent/launch"
)

const usage = "usage: vibed-agent unpack DIR [--strip PREFIX] [--max-bytes N] [--max-files N] [--plain] -- argv…"

// Main is the mode "unpack": it extracts standard input into DIR and becomes argv, whose standard input is empty.
// Exit codes of its own: 122 for DiskFull, 123 for InjectFailed, 125 for everything else.
func Main(args []string) int {
	fail := func(code int, err any) int {
		fmt.Fprintln(os.Stderr, "vibed-agent unpack:", err)
		return code
	}
	if len(args) < 1 {
		return fail(launch.Failed, usage)
	}
	dir, rest := args[0], args[1:]
	var o Options
	for len(rest) > 1 && rest[0] != "--" {
		if rest[0] == "--plain" {
			o.Plain, rest = true, rest[1:]
			continue
		}
		switch rest[0] {
		case "--strip":
			o.Strip = rest[1]
		case "--max-bytes":
			n, err := strconv.ParseInt(rest[1], 10, 64)
			if err != nil || n < 1 {
				return fail(launch.Failed, usage)
			}
			o.MaxBytes = n
		case "--max-files":
			n, err := strconv.Atoi(rest[1])
			if err != nil || n < 1 {
				return fail(launch.Failed, usage)
			}
			o.MaxFiles = n
		default:
			return fail(launch.Failed, usage)
		}
		rest = rest[2:]
	}
	if len(rest) < 2 || rest[0] != "--" {
		return fail(launch.Failed, usage)
	}
	argv := rest[1:]
	syscall.Umask(0o022)
	if _, err := Extract(os.Stdin, dir, o); err != nil {
		var e *Error
		if errors.As(err, &e) && e.Code == DiskFull {
			return fail(122, err)
		}
		return fail(123, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(launch.Failed, err)
	}
	if err := syscall.Dup3(int(null.Fd()), 0, 0); err != nil {
		return fail(launch.Failed, err)
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return fail(launch.Failed, err)
	}
	return fail(launch.Failed, syscall.Exec(program, argv, os.Environ()))
}
