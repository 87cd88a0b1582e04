package unpack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"vibed.dev/agent/erofs"
	"vibed.dev/agent/launch"
)

const (
	usage      = "usage: vibed-agent unpack DIR [--strip PREFIX] [--max-bytes N] [--max-files N] -- argv…"
	imageUsage = "usage: vibed-agent image FILE TAKEN [--handed] [--beyond FOLDER] [--max-bytes N] [--max-files N]"
)

func fail(mode string, code int, err any) int {
	fmt.Fprintf(os.Stderr, "vibed-agent %s: %v\n", mode, err)
	return code
}

// code is how both modes tell what they failed in.
func code(err error) int {
	var e *Error
	switch {
	case errors.Is(err, ErrClash):
		return 121
	case errors.As(err, &e) && e.Code == DiskFull:
		return 122
	}
	return 123
}

// options reads what bounds and shapes an extraction from the front of args; ok is false where it says nothing sensible.
func options(args []string) (o Options, rest []string, ok bool) {
	for len(args) > 1 && args[0] != "--" {
		switch args[0] {
		case "--strip":
			o.Strip = args[1]
		case "--beyond":
			o.Beyond = args[1]
		case "--max-bytes":
			n, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil || n < 1 {
				return o, nil, false
			}
			o.MaxBytes = n
		case "--max-files":
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 {
				return o, nil, false
			}
			o.MaxFiles = n
		default:
			return o, nil, false
		}
		args = args[2:]
	}
	return o, args, true
}

// ImageMain is the mode "image": of a tarball on standard input it writes an EROFS image into FILE, which must not be
// there, beside what it takes over from others (TAKEN: a file with a JSON list of Taken). With --handed standard input is a
// Unix socket by which the descriptor of the tarball comes, when there is one: what is taken over need not wait for it. Exit
// codes of its own are those of Main, and 121 for ErrClash.
func ImageMain(args []string) int {
	const mode = "image"
	if len(args) < 2 {
		return fail(mode, launch.Failed, imageUsage)
	}
	var in io.Reader = os.Stdin
	more := args[2:]
	if len(more) > 0 && more[0] == "--handed" {
		in, more = &handed{}, more[1:]
	}
	o, rest, ok := options(more)
	if !ok || len(rest) != 0 {
		return fail(mode, launch.Failed, imageUsage)
	}
	var take []Taken
	if list, err := os.ReadFile(args[1]); err != nil {
		return fail(mode, launch.Failed, err)
	} else if err := json.Unmarshal(list, &take); err != nil {
		return fail(mode, launch.Failed, err)
	}
	o.Plain = true
	out, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fail(mode, launch.Failed, err)
	}
	if _, err := Image(in, out, erofs.LayerUUID, take, o); err != nil {
		return fail(mode, code(err), err)
	}
	if err := out.Close(); err != nil {
		return fail(mode, code(full(err, "")), err)
	}
	return 0
}

// Main is the mode "unpack": it extracts standard input into DIR and becomes argv, whose standard input is empty.
// Exit codes of its own: 122 for DiskFull, 123 for InjectFailed, 125 for everything else.
func Main(args []string) int {
	const mode = "unpack"
	if len(args) < 1 {
		return fail(mode, launch.Failed, usage)
	}
	dir := args[0]
	o, rest, ok := options(args[1:])
	if !ok || len(rest) < 2 || rest[0] != "--" {
		return fail(mode, launch.Failed, usage)
	}
	argv := rest[1:]
	syscall.Umask(0o022)
	if _, err := Extract(os.Stdin, dir, o); err != nil {
		return fail(mode, code(err), err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(mode, launch.Failed, err)
	}
	if err := syscall.Dup3(int(null.Fd()), 0, 0); err != nil {
		return fail(mode, launch.Failed, err)
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return fail(mode, launch.Failed, err)
	}
	return fail(mode, launch.Failed, syscall.Exec(program, argv, os.Environ()))
}
