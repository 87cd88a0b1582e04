package inside

import "time"

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
	now := map[int]bool{}
	for _, pid := range holders(who, inodes) {
		now[pid] = true
	}
	t.last = time.Now()
	return t.seen(now)
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
