package inside

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"
)

// cluster is what is seen of an app whose connections one process accepts for others: a node:cluster. Its primary takes
// every connection and hands it on to a worker, whatever becomes of that, so that a connection taken says nothing yet.
// Node itself says who the workers are: it marks them in their environment, and its documentation says with what.
type cluster struct {
	none bool // what was started can have none: nothing is looked for
	// others are processes that can be no workers: the first one, and warm ones that may just be ending
	others map[int]bool
	last   time.Time
	alive  map[int]bool
	// generation are workers that were alive together. When all of them have ended and others run in their place, the
	// next one begins: one worker that fails again and again beside another that lives ends none.
	generation  map[int]bool
	generations int // that have ended
	deaths      int // of workers
}

const workerMark = "NODE_UNIQUE_ID="

const (
	clusterEvery = 100 * time.Millisecond
	// heldFor is how long a worker is to live with a connection that it was handed: one that fails when it listens has
	// sometimes taken it on the way.
	heldFor = 200 * time.Millisecond
	// handsOnWithin is how long a connection may stay with the process that accepted it until it is taken for that
	// process's own: workers may be for something else, or the primary may read a request first.
	handsOnWithin = 2 * time.Second
)

// newCluster is for an app that has just been started. To look for workers is to read the environment of every process;
// who is Ready within a tenth of a second is looked at once, and Python and Go by themselves never.
func (a *agent) newCluster() *cluster {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &cluster{none: a.singular, others: a.noWorkers, last: time.Now()}
}

// look counts who has ended since the last one; not more often than makes sense.
func (c *cluster) look(who Identity) {
	if !c.none && time.Since(c.last) >= clusterEvery {
		c.seen(c.workers(who))
	}
}

func (c *cluster) seen(now map[int]bool) {
	c.last = time.Now()
	for pid := range c.alive {
		if !now[pid] {
			c.deaths++
		}
	}
	c.alive = now
	if len(now) == 0 {
		return
	}
	for pid := range c.generation {
		if now[pid] {
			return
		}
	}
	if c.generation != nil {
		c.generations++
	}
	c.generation = maps.Clone(now)
}

// fails says so when workers that end one after the other will not be followed by one that serves.
func (c *cluster) fails() bool { return c.generations >= tooMany }

type standing int

const (
	underWay standing = iota
	arrived           // a request on it would be answered
	lost              // nobody will ever answer on it
)

// stands says what has become of a connection that a process has taken. Of servers other than a cluster it has arrived
// then, at once.
func (c *cluster) stands(k *knock, who Identity, sockets []socket) standing {
	if c.none {
		return arrived
	}
	if c.seen(c.workers(who)); c.generation == nil {
		return arrived // there has never been a worker
	}
	switch hearing(k.conn) {
	case spoken:
		return arrived
	case ended, broken:
		return lost
	}
	if slices.ContainsFunc(holders(who, k.inodes(sockets)), func(pid int) bool { return c.alive[pid] }) {
		if k.handedOn.IsZero() {
			k.handedOn = time.Now()
		}
		if time.Since(k.handedOn) >= heldFor {
			return arrived
		}
		return underWay
	}
	if !k.handedOn.IsZero() || k.deaths != c.deaths {
		return lost
	}
	if time.Since(k.since) >= handsOnWithin {
		return arrived
	}
	return underWay
}

// workers lists the workers of node:cluster among the sandbox's processes.
func (c *cluster) workers(who Identity) map[int]bool {
	found := map[int]bool{}
	all := slices.DeleteFunc(processes(), func(pid int) bool { return c.others[pid] })
	if len(all) == 0 {
		return found
	}
	_ = lockedAs(who, func() error { // the environment of a process is its user's to see
		for _, pid := range all {
			env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
			if err == nil && (bytes.HasPrefix(env, []byte(workerMark)) || bytes.Contains(env, []byte("\x00"+workerMark))) {
				found[pid] = true
			}
		}
		return nil
	})
	return found
}

// attend looks on until the app has answered its first request: workers of a cluster that end some time after they have
// listened have served nobody. Then the app has not either, and it is ended.
func (a *agent) attend(c *cluster) {
	for end := time.Now().Add(followFor); time.Now().Before(end) && !a.relay.answered(); {
		select {
		case <-a.done:
			return
		case <-time.After(5 * clusterEvery):
		}
		if c.look(a.who); c.fails() {
			a.condemn(c.told())
			return
		}
	}
}

func (c *cluster) told() string {
	return fmt.Sprintf("the app's workers end before they serve a request (%d times, one after the other)", c.generations)
}
