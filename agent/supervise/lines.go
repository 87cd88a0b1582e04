package supervise

import (
	"bytes"
	"unicode/utf8"
)

// maxText is the longest text of one log line, in bytes.
const maxText = 16 << 10

// lineSplitter cuts a stream into lines of at most maxText bytes; more says that the line goes on in the next piece.
type lineSplitter struct {
	held []byte
	emit func(text []byte, more bool)
}

func (s *lineSplitter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.held = append(s.held, p...)
			s.overflow()
			return n, nil
		}
		if len(s.held) == 0 && end <= maxText {
			s.emit(bytes.TrimSuffix(p[:end], []byte{'\r'}), false)
		} else {
			s.held = append(s.held, p[:end]...)
			s.overflow()
			s.emit(bytes.TrimSuffix(s.held, []byte{'\r'}), false)
			s.held = s.held[:0]
		}
		p = p[end+1:]
	}
	return n, nil
}

// end emits what a stream that stopped in the middle of a line has left.
func (s *lineSplitter) end() {
	if len(s.held) > 0 {
		s.emit(s.held, false)
		s.held = nil
	}
}

func (s *lineSplitter) overflow() {
	for len(s.held) > maxText {
		cut := runeCut(s.held, maxText)
		s.emit(s.held[:cut], true)
		s.held = s.held[:copy(s.held, s.held[cut:])]
	}
}

// runeCut is the largest length up to limit that does not cut a character of valid UTF-8 in two.
func runeCut[T ~string | ~[]byte](text T, limit int) int {
	for cut := limit; cut > limit-utf8.UTFMax; cut-- {
		if utf8.RuneStart(text[cut]) {
			return cut
		}
	}
	return limit
}
