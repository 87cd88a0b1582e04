package supervise

import (
	"os"
	"strings"
	"sync"
)

const bootLogMax = 64 << 10

// bootLog takes the output of a sandbox that belongs to no app yet.
type bootLog struct {
	mu   sync.Mutex
	file *os.File
	left int
	tail tail
}

// openBootLog never fails: a sandbox boots without a log when there is no place for one.
func openBootLog(path string) *bootLog {
	f, _ := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	return &bootLog{file: f, left: bootLogMax}
}

func (b *bootLog) add(text string) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	b.tail.add(text)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil || b.left <= len(text) {
		b.left = 0
		return
	}
	n, _ := b.file.WriteString(text + "\n")
	b.left -= n
}

func (b *bootLog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
}
