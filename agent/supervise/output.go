package supervise

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"syscall"
)

// outputs are the command's standard output and error, read without ever waiting for whoever wants the lines.
type outputs struct {
	readers []*os.File
	writers []*os.File
	reading sync.WaitGroup
}

func newOutputs() (*outputs, error) {
	o := &outputs{}
	for _, name := range []string{streamOut, streamErr} {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
			return nil, err
		}
		// Only our end: the command gets an ordinary pipe.
		syscall.SetNonblock(fds[0], true)
		o.readers = append(o.readers, os.NewFile(uintptr(fds[0]), name))
		o.writers = append(o.writers, os.NewFile(uintptr(fds[1]), name))
	}
	return o, nil
}

// read begins to read, when the command has been started.
func (o *outputs) read(emit func(stream, text string, more bool)) {
	for i, r := range o.readers {
		o.writers[i].Close()
		o.reading.Add(1)
		go func() {
			defer o.reading.Done()
			lines := lineSplitter{emit: func(text []byte, more bool) { emit(r.Name(), string(text), more) }}
			buf := make([]byte, 64<<10)
			for {
				n, err := r.Read(buf)
				lines.Write(buf[:n])
				if err != nil {
					lines.end()
					return
				}
			}
		}()
	}
}

// workerLines takes a line of a worker's apart into the lines of its message.
func workerLines(stream, text string) (string, []string) {
	stream, text = workerLine(stream, text)
	return stream, strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// workerLine takes a line that workerd has written with structuredLogging apart: {timestamp, level, message}. Any other
// line stays what it is.
func workerLine(stream, text string) (string, string) {
	if !strings.HasPrefix(text, "{") {
		return stream, text
	}
	var entry struct {
		Timestamp any     `json:"timestamp"`
		Level     string  `json:"level"`
		Message   *string `json:"message"`
	}
	if json.Unmarshal([]byte(text), &entry) != nil || entry.Message == nil || entry.Level == "" || entry.Timestamp == nil {
		return stream, text
	}
	switch entry.Level {
	case "error", "warn", "fatal":
		return streamErr, *entry.Message
	}
	return streamOut, *entry.Message
}
