package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	logFileMax = 4 << 20
	// Above these, the rest of a second is counted and not kept.
	floodLines = 2000
	floodBytes = 1 << 20
	// floodLast is how many of the lines that were not kept are, after all, when the app ends among them.
	floodLast = 20
	// queueBytes is what may wait for a disk that has stalled; the app is never made to wait for it.
	queueBytes = 4 << 20
	writeChunk = 64 << 10
	// lineCost is what a line that waits takes besides its text.
	lineCost = 96
)

// The streams of a log line. system is the supervisor speaking.
const (
	streamOut    = "stdout"
	streamErr    = "stderr"
	streamBuild  = "build"
	streamSystem = "system"
)

type logLine struct {
	at     time.Time
	stream string
	text   string
	more   bool
	ours   bool // a fact of the supervisor's own, which no limit drops
	raw    bool // a worker's, not taken apart yet
}

// runLog is the log of one run of an app: numbered from 1 without a gap, bounded in rate and on disk. Adding to it never
// waits for the disk; a line that could not be kept is counted, and the count is written as soon as anything can be.
type runLog struct {
	dir  string
	who  owner
	tail tail

	mu      sync.Mutex
	queue   []logLine
	queued  int
	second  int64 // the window of the flood limit
	lines   int
	bytes   int
	dropped int       // by the flood limit in this window
	last    []logLine // the last of what was dropped, as long as nothing that is kept has followed
	closing bool
	wake    chan struct{}
	ended   chan struct{}
	kept    kept
	grown   chan struct{} // made by who waits, closed when there is more to read

	// Below: the writer's own.
	file *os.File
	size int64
	seq  int64
	lost int // what the disk did not take
}

func ourLine(text string) logLine {
	return logLine{at: time.Now(), stream: streamSystem, text: text, ours: true}
}

// openRunLog makes log_dir when it is missing. A log that is already there is gone on with: numbers are never used twice.
func openRunLog(dir string, who owner) (*runLog, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	own(dir, who)
	l := &runLog{dir: dir, who: who, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	l.seq = max(lastSeq(filepath.Join(dir, "log.1.jsonl")), lastSeq(filepath.Join(dir, "log.jsonl")))
	if err := l.open(); err != nil {
		return nil, err
	}
	l.kept.seq = l.seq
	go l.write()
	return l, nil
}

func own(path string, who owner) {
	if os.Geteuid() == 0 {
		os.Lchown(path, who.UID, who.GID)
	}
}

func (l *runLog) open() error {
	path := filepath.Join(l.dir, "log.jsonl")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	f.Chmod(0o640)
	own(path, l.who)
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	return nil
}

// lastSeq reads the number of the last complete line of a log file, 0 when there is none.
func lastSeq(path string) (seq int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, size-8*maxText), io.SeekStart)
	}
	data, _ := io.ReadAll(f)
	for line := range bytes.Lines(data) {
		var record struct {
			Seq int64 `json:"seq"`
		}
		if json.Unmarshal(line, &record) == nil {
			seq = max(seq, record.Seq)
		}
	}
	return seq
}

// app adds a line from inside the sandbox. Whatever stream it claims to be, it is subject to the flood limit.
func (l *runLog) app(stream, text string, more bool) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if stream != streamSystem {
		l.tail.add(text)
	}
	now := time.Now()
	for len(text) > maxText {
		cut := runeCut(text, maxText)
		l.add(logLine{at: now, stream: stream, text: text[:cut], more: true})
		text = text[cut:]
	}
	l.add(logLine{at: now, stream: stream, text: text, more: more})
}

// system adds a fact of our own; it is never dropped by the flood limit.
func (l *runLog) system(format string, args ...any) {
	text := strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")
	l.add(ourLine(text[:min(len(text), maxText)]))
}

func (l *runLog) add(line logLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return
	}
	l.turn(line.at.Unix())
	if !line.ours {
		if l.lines >= floodLines || l.bytes+len(line.text) > floodBytes || l.queued+len(line.text)+lineCost > queueBytes {
			l.drop(line, 1)
			// Once the limit is hit all of this second is dropped: a short line that would still fit would
			// stand in the log as if nothing were missing before it.
			l.lines = floodLines
			return
		}
		l.lines++
		l.bytes += len(line.text)
		l.last = nil
	}
	l.queue = append(l.queue, line)
	l.queued += len(line.text) + lineCost
	l.notify()
}

// flooded takes a worker's line, not taken apart yet, when the limit of this second is hit: it is counted, at the cost of
// little more than reading it. What a flood costs is our own time, which the sandbox's share of the processor does not
// bound.
func (l *runLog) flooded(stream, text string, more bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.turn(now.Unix())
	if l.closing || l.dropped == 0 {
		return false
	}
	lines := 1
	if strings.HasPrefix(text, "{") {
		lines += strings.Count(text, `\n`) // as JSON has it
	}
	l.drop(logLine{at: now, stream: stream, text: text, more: more, raw: true}, lines)
	return true
}

