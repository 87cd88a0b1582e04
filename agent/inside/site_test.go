package inside

import (
	"testing"
	"time"
)

func TestThePortOfThePagesIsChosenByEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		expected []int
		ports    []int
		want     int
	}{
		"PORT":                           {nil, []int{80, 3000, 8080}, 8080},
		"PORT, when the source reads it": {[]int{3000, 8080}, []int{3000, 8080}, 8080},
		"what the source says, when it is not PORT":   {[]int{3000}, []int{3000, 8080}, 3000},
		"what the source says first":                  {[]int{5001, 5000}, []int{5000, 5001, 4000}, 5001},
		"PORT before what nobody speaks of":           {[]int{5000}, []int{4000, 8080}, 8080},
		"the lowest, when nothing is known":           {nil, []int{3000, 5000, 40000}, 3000},
		"any rather than metrics":                     {nil, []int{9100, 9800}, 9800},
		"any rather than a debugger":                  {nil, []int{9229, 9700}, 9700},
		"any rather than one that the kernel picked":  {nil, []int{9001, 45000}, 9001},
		"one that the kernel picked, if there is one": {nil, []int{45000}, 45000},
	} {
		if got, ok := (site{8080, c.expected}).choose(c.ports); !ok || got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if _, ok := (site{wanted: 8080}).choose(nil); ok {
		t.Error("a port without a socket")
	}
}

func TestABetterPortIsWaitedForOnlyWhereOneIsToCome(t *testing.T) {
	for name, c := range map[string]struct {
		expected []int
		port     int
		want     time.Duration
	}{
		"PORT is what is waited for":               {nil, 8080, 0},
		"so it is when the source reads it":        {[]int{8080, 3000}, 8080, 0},
		"the pages may have a port beside them":    {[]int{5000}, 5000, settle},
		"nothing is known":                         {nil, 7000, settle},
		"metrics first, the pages later":           {[]int{5000}, 9100, patience},
		"metrics that nobody knows":                {[]int{5000}, 7000, patience},
		"PORT, although the source names another":  {[]int{3000}, 8080, settle},
		"metrics, and nothing is known":            {nil, 9100, unsure},
		"the source reads PORT, and listens there": {[]int{8080}, 7000, unsure},
	} {
		if got := (site{8080, c.expected}).wait(c.port); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestAChoiceIsToldWithItsReason(t *testing.T) {
	for _, c := range []struct {
		port  int
		ports []int
		want  string
	}{
		{3000, []int{3000, 8081}, "listens on 3000 and 8081: 3000 is served, since the source starts its site there; 8081 is out of reach from outside"},
		{8080, []int{8080, 8081, 9000}, "listens on 8080 and 8081, 9000: 8080 is served, since it is the one in PORT; 8081, 9000 are out of reach from outside"},
		{3000, []int{3000, 40123}, ""},
	} {
		if why := (site{8080, []int{8080, 3000}}).why(c.port, c.ports); why != c.want {
			t.Error(why)
		}
	}
}

func TestPORTIsWhatTheAppIsGivenAtLast(t *testing.T) {
	s := siteOf(startSpec{Port: 8080, ExpectedPorts: []int{8080, 3000}, Env: map[string]string{"PORT": "4000"}})
	if s.rank(4000) != given || s.rank(8080) != unforeseen || s.rank(3000) != expected {
		t.Error(s)
	}
	if s := siteOf(startSpec{Port: 8080, Env: map[string]string{"PORT": "any"}}); s.wanted != 8080 {
		t.Error(s)
	}
}
