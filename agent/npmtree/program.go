package npmtree

import (
	"bufio"
	"bytes"
	"io"
	"regexp"
)

// asked is how much of a command npm looks at for how it is to be run.
const asked = 2048

var withReturn = regexp.MustCompile(`^#![^\n]+\r\n`)

// program is the content of a command: npm takes the carriage return off its first line, with which no system runs it.
func program(content io.Reader) io.Reader {
	buffered := bufio.NewReaderSize(content, asked)
	head, _ := buffered.Peek(asked) // what it fails with comes when it is read
	line := withReturn.Find(head)
	if line == nil {
		return buffered
	}
	fixed := append(bytes.Clone(line[:len(line)-2]), '\n')
	if _, err := buffered.Discard(len(line)); err != nil {
		return buffered
	}
	return io.MultiReader(bytes.NewReader(fixed), buffered)
}
