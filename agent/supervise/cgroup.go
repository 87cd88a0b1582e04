package supervise

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomKills reads how many processes the kernel has killed for memory: cgroup v1 memory.oom_control, v2 memory.events.
func oomKills(file string) int {
	data, _ := os.ReadFile(file)
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == "oom_kill" {
			n, _ := strconv.Atoi(value)
			return n
		}
	}
	return 0
}

// cgroupPids lists the processes in the cgroups of these cgroup.procs files and in those below them. Processes of another
// pid namespace show up as 0 and are left out.
func cgroupPids(procs []string) (pids []int) {
	for _, file := range procs {
		filepath.WalkDir(filepath.Dir(file), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
				return nil
			}
			data, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// killCgroups kills all in cgroups of version 2 at once, and thaws frozen ones of version 1, which no signal reaches.
func killCgroups(procs []string) {
	for _, file := range procs {
		dir := filepath.Dir(file)
		writeExisting(filepath.Join(dir, "cgroup.kill"), "1")
		writeExisting(filepath.Join(dir, "freezer.state"), "THAWED")
	}
}

func writeExisting(file, text string) {
	if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil {
		f.WriteString(text)
		f.Close()
	}
}
