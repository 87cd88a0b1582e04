package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// kept is what there is to read of a run's log.
type kept struct {
	seq        int64 // of the last line
	generation int   // how often the file was made anew
	complete   bool  // whether nothing more will come
}

func (l *runLog) tellGrown(change func(*kept)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.kept)
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// LogLines is a part of a run's log.
type LogLines struct {
	Lines []json.RawMessage `json:"lines"`
	// Complete says that nothing will come after them.
	Complete bool `json:"complete"`
}

// place is how far a log was read.
type place struct {
	seq        int64
	generation int
	offset     int64
}

const (
	// linesBytes bounds an answer, with a margin below what a line of the control connection may have.
	linesBytes = 512 << 10
	lineBytes  = 8 * maxText
)

// read returns lines after a number; it waits for some until ctx ends. last is where the reader before has stopped: who
// goes on there does not read everything again. The files belong to whom the app may be, so what makes no sense in them is
// passed over.
func (l *runLog) read(ctx context.Context, after int64, last *place) (LogLines, error) {
	for {
		l.mu.Lock()
		if l.grown == nil {
			l.grown = make(chan struct{})
		}
		now, grown := l.kept, l.grown
		l.mu.Unlock()
		if now.seq > after {
			found, err := l.linesAfter(after, now, last)
			if err != nil || len(found) > 0 {
				return LogLines{Lines: found, Complete: now.complete && last.seq >= now.seq}, err
			}
		}
		if now.complete {
			return LogLines{Lines: []json.RawMessage{}, Complete: true}, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return LogLines{Lines: []json.RawMessage{}}, nil
		}
	}
}

func (l *runLog) linesAfter(after int64, now kept, last *place) ([]json.RawMessage, error) {
	at := place{generation: now.generation - 1}
	if last.seq == after && (last.generation == now.generation || last.generation == now.generation-1) {
		at = *last
	}
	found, bytes := []json.RawMessage{}, 0
	for ; at.generation <= now.generation; at.generation, at.offset = at.generation+1, 0 {
		name := "log.jsonl"
		if at.generation < now.generation {
			name = "log.1.jsonl"
		}
		file, err := os.OpenFile(filepath.Join(l.dir, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		full, err := func() (bool, error) {
			defer file.Close()
			if _, err := file.Seek(at.offset, io.SeekStart); err != nil {
				return false, err
			}
			lines := bufio.NewReaderSize(file, lineBytes)
			for {
				line, err := lines.ReadSlice('\n')
				if err == bufio.ErrBufferFull {
					at.offset += int64(len(line))
					continue
				}
				if err != nil {
					return false, nil // it goes on there
				}
				at.offset += int64(len(line))
				var said struct {
					Seq int64 `json:"seq"`
				}
				if json.Unmarshal(line, &said) != nil || said.Seq <= after || said.Seq <= at.seq {
					continue
				}
				at.seq = said.Seq
				found = append(found, append(json.RawMessage{}, line[:len(line)-1]...))
				if bytes += len(line); bytes > linesBytes-lineBytes {
					return true, nil
				}
			}
		}()
		if err != nil || full {
			*last = at
			return found, err
		}
		if at.generation == now.generation {
			break
		}
	}
	*last = at
	return found, nil
}