// drop counts lines that are not kept. Called with the lock held.
func (l *runLog) drop(line logLine, lines int) {
	if l.dropped == 0 {
		time.AfterFunc(time.Until(time.Unix(l.second+1, 0)), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.turn(time.Now().Unix())
			l.notify()
		})
	}
	l.dropped += lines
	if len(l.last) == floodLast {
		l.last = append(l.last[:0], l.last[1:]...)
	}
	l.last = append(l.last, line)
}

// lastWords writes the end of what was dropped when the app has ended: there it said why.
func (l *runLog) lastWords() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(-1)
	var words []logLine
	for _, line := range l.last {
		if !line.raw {
			words = append(words, line) // its text is in the tail already
			continue
		}
		stream, texts := workerLines(line.stream, line.text)
		for _, text := range texts {
			text = strings.ToValidUTF8(text, "\uFFFD")
			l.tail.add(text)
			words = append(words, logLine{at: line.at, stream: stream, text: text[:min(len(text), maxText)]})
		}
	}
	if words = words[max(0, len(words)-floodLast):]; len(words) > 0 {
		l.queue = append(append(l.queue, ourLine(fmt.Sprintf("the last %d of them:", len(words)))), words...)
	}
	l.last = nil
	l.notify()
}

// turn begins a new second of the flood limit, and tells what the last one cost. Called with the lock held.
func (l *runLog) turn(second int64) {
	if second == l.second {
		return
	}
	if l.dropped > 0 {
		text := fmt.Sprintf("%d lines dropped: more than %d lines or %d MiB in one second", l.dropped, floodLines, floodBytes>>20)
		l.queue = append(l.queue, ourLine(text))
	}
	l.second, l.lines, l.bytes, l.dropped = second, 0, 0, 0
}

func (l *runLog) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// close writes what is left, for at most patience: a stalled disk must not keep a dead sandbox.
func (l *runLog) close(patience time.Duration) {
	l.mu.Lock()
	if !l.closing {
		l.turn(-1)
		l.closing = true
	}
	l.mu.Unlock()
	l.notify()
	select {
	case <-l.ended:
	case <-time.After(patience):
	}
}

func (l *runLog) write() {
	defer close(l.ended)
	for range l.wake {
		for {
			l.mu.Lock()
			batch, closing := l.queue, l.closing
			l.queue, l.queued = nil, 0
			l.mu.Unlock()
			if len(batch) == 0 {
				if closing {
					if l.file != nil {
						l.file.Close()
					}
					l.tellGrown(func(k *kept) { k.complete = true })
					return
				}
				break
			}
			l.writeBatch(batch)
		}
	}
}

func (l *runLog) writeBatch(batch []logLine) {
	if l.lost > 0 {
		text := fmt.Sprintf("%d lines lost: the log could not be written", l.lost)
		batch = append([]logLine{ourLine(text)}, batch...)
	}
	reported := l.lost > 0
	var chunk []byte
	first := l.seq
	count := 0
	flush := func() {
		if count == 0 {
			return
		}
		if err := l.put(chunk); err != nil {
			l.seq = first
			l.lost += count
			if reported {
				l.lost-- // the line that was to tell about the lost ones is none of them
			}
		} else {
			l.tellGrown(func(k *kept) { k.seq = l.seq })
			if reported {
				l.lost = 0
			}
		}
		reported = false
		chunk, first, count = chunk[:0], l.seq, 0
	}
	for _, line := range batch {
		encoded := encodeLine(l.seq+1, line)
		if count > 0 && (len(chunk)+len(encoded) > writeChunk || l.size+int64(len(chunk)+len(encoded)) > logFileMax) {
			flush()
			encoded = encodeLine(l.seq+1, line)
		}
		if l.size > 0 && l.size+int64(len(encoded)) > logFileMax {
			l.rotate()
		}
		chunk = append(chunk, encoded...)
		l.seq++
		count++
	}
	flush()
}

// put appends complete lines or nothing: a disk that fills up in the middle would leave half a line.
func (l *runLog) put(chunk []byte) error {
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(chunk)
	if err != nil {
		if n > 0 {
			l.file.Truncate(l.size)
		}
		return err
	}
	l.size += int64(n)
	return nil
}

func (l *runLog) rotate() {
	path := filepath.Join(l.dir, "log.jsonl")
	if l.file == nil {
		return
	}
	if err := os.Rename(path, filepath.Join(l.dir, "log.1.jsonl")); err != nil && !errors.Is(err, os.ErrNotExist) {
		// The bound on the disk matters more than the old lines.
		l.file.Truncate(0)
		l.size = 0
		l.tellGrown(func(k *kept) { k.generation += 2 })
		return
	}
	l.file.Close()
	l.file, l.size = nil, 0
	l.tellGrown(func(k *kept) { k.generation++ })
}

func encodeLine(seq int64, line logLine) []byte {
	var b bytes.Buffer
	b.WriteString(`{"seq": `)
	b.WriteString(strconv.FormatInt(seq, 10))
	micros := line.at.UnixMicro()
	fmt.Fprintf(&b, `, "ts": %d.%06d, "stream": "%s", "text": `, micros/1e6, micros%1e6, line.stream)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(line.text)
	b.Truncate(b.Len() - 1)
	if line.more {
		b.WriteString(`, "cont": true`)
	}
	b.WriteString("}\n")
	return b.Bytes()
}
