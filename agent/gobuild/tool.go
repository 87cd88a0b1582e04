package gobuild

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tool runs the go command in one folder, with an environment of its own.
type tool struct {
	dir string
	env map[string]string
	log io.Writer
}

// newTool keeps what is cached below tmp: nothing of it outlives the sandbox, so no build finds what another left. What is
// shared are downloads, which the gate keeps and every build checks by their hashes, and the compiled standard library
// below GOROOT, which nobody can write to.
func newTool(dir, tmp string) *tool {
	env := map[string]string{}
	for _, one := range os.Environ() {
		name, value, _ := strings.Cut(one, "=")
		env[name] = value
	}
	env["HOME"] = filepath.Join(tmp, "home")
	env["GOPATH"] = filepath.Join(tmp, "go")
	env["GOCACHE"] = filepath.Join(tmp, "go-cache")
	env["GOTOOLCHAIN"] = "auto"
	delete(env, "GOWORK")
	return &tool{dir: dir, env: env, log: os.Stdout}
}

// in is the same in another folder.
func (t *tool) in(dir string) *tool {
	return &tool{dir: dir, env: maps.Clone(t.env), log: t.log}
}

// run returns whether the command did well, and the end of what it said, which is in the log as well.
func (t *tool) run(args ...string) (bool, string) {
	var said tail
	command := t.command(args...)
	command.Stdout = io.MultiWriter(t.log, &said)
	command.Stderr = command.Stdout
	err := command.Run()
	if err != nil && len(said.text) == 0 {
		return false, err.Error()
	}
	return err == nil, string(said.text)
}

// output returns what the command wrote, without a word in the log; empty when it failed.
func (t *tool) output(args ...string) string {
	text, err := t.command(args...).Output()
	if err != nil {
		return ""
	}
	return string(text)
}

func (t *tool) command(args ...string) *exec.Cmd {
	name := "go"
	// the one that the environment names, whatever PATH this process has
	for _, folder := range filepath.SplitList(t.env["PATH"]) {
		if found := filepath.Join(folder, name); runnable(found) {
			name = found
			break
		}
	}
	command := exec.Command(name, args...)
	command.Dir = t.dir
	for _, key := range slices.Sorted(maps.Keys(t.env)) {
		command.Env = append(command.Env, key+"="+t.env[key])
	}
	return command
}

func runnable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// tail keeps the end of what is written.
type tail struct{ text []byte }

func (t *tail) Write(piece []byte) (int, error) {
	t.text = append(t.text, piece...)
	if len(t.text) > told {
		t.text = slices.Clone(t.text[len(t.text)-told:])
	}
	return len(piece), nil
}
