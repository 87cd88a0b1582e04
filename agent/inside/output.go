package inside

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
)

const (
	maxText   = 16 << 10 // of one record; longer lines are split
	maxBuffer = 1 << 20  // of all texts that wait for the reader
)

// Line is one record of an app's output.
type Line struct {
	Stream string `json:"stream"`
	Text   string `json:"text"`
	Cont   bool   `json:"cont,omitempty"`
}

// output keeps what the app wrote until the reader of GET /logs has it. It is bounded: when the reader does not
// keep up, the oldest lines go and a system line counts them, so that the app never waits and its last words stay.
type output struct {
	mu      sync.Mutex
	lines   []Line
	bytes   int
	dropped int
	open    int // writers
	ended   bool
	to      *output       // where lines go instead
	wake    chan struct{} // closed and replaced at each change
}

func newOutput() *output { return &output{wake: make(chan struct{})} }

func (o *output) signal() {
	close(o.wake)
	o.wake = make(chan struct{})
}

func (o *output) add(l Line) {
	o.mu.Lock()
	if to := o.to; to != nil {
		o.mu.Unlock()
		to.add(l)
		return
	}
	defer o.mu.Unlock()
	o.lines = append(o.lines, l)
	o.bytes += len(l.Text) + 64
	for o.bytes > maxBuffer && len(o.lines) > 1 {
		o.bytes -= len(o.lines[0].Text) + 64
		o.lines[0] = Line{}
		o.lines = o.lines[1:]
		o.dropped++
	}
	o.signal()
}

// system adds a line of the agent's own.
func (o *output) system(format string, args ...any) {
	o.add(Line{Stream: "system", Text: fmt.Sprintf(format, args...)})
}

// end says that nothing more will come once all pipes are read.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.signal()
}

// take waits for lines; it returns none when the output has ended or ctx has.
func (o *output) take(ctx context.Context) []Line {
	for {
		o.mu.Lock()
		lines, dropped, wake := o.lines, o.dropped, o.wake
		over := o.ended && o.open == 0
		o.lines, o.bytes, o.dropped = nil, 0, 0
		o.mu.Unlock()
		if dropped > 0 {
			lines = append([]Line{{Stream: "system", Text: fmt.Sprintf("%d lines were dropped: the app wrote faster than they could be kept", dropped)}}, lines...)
		}
		if len(lines) > 0 || over {
			return lines
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// putBack returns lines that could not be delivered.
func (o *output) putBack(lines []Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range lines {
		o.bytes += len(l.Text) + 64
	}
	o.lines = append(lines, o.lines...)
}

// pipe returns the write end of a new pipe whose lines are kept under the name of a stream. The caller closes it
// after the start of the process that writes.
func (o *output) pipe(stream string) (int, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return -1, err
	}
	o.mu.Lock()
	o.open++
	o.mu.Unlock()
	go o.read(fds[0], stream)
	return fds[1], nil
}

func (o *output) read(fd int, stream string) {
	defer func() {
		_ = syscall.Close(fd)
		o.closed()
	}()
	buf := make([]byte, maxText)
	n := 0
	for {
		m, err := syscall.Read(fd, buf[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || m <= 0 {
			break
		}
		n += m
		rest := buf[:n]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			o.add(Line{Stream: stream, Text: text(rest[:i])})
			rest = rest[i+1:]
		}
		if len(rest) == len(buf) {
			cut := runeStart(rest)
			o.add(Line{Stream: stream, Text: text(rest[:cut]), Cont: true})
			rest = rest[cut:]
		}
		n = copy(buf, rest)
	}
	if n > 0 {
		o.add(Line{Stream: stream, Text: text(buf[:n])})
	}
}

func text(b []byte) string {
	return strings.ToValidUTF8(string(bytes.TrimSuffix(b, []byte("\r"))), "�")
}

// runeStart avoids cutting within a character.
func runeStart(b []byte) int {
	for i := len(b) - 1; i > len(b)-4 && i > 0; i-- {
		if b[i] < 0x80 {
			return i + 1
		}
		if b[i] >= 0xc0 {
			return i
		}
	}
	return len(b)
}

func (o *output) closed() {
	o.mu.Lock()
	o.open--
	to := o.to
	o.signal()
	o.mu.Unlock()
	if to != nil {
		to.closed()
	}
}

// redirect sends everything from now on to another output. What came before stays here.
func (o *output) redirect(to *output) {
	o.mu.Lock()
	defer o.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	o.to = to
	to.open += o.open
}
