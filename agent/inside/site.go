package inside

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// site says which of several ports an app's pages are on. Nothing is asked of the app: a request could have effects. What
// counts, in this order: the port that it was given in PORT, those on which its source starts its site, any other, one
// that everybody knows to be for something else, one that the kernel picked.
type site struct {
	wanted   int
	expected []int // by the source, the likeliest first
}

// siteOf is the site of an app that is started so. Its own variables come after ours: PORT may be one of them.
func siteOf(s startSpec) site {
	own, err := strconv.Atoi(s.Env["PORT"])
	if err != nil {
		return site{s.Port, s.ExpectedPorts}
	}
	expected := slices.Clone(s.ExpectedPorts)
	if at := slices.Index(expected, s.Port); at >= 0 {
		expected[at] = own
	}
	return site{own, expected}
}

type rank int

const (
	given rank = iota
	expected
	unforeseen
	forSomethingElse
	picked
)

const firstEphemeral = 32768 // ip_local_port_range of Linux and of gVisor

// aside are ports that are for something else than pages: databases and queues, metrics, debuggers, live reload.
var aside = []int{1025, 2375, 3306, 4317, 4318, 5005, 5432, 5672, 5678, 5858, 6379, 8125, 9091, 9092, 9100, 9102, 9229, 9464, 11211, 24678, 27017, 35729}

func (s site) rank(port int) rank {
	switch {
	case port == s.wanted && s.takesPORT():
		return given
	case slices.Contains(s.expected, port):
		return expected
	case port >= firstEphemeral:
		return picked
	case slices.Contains(aside, port):
		return forSomethingElse
	}
	return unforeseen
}

// takesPORT is false when the source says where its site listens, and that is not where PORT says.
func (s site) takesPORT() bool {
	return len(s.expected) == 0 || slices.Contains(s.expected, s.wanted)
}

// choose picks the port of those that listen.
func (s site) choose(ports []int) (port int, ok bool) {
	if len(ports) == 0 {
		return 0, false
	}
	return slices.MinFunc(ports, func(a, b int) int {
		for _, by := range []int{
			int(s.rank(a)) - int(s.rank(b)),
			slices.Index(s.expected, a) - slices.Index(s.expected, b),
			s.notWanted(a) - s.notWanted(b), // what was given in PORT may well be it, whatever the source seems to say
		} {
			if by != 0 {
				return by
			}
		}
		return a - b
	}), true
}

func (s site) notWanted(port int) int {
	if port == s.wanted {
		return 0
	}
	return 1
}

const (
	settle   = 30 * time.Millisecond // servers open their ports one after the other
	unsure   = 2 * time.Second       // for a port that is more likely, while a less likely one listens
	patience = 10 * time.Second      // for the very number that the source names
)

// wait is how long a better port is waited for while this is the best that listens.
func (s site) wait(port int) time.Duration {
	switch s.rank(port) {
	case given:
		return 0
	case expected:
		return settle
	}
	if port == s.wanted {
		return settle // it seems to read PORT somewhere after all
	}
	if slices.ContainsFunc(s.expected, func(p int) bool { return p != s.wanted }) {
		return patience
	}
	if len(s.expected) > 0 || s.rank(port) == forSomethingElse {
		return unsure
	}
	return settle
}

// why tells the choice where there was one, "" where there was none.
func (s site) why(port int, ports []int) string {
	var others []string
	for _, p := range ports {
		if p != port && p < firstEphemeral {
			others = append(others, strconv.Itoa(p))
		}
	}
	if len(others) == 0 {
		return ""
	}
	because := "it is the lowest of them"
	switch s.rank(port) {
	case given:
		because = "it is the one in PORT"
	case expected:
		because = "the source starts its site there"
	case unforeseen:
		if port == s.wanted {
			because = "it is the one in PORT"
		}
	}
	verb := "is"
	if len(others) > 1 {
		verb = "are"
	}
	rest := strings.Join(others, ", ")
	return fmt.Sprintf("listens on %d and %s: %d is served, since %s; %s %s out of reach from outside", port, rest, port, because, rest, verb)
}
