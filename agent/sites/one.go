package sites

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"vibed.dev/agent/ingress"
)

// OneMain runs `vibed-agent site FOLDER` until SIGTERM or SIGINT: one site, in a sandbox of its own, as its app. It listens
// where apps are told to ($PORT), on loopback: what is in front of it has the address, and finds it elsewhere where that port
// is taken. With -many FOLDER has links `<app>/<run>` to the folders of many sites, and the requests say which they mean.
func OneMain(args []string) int {
	flags := flag.NewFlagSet("site", flag.ContinueOnError)
	types := flags.String("types", "", "a file with `types` and `unknown`, as in the configuration of the site server")
	fallback := flags.String("fallback", "", "what answers for paths that are no file, where the site's own facts do not say")
	many := flags.Bool("many", false, "FOLDER has many sites, by the runs that requests name")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: vibed-agent site [-types FILE] [-fallback PATH] [-many] FOLDER")
		return 2
	}
	if err := runOne(flags.Arg(0), *types, *fallback, *many); err != nil {
		own.Error("the site cannot be served", "error", err.Error())
		return 1
	}
	return 0
}

func runOne(folder, types, fallback string, many bool) error {
	config := Config{Unknown: "application/octet-stream"}
	if types != "" {
		text, err := os.ReadFile(types)
		if err == nil {
			err = json.Unmarshal(text, &config)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", types, err)
		}
	}
	s := New(config)
	if many {
		s.find = func(r *http.Request) (string, *facts, error) { return s.run(folder, r.Header.Get(ingress.RunField)) }
		return listenOn(s)
	}
	said, err := readFolder(folder)
	if errors.Is(err, fs.ErrNotExist) {
		said, err = &facts{Fallback: fallback}, nil
	}
	if err != nil {
		return err
	}
	s.find = func(*http.Request) (string, *facts, error) { return folder, said, nil }
	return listenOn(s)
}

func listenOn(s *Server) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
	if errors.Is(err, syscall.EADDRINUSE) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return err
	}
	return serve(listener, s)
}

// run finds the site of a run below a folder, and what is known of it.
func (s *Server) run(below, run string) (string, *facts, error) {
	clean := path.Clean("/" + run)
	if run == "" || strings.Count(clean, "/") != 2 || hidden(clean) {
		return "", nil, fmt.Errorf("%q is no run", run)
	}
	folder, err := os.Readlink(filepath.Join(below, clean))
	if err != nil {
		return "", nil, err
	}
	facts, err := s.known.of(path.Dir(clean), folder)
	return folder, facts, err
}
