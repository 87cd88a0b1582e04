package pod

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"vibed.dev/agent/supervise"
	"vibed.dev/agent/unpack"
)

const (
	// codeFile is in the object that a worker's pod is given: what the worker is told to be (vibed.drivers.workerd.code).
	codeFile       = "worker.json"
	bundleTime     = 20 * time.Second
	bundleBytes    = 16 << 20
	bundleSource   = 128 << 20
	bundleFiles    = 1 << 16
	bundleSaid     = 64 << 10
	bundledPiece   = 384 << 10
	assetsUnpacked = 512 << 20
	// appsFirst: the worker goes before its agent when memory ends.
	appsFirst = 1000
)

// workshop is what a pod for a worker has beyond the others.
type workshop struct {
	bundler, modules string // esbuild, and the template's packages
	bundled          atomic.Bool
}

// confined is how what runs in a worker's pod beside the agent is held: the pod's own walls are around it, and what a
// process without root can do to itself comes on top. Namespaces are not to be had there.
func confined(cwd string, env map[string]string, fileBytes int64) map[string]any {
	limits := map[string]int64{"nofile": 4096, "core": 0}
	if fileBytes > 0 {
		limits["fsize"] = fileBytes
	}
	return map[string]any{
		"cwd": cwd, "env": env, "capabilities": []string{}, "seccomp": "default",
		"landlock": map[string]any{"ro": []string{"/"}, "rw": []string{"/tmp", "/dev"}},
		"rlimits":  limits, "die_with_parent": true, "oom_score_adj": appsFirst,
	}
}

// bundle has esbuild make one module of a source, once ever: this pod is that source's alone.
func (a *agent) bundle(line []byte, _ reader) (any, error) {
	var asked struct {
		Source    object   `json:"source"`
		Strip     string   `json:"strip"`
		Arguments []string `json:"arguments"`
	}
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, supervise.Refusal("BadRequest", "%v", err)
	}
	if a.workshop == nil {
		return nil, supervise.Refusal("UnknownOp", "this pod is for no worker")
	}
	if err := asked.Source.check(maxSource); err != nil {
		return nil, err
	}
	if !a.owned.Warm() || !a.workshop.bundled.CompareAndSwap(false, true) {
		return nil, supervise.Refusal("AlreadyClaimed", "a sandbox runs once, and this one was told to before")
	}
	if err := a.fetch(context.Background(), &asked.Source); err != nil {
		return nil, err
	}
	packed, source := a.sent.path(&asked.Source), filepath.Join(a.layers, "source")
	defer os.Remove(packed)
	defer os.RemoveAll(source)
	if err := os.Mkdir(source, 0o755); err != nil {
		return nil, full(err)
	}
	options := unpack.Options{Strip: asked.Strip, MaxBytes: bundleSource, MaxFiles: bundleFiles}
	if err := extracted(packed, source, options); err != nil {
		return nil, err
	}
	size, err := a.esbuild(source, asked.Arguments)
	if err != nil {
		return nil, err
	}
	return map[string]int64{"size": size}, nil
}

func (a *agent) bundleFile() string { return filepath.Join(a.dir, "bundle.js") }

// esbuild writes the bundle of what is in a folder, and returns its size.
func (a *agent) esbuild(folder string, arguments []string) (int64, error) {
	env := map[string]string{"NODE_PATH": a.workshop.modules, "HOME": "/tmp", "GOMAXPROCS": "2"}
	specification, err := json.Marshal(confined(folder, env, bundleBytes))
	if err != nil {
		return 0, err
	}
	spec, words := filepath.Join(a.dir, "bundler.json"), filepath.Join(a.dir, "bundler.said")
	if err := os.WriteFile(spec, specification, 0o600); err != nil {
		return 0, full(err)
	}
	defer os.Remove(spec)
	defer os.Remove(words)
	files := make([]*os.File, 3)
	for i, name := range []string{os.DevNull, a.bundleFile(), words} {
		if files[i], err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return 0, full(err)
		}
		defer files[i].Close()
	}
	argv := append([]string{"/proc/self/exe", "confine", spec, "--", a.workshop.bundler}, arguments...)
	pid, ended, err := a.owned.Spawn(argv, files)
	if err != nil {
		return 0, err
	}
	var status syscall.WaitStatus
	select {
	case status = <-ended:
	case <-time.After(bundleTime):
		syscall.Kill(-pid, syscall.SIGKILL)
		<-ended
		return 0, supervise.Refusal("BundleFailed", "bundling took more than %v", bundleTime)
	}
	info, err := files[1].Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() >= bundleBytes {
		return 0, supervise.Refusal("BundleFailed", "the bundle is larger than %d MB", bundleBytes>>20)
	}
	if status.ExitStatus() == 0 {
		return info.Size(), nil
	}
	said := make([]byte, bundleSaid)
	n, _ := files[2].ReadAt(said, 0)
	text := strings.TrimSpace(strings.ToValidUTF8(string(said[:n]), "\uFFFD"))
	const neverRan = 125
	if text == "" || status.ExitStatus() == neverRan {
		return 0, supervise.Refusal("SandboxLost", "the bundler could not be run: status %v: %s", status, text)
	}
	return 0, supervise.RefusalSaying("BundleFailed", "the worker cannot be bundled", text)
}

// piece is a part of what was bundled: an answer is one line.
func (a *agent) piece(line []byte, _ reader) (any, error) {
	var asked struct {
		At int64 `json:"at"`
	}
	if err := json.Unmarshal(line, &asked); err != nil || asked.At < 0 {
		return nil, supervise.Refusal("BadRequest", "%q says no place in a bundle", short(string(line)))
	}
	file, err := os.Open(a.bundleFile())
	if err != nil {
		return nil, supervise.Refusal("SourceMissing", "nothing was bundled here")
	}
	defer file.Close()
	buffer := make([]byte, bundledPiece)
	n, _ := file.ReadAt(buffer, asked.At)
	return map[string]string{"data": base64.StdEncoding.EncodeToString(buffer[:n])}, nil
}

// workerOf unpacks what a worker consists of, and returns where its code is.
func (a *agent) workerOf(packed string, o *order) (string, error) {
	os.Remove(a.bundleFile())
	most := int64(assetsUnpacked)
	if raw, ok := o.Limits["disk_bytes"]; ok {
		if err := json.Unmarshal(raw, &most); err != nil {
			return "", supervise.Refusal("BadRequest", "limits: %v", err)
		}
	}
	return filepath.Join(a.app, codeFile), extracted(packed, a.app, unpack.Options{MaxBytes: most})
}

func extracted(packed, into string, options unpack.Options) error {
	file, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = unpack.Extract(file, into, options)
	if refused := new(unpack.Error); errors.As(err, &refused) {
		return supervise.Refusal(string(refused.Code), "%v", err)
	}
	return err
}
