// Package gobuild compiles Go apps in a builder sandbox, and makes toolchains ready for that. Nothing of an app's code
// runs here: what it says decides what is compiled, no more.
package gobuild

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

const (
	out = "/layers/out"
	app = "/app"
	// told is how much of the end of a program's words is sent.
	told = 48 << 10
)

// request is what /layers/out/request.json says.
type request struct {
	// Step is "build", "resolve" (which toolchains there are) or "install" (one of them).
	Step string `json:"step"`
	// Package is the folder of the package main, below the app's; empty for that itself.
	Package string `json:"package"`
	// Binary is where the program is put, below the app's folder.
	Binary string `json:"binary"`
	// Compilers says that there are C compilers, for packages that are compiled by them.
	Compilers bool `json:"compilers"`
	// Toolchain is the version to install: "1.26.8".
	Toolchain string `json:"toolchain"`
}

// answer is what comes of it; after one with built or installed, a tarball follows.
type answer struct {
	Failed *string `json:"failed,omitempty"`
	// Cgo are packages that a C compiler compiles.
	Cgo []string `json:"cgo,omitempty"`
	// Needs is the version of Go that a module asks for, where that is newer than the one there is.
	Needs      string `json:"needs,omitempty"`
	Resolution string `json:"resolution,omitempty"`
	Built      bool   `json:"built,omitempty"`
	Installed  bool   `json:"installed,omitempty"`
}

// Main is the mode "gobuild": orders in /layers/out/request.json, what comes of it to the socket beside it.
func Main([]string) int {
	var r request
	text, err := os.ReadFile(filepath.Join(out, "request.json"))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vibed-agent gobuild:", err)
		return 125
	}
	g := newTool(app, "/tmp")
	switch r.Step {
	case "build":
		err = build(g, r)
	case "resolve":
		err = listed(g)
	case "install":
		err = install(g, r.Toolchain)
	default:
		err = fmt.Errorf("there is no step %q", r.Step)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vibed-agent gobuild:", err)
		return 1
	}
	return 0
}

// send writes eight bytes with the length of the answer, the answer, and whatever `then` writes.
func send(a answer, then func(io.Writer) error) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	connection, err := net.Dial("unix", filepath.Join(out, "out.sock"))
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write(append(binary.BigEndian.AppendUint64(nil, uint64(len(body))), body...)); err != nil {
		return err
	}
	if then == nil {
		return nil
	}
	return then(connection)
}

// failed sends why nothing came of it: in the tool's own words, and what else is known.
func failed(said string, more answer) error {
	more.Failed = &said
	if err := send(more, nil); err != nil {
		return err
	}
	return fmt.Errorf("it failed")
}
