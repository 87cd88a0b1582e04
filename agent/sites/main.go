// Package sites is the site server: it answers for those static sites that bring more than files, which are rules
// (`_redirects`, `_headers`), files that were compressed before, a prefix they were built for, or several 404 pages.
// Plain sites are Caddy's own, but for requests with a body, which it would not read to its end; both answer alike where a
// site says nothing (tests/contract/test_router.py).
//
// One process serves all such sites of a machine. It knows nothing but the markers that Caddy looks at and the folders
// that they lead to, so it may be killed at any time and nothing that serves depends on vibeD being alive.
package sites

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const grace = 5 * time.Second

// own is the process's log: a record a line, as all of vibeD's processes write.
var own = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		a.Key = "ts"
	}
	return a
}}))

// Config is what the process is told in a file.
type Config struct {
	Socket string `json:"socket"`
	// Apps is the folder of markers (vibed.router.markers).
	Apps string `json:"apps"`
	// Types are media types by extension, in small letters and without its dot.
	Types   map[string]string `json:"types"`
	Unknown string            `json:"unknown"`
}

// Main runs `vibed-agent sites CONFIG` until SIGTERM or SIGINT; returns the exit status.
func Main(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: vibed-agent sites CONFIG")
		return 2
	}
	if err := run(args[0]); err != nil {
		own.Error("the site server cannot go on", "error", err.Error())
		return 1
	}
	return 0
}

func run(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config Config
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	listener, err := listen(config.Socket)
	if err != nil {
		return err
	}
	own.Info("serving sites with rules", "socket", config.Socket)
	return serve(listener, New(config))
}

// serve answers until SIGTERM or SIGINT.
func serve(listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ErrorLog:          slog.NewLogLogger(own.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 30 * time.Second,
		// longer than Caddy keeps a connection that is idle: it is never closed under a request
		IdleTimeout:    5 * time.Minute,
		MaxHeaderBytes: 1 << 20,
	}
	stop, done := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer done()
	ended := make(chan struct{})
	go func() {
		<-stop.Done()
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		server.Shutdown(ctx)
		close(ended)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended
	return nil
}

// listen takes the socket's name over from an earlier process in one step, so that nobody finds none.
func listen(path string) (net.Listener, error) {
	fresh := path + ".new"
	os.Remove(fresh)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// its name goes on being the next process's
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}
