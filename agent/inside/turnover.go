package inside

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tooMany workers that end one after the other will not be followed by one that serves.
const tooMany = 4

// turnover counts how often processes that shared the app's socket have gone.
type turnover struct {
	last  time.Time
	alive map[int]bool
	gone  int
}

const turnoverEvery = 100 * time.Millisecond

func (t *turnover) ended(who Identity, inodes []uint64) int {
	if time.Since(t.last) < turnoverEvery {
		return t.gone
	}
	now := workersAmong(holders(who, inodes), parentOf)
	t.last = time.Now()
	return t.seen(now)
}

// workersAmong leaves out what workers have started, such as pools of helpers that come and go while they load the app:
// they have the socket as well, and so have their parent and its parent.
func workersAmong(pids []int, parentOf func(int) int) map[int]bool {
	found := map[int]bool{}
	for _, pid := range pids {
		parent := parentOf(pid)
		if !slices.Contains(pids, parent) || !slices.Contains(pids, parentOf(parent)) {
			found[pid] = true
		}
	}
	return found
}

// parentOf is 0 for a process that has gone.
func parentOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// behind the name, which may hold anything: the state, then the parent (proc_pid_stat(5))
	if fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])); len(fields) > 1 {
		parent, _ := strconv.Atoi(fields[1])
		return parent
	}
	return 0
}

// seen counts one for all that have gone since the last look: helpers that a loading app forks have its socket too, and a
// pool of them ends at once. Workers that fail are followed by others that fail.
func (t *turnover) seen(now map[int]bool) int {
	for pid := range t.alive {
		if !now[pid] {
			t.gone++
			break
		}
	}
	t.alive = now
	return t.gone
}
