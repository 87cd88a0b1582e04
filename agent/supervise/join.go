package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
)

// joinAndExec puts this process into the cgroups whose cgroup.procs files stand before "--", and becomes the command
// behind it: so the command is inside from its first instruction on.
func joinAndExec(args []string) int {
	split := slices.Index(args, "--")
	if split < 0 || split == len(args)-1 {
		fmt.Fprintln(os.Stderr, "usage: vibed-agent supervise --join FILE… -- ARGV…")
		return 2
	}
	for _, file := range args[:split] {
		if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			fmt.Fprintln(os.Stderr, "joining a cgroup:", err)
			return 126
		}
	}
	argv := args[split+1:]
	path, err := exec.LookPath(argv[0])
	if err == nil {
		err = syscall.Exec(path, argv, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 127
}
