package supervise

import (
	"log"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killPatience is how long SIGKILL is repeated: a process that forks faster than we read lists is caught in a later
// round, one in uninterruptible sleep may take that long.
const killPatience = 10 * time.Second

// killAll ends everything of the sandbox: its cgroups, and every descendant of ours, as which all that has lost its parent
// counts. It returns when nothing is left, and tells whether that was reached.
func killAll(procs []string) bool {
	end := time.Now().Add(killPatience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		killCgroups(procs)
		left := append(cgroupPids(procs), descendants()...)
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) == 0 {
			return true
		}
		if time.Now().After(end) {
			log.Printf("still there after SIGKILL: %v", left)
			return false
		}
		time.Sleep(wait)
	}
}

// descendants lists every process that has us among its ancestors.
func descendants() []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	var found []int
	for next := []int{os.Getpid()}; len(next) > 0; next = next[1:] {
		found = append(found, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return found
}
