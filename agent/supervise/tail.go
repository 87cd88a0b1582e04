package supervise

import "sync"

const (
	tailLines = 300
	tailBytes = 32 << 10
	tailLine  = 4 << 10
)

// tail keeps the last lines of output, from which the reason of an end is told: an error may stand before hundreds of
// lines of stacks. Of a long line it keeps the beginning and the end, where an error has its name and its reason.
type tail struct {
	mu    sync.Mutex
	lines []string
	bytes int
}

func (t *tail) add(text string) {
	if len(text) > tailLine {
		from := len(text) - tailLine/2
		text = text[:runeCut(text, tailLine/2)] + " … " + text[from+runeStartAfter(text, from):]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, text)
	t.bytes += len(text)
	for len(t.lines) > tailLines || t.bytes > tailBytes {
		t.bytes -= len(t.lines[0])
		t.lines = t.lines[1:]
	}
}

func (t *tail) get() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string{}, t.lines...)
}

// runeStartAfter is how far from at the next character begins.
func runeStartAfter(text string, at int) int {
	for n := 0; n < 4 && at+n < len(text); n++ {
		if text[at+n]&0xc0 != 0x80 {
			return n
		}
	}
	return 0
}
