package sites

import (
	"os"
	"sync"
	"time"
)

const (
	kept = 64 << 20 // bytes of what is known of sites
	// leastWeight is what an entry takes whatever its site says.
	leastWeight = 4 << 10
	// lately is what a site that was asked for just now still counts as idle: what is large gives way to what is small,
	// however often it is asked for.
	lately = time.Second
)

// known is what was read of sites and stays read, one run an app: a site's folder never changes, and one that has a
// successor is asked for no more.
type known struct {
	most   int // bytes
	mu     sync.Mutex
	apps   map[string]*entry
	weight int
}

type entry struct {
	folder string
	read   chan struct{} // closed when facts or err are there
	facts  *facts
	err    error
	used   time.Time
}

// of returns what is known of the site in a folder; whoever asks for it while it is being read waits for that.
func (k *known) of(app, folder string) (*facts, error) {
	k.mu.Lock()
	found := k.apps[app]
	if found == nil || found.folder != folder {
		k.drop(app)
		found = &entry{folder: folder, read: make(chan struct{}), used: time.Now()}
		k.apps[app] = found
		k.mu.Unlock()
		facts, err := readFolder(folder)
		k.mu.Lock()
		found.facts, found.err = facts, err
		close(found.read)
		if k.apps[app] == found {
			k.admit(app, found)
		}
	}
	found.used = time.Now()
	k.mu.Unlock()
	<-found.read
	return found.facts, found.err
}

func readFolder(folder string) (*facts, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readFacts(root)
}

// admit counts what was read just now, and drops of others what is too much. Only that which could be read stays.
func (k *known) admit(app string, fresh *entry) {
	if fresh.err != nil || fresh.facts.weight > k.most {
		delete(k.apps, app)
		return
	}
	k.weight += fresh.facts.weight
	for k.weight > k.most {
		worst, most := "", -1.0
		for name, one := range k.apps {
			if one == fresh || one.facts == nil {
				continue
			}
			// large and long not asked for: so one app with much to say cannot displace all that say little
			if cost := float64(one.facts.weight) * (time.Since(one.used) + lately).Seconds(); cost > most {
				worst, most = name, cost
			}
		}
		k.drop(worst)
	}
}

func (k *known) drop(app string) {
	if old := k.apps[app]; old != nil && old.facts != nil {
		k.weight -= old.facts.weight
	}
	delete(k.apps, app)
}
