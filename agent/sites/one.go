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
)

// OneMain runs `vibed-agent site FOLDER` until SIGTERM or SIGINT: one site, in a sandbox of its own, as its app. It listens
// where apps are told to ($PORT), on loopback: what is in front of it has the address.
func OneMain(args []string) int {
	flags := flag.NewFlagSet("site", flag.ContinueOnError)
	types := flags.String("types", "", "a file with `types` and `unknown`, as in the configuration of the site server")
	fallback := flags.String("fallback", "", "what answers for paths that are no file, where the site's own facts do not say")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: vibed-agent site [-types FILE] [-fallback PATH] FOLDER")
		return 2
	}
	if err := runOne(flags.Arg(0), *types, *fallback); err != nil {
		own.Error("the site cannot be served", "error", err.Error())
		return 1
	}
	return 0
}

func runOne(folder, types, fallback string) error {
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
	said, err := readFolder(folder)
	if errors.Is(err, fs.ErrNotExist) {
		said, err = &facts{Fallback: fallback}, nil
	}
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
	if err != nil {
		return err
	}
	s := New(config)
	s.find = func(*http.Request) (string, *facts, error) { return folder, said, nil }
	return serve(listener, s)
}
