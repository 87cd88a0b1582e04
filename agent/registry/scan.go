package registry

import (
	"bytes"
	"encoding/json"
	"errors"
)

// Pages of registries are megabytes of JSON in which only addresses change. They are walked once, as bytes, and what is
// not understood stays what it is; that the whole makes sense is for the client to see.

var errNoJSON = errors.New("it is no JSON")

// span is a part of a text.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// members calls with each member of the object at s: its key, as it is written between its quotes, and its value.
func members(b []byte, s span, with func(key []byte, value span)) error {
	return items(b, s, '{', func(at int) (int, error) {
		if at >= s.to || b[at] != '"' {
			return 0, errNoJSON
		}
		end, err := skip(b, at, s.to)
		if err != nil {
			return 0, err
		}
		colon := blank(b, end, s.to)
		if colon >= s.to || b[colon] != ':' {
			return 0, errNoJSON
		}
		from := blank(b, colon+1, s.to)
		to, err := skip(b, from, s.to)
		if err == nil {
			with(b[at+1:end-1], span{from, to})
		}
		return to, err
	})
}

// elements calls with each element of the array at s.
func elements(b []byte, s span, with func(span)) error {
	return items(b, s, '[', func(at int) (int, error) {
		end, err := skip(b, at, s.to)
		if err == nil {
			with(span{at, end})
		}
		return end, err
	})
}

// items walks what is between brackets; item returns where the one that it is given ends.
func items(b []byte, s span, open byte, item func(at int) (int, error)) error {
	at := blank(b, s.from, s.to)
	if at >= s.to || b[at] != open {
		return errNoJSON
	}
	if at = blank(b, at+1, s.to); at < s.to && b[at] == open+2 { // ] and } come two after [ and {
		return nil
	}
	for {
		end, err := item(at)
		if err != nil {
			return err
		}
		if at = blank(b, end, s.to); at >= s.to {
			return errNoJSON
		}
		if b[at] == open+2 {
			return nil
		}
		if b[at] != ',' {
			return errNoJSON
		}
		at = blank(b, at+1, s.to)
	}
}

func blank(b []byte, at, end int) int {
	for at < end && (b[at] == ' ' || b[at] == '\n' || b[at] == '\t' || b[at] == '\r') {
		at++
	}
	return at
}

// skip returns where the value at b[at] ends.
func skip(b []byte, at, end int) (int, error) {
	if at >= end {
		return 0, errNoJSON
	}
	switch b[at] {
	case '"':
		for at++; at < end; at++ {
			next := bytes.IndexByte(b[at:end], '"')
			if next < 0 {
				return 0, errNoJSON
			}
			at += next
			slashes := 0
			for b[at-1-slashes] == '\\' {
				slashes++
			}
			if slashes%2 == 0 {
				return at + 1, nil
			}
		}
		return 0, errNoJSON
	case '{', '[':
		for depth := 0; at < end; at++ {
			switch b[at] {
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return at + 1, nil
				}
			case '"':
				to, err := skip(b, at, end)
				if err != nil {
					return 0, err
				}
				at = to - 1
			}
		}
		return 0, errNoJSON
	default:
		from := at
		for at < end && !bytes.ContainsRune([]byte(",]} \n\t\r"), rune(b[at])) {
			at++
		}
		if at == from {
			return 0, errNoJSON
		}
		return at, nil
	}
}

// text is a string that was written as JSON; empty when it is none.
func text(raw []byte) string {
	if len(raw) >= 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

// edit is a string in place of a part of a text.
type edit struct {
	at   span
	with string
}

// edited applies edits, which are in their order and do not overlap.
func edited(b []byte, edits []edit) []byte {
	size := len(b)
	for _, e := range edits {
		size += len(e.with) + 2
	}
	out := make([]byte, 0, size)
	done := 0
	for _, e := range edits {
		quoted, _ := json.Marshal(e.with)
		out = append(append(out, b[done:e.at.from]...), quoted...)
		done = e.at.to
	}
	return append(out, b[done:]...)
}
