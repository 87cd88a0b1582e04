// Package registry is the way of one builder sandbox to the package registries: an HTTP server on a Unix socket that
// stands for them. Clients inside ask it instead of the registries, so what the registries know callers by stays out of
// the sandbox, downloads are kept on the host, and whatever else is asked for is refused by its name.
// docs/reference/supervisor.md, section Registry gate, is its contract.
package registry

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	maxConfig  = 16 << 20
	memoryGoal = 320 << 20
)

// Config is the first line of standard input. Credentials are in it, and nowhere on a disk.
type Config struct {
	Socket string `json:"socket"`
	// Cache is the folder of downloads, shared by all gates of a host; empty: nothing is kept.
	Cache      string `json:"cache"`
	CacheBytes int64  `json:"cache_bytes"`
	// Arriving names a folder for what this gate has on its way, which whoever ends it removes.
	Arriving string `json:"arriving"`
	// PyPI are simple indexes. Together they are one: an index that comes first wins (FirstIndex), or the files of all count.
	PyPI       []string `json:"pypi"`
	FirstIndex bool     `json:"first_index"`
	// FindLinks are folders with distributions, beside the indexes.
	FindLinks []string          `json:"find_links"`
	NPM       string            `json:"npm"`
	Scopes    map[string]string `json:"npm_scopes"` // "@acme": its registry
	// Go is a GOPROXY list; SumDB the checksum database, by the name that Go asks for.
	Go    string `json:"go"`
	SumDB struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	} `json:"sumdb"`

	Binaries []Binaries `json:"binaries"`

	Authorization []Authorization `json:"authorization"`
	Authorities   []string        `json:"authorities"` // certificates in PEM, besides the system's
	Insecure      []string        `json:"insecure"`    // hosts whose certificate is not checked
	Proxy         struct {
		HTTP  string `json:"http"`
		HTTPS string `json:"https"`
		None  string `json:"none"`
	} `json:"proxy"`
}

// Authorization is a header for all addresses that begin with Prefix (scheme, host and the beginning of the path).
type Authorization struct {
	Prefix string `json:"prefix"`
	Header string `json:"header"`
}

// Main is the mode "registry". It ends when standard input does, and with it whoever started it.
func Main(args []string) int {
	if len(args) != 0 {
		fmt.Fprintln(os.Stderr, "usage: vibed-agent registry < CONFIG, whose first line it is; the end of the input ends it")
		return 2
	}
	debug.SetMemoryLimit(memoryGoal)
	input := bufio.NewReader(os.Stdin)
	var config Config
	if err := json.NewDecoder(io.LimitReader(oneLine{input}, maxConfig)).Decode(&config); err != nil {
		fmt.Fprintln(os.Stderr, "vibed-agent registry: configuration:", err)
		return 1
	}
	if err := serve(config, input); err != nil {
		fmt.Fprintln(os.Stderr, "vibed-agent registry:", err)
		return 1
	}
	return 0
}

// oneLine reads up to the end of a line, which is its end.
type oneLine struct{ from *bufio.Reader }

func (l oneLine) Read(into []byte) (int, error) {
	for i := range into {
		b, err := l.from.ReadByte()
		if err != nil {
			return i, err
		}
		if into[i] = b; b == '\n' {
			return i + 1, nil
		}
	}
	return len(into), nil
}

func serve(config Config, input io.Reader) error {
	gate, err := New(config, os.Stderr)
	if err != nil {
		return err
	}
	// Complete before it has its name: who finds it can connect.
	next := filepath.Join(filepath.Dir(config.Socket), ".next")
	_ = os.Remove(next)
	syscall.Umask(0o022)
	listener, err := net.Listen("unix", next)
	if err != nil {
		return err
	}
	// The folder is what keeps others out: on the host nobody gets there, and in the sandbox every process may.
	if err := os.Chmod(next, 0o666); err != nil {
		return err
	}
	if err := os.Rename(next, config.Socket); err != nil {
		return err
	}
	server := &http.Server{Handler: gate, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: gate.quiet()}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	gate.tell(event{Ready: true})
	go gate.cache.trim(config.CacheBytes)
	go func() {
		_, _ = io.Copy(io.Discard, input)
		ended <- nil
	}()
	return <-ended
}
