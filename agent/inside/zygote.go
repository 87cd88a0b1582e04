package inside

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// zygoteSpec is an entry of /etc/vibed/zygotes.json.
type zygoteSpec struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Argv    []string `json:"argv"`
	Modules []string `json:"modules"`
}

// zygote is a process that has imported its modules and waits to become the app.
type zygote struct {
	spec  zygoteSpec
	pid   int
	exit  <-chan exitStatus
	sock  *os.File
	ready chan struct{} // closed when it is ready or has failed
	err   error         // set before ready is closed
	out   *output
}

// orders is the one line that a zygote waits for.
type orders struct {
	Argv    []string          `json:"argv"`
	Env     map[string]string `json:"env"`
	Cwd     string            `json:"cwd"`
	Entropy string            `json:"entropy"`
}

const zygoteTimeout = 30 * time.Second

func readZygotes(file string) ([]zygoteSpec, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var specs []zygoteSpec
	if err := json.Unmarshal(raw, &specs); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, s := range specs {
		if s.Name == "" || len(s.Argv) == 0 || s.Kind != "python" && s.Kind != "node" {
			return nil, fmt.Errorf("%s: %q needs a name, an argv, and the kind python or node", file, s.Name)
		}
	}
	return specs, nil
}

func (a *agent) startZygote(spec zygoteSpec) *zygote {
	z := &zygote{spec: spec, ready: make(chan struct{}), out: newOutput()}
	fail := func(err error) *zygote {
		z.err = err
		close(z.ready)
		return z
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = syscall.Close(pair[1]) }()
	z.sock = os.NewFile(uintptr(pair[0]), "zygote")
	// Where the app will be: some modules keep the working directory that they are imported in, and gunicorn goes back to it.
	z.pid, z.exit, err = a.spawn(z.out, "stdout", "stderr", command{argv: spec.Argv, env: environ(a.baseEnv(0)), dir: a.appDir, extra: pair[1]})
	if err != nil {
		_ = z.sock.Close()
		return fail(err)
	}
	go func() {
		timer := time.AfterFunc(zygoteTimeout, func() { _ = syscall.Kill(z.pid, syscall.SIGKILL) })
		defer timer.Stop()
		line, err := bufio.NewReaderSize(z.sock, 64).ReadString('\n')
		if err != nil || line != "ready\n" {
			z.err = fmt.Errorf("it ended, or took longer than %s, before it was ready", zygoteTimeout)
			_ = syscall.Kill(z.pid, syscall.SIGKILL)
		}
		close(z.ready)
	}()
	return z
}

// kill ends a zygote that is not needed.
func (z *zygote) kill() {
	if z.pid > 0 {
		_ = syscall.Kill(z.pid, syscall.SIGKILL)
	}
	if z.sock != nil {
		_ = z.sock.Close()
	}
}

// usable says whether it is ready now.
func (z *zygote) usable() bool {
	select {
	case <-z.ready:
		return z.err == nil
	default:
		return false
	}
}

// command sends the orders.
func (z *zygote) command(o orders) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	defer func() { _ = z.sock.Close() }()
	_, err = z.sock.Write(append(line, '\n'))
	return err
}

// atStart are environment variables that an interpreter or a native library reads once, when it starts: an app that
// sets one differently from the zygote's environment needs a fresh process to behave the same.
var atStart = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(HOME|DEBUG.*|NODE_ENV|PYTHON.*|NODE_OPTIONS|NODE_PATH|NODE_EXTRA_CA_CERTS|NODE_DEBUG.*|NODE_ICU_DATA|NODE_NO_WARNINGS|NODE_PENDING.*|NODE_REPL.*|NODE_V8_COVERAGE|NODE_TLS_REJECT_UNAUTHORIZED|NODE_USE_.*|NODE_COMPILE_CACHE|UV_.*|LD_.*|GLIBC_.*|MALLOC_.*|LANG|LC_.*|LANGUAGE|OPENSSL_.*|SSL_CERT.*|OMP_.*|OPENBLAS_.*|MKL_.*|NUMEXPR_.*|NPY_.*|MPL.*|FORCE_COLOR|NO_COLOR|PANDAS_.*|ARROW_.*|TZDIR|PYDANTIC_.*|SQLALCHEMY_.*|WERKZEUG_.*|AIOHTTP_.*|UVLOOP_.*|MULTIDICT_.*|YARL_.*|FROZENLIST_.*)$`)
})

// warmable says whether a zygote can stand for a fresh process, and of which kind.
func warmable(s startSpec, base map[string]string) (kind string, target []string) {
	if s.Warm != nil && !*s.Warm || s.Shell != "" || len(s.Argv) < 2 {
		return "", nil
	}
	for k, v := range s.Env {
		// installed packages are taken over by a process that waits, or it hands over to a fresh one itself (zygote.py)
		if old, same := base[k]; k != "PYTHONUSERBASE" && atStart().MatchString(k) && (!same || old != v) {
			return "", nil
		}
	}
	switch name := path.Base(s.Argv[0]); {
	case name == "python3" || name == "python":
		kind = "python"
	case name == "node" || name == "nodejs":
		kind = "node"
	default:
		return "", nil
	}
	target = s.Argv[1:]
	if kind == "python" && target[0] == "-m" {
		if len(target) < 2 || strings.HasPrefix(target[1], "-") {
			return "", nil
		}
		return kind, target
	}
	if strings.HasPrefix(target[0], "-") {
		return "", nil
	}
	return kind, target
}

// pick returns the ready zygote with the most modules that are imported, of equals the one with the fewest others.
func pick(zygotes []*zygote, kind string, imports map[string]bool) *zygote {
	var best *zygote
	score, extra := -1, 0
	for _, z := range zygotes {
		if z.spec.Kind != kind || !z.usable() {
			continue
		}
		n := 0
		for _, m := range z.spec.Modules {
			if imports[m] || imports[strings.SplitN(m, ".", 2)[0]] {
				n++
			}
		}
		if others := len(z.spec.Modules) - n; n > score || n == score && others < extra {
			best, score, extra = z, n, others
		}
	}
	return best
}

var (
	pythonImport = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?m)^[ \t]*(?:import|from)[ \t]+([A-Za-z_][\w.]*)((?:[ \t]+as[ \t]+\w+)?(?:[ \t]*,[ \t]*[A-Za-z_][\w., \t]*)?)`)
	})
	nodeImport = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?:require\s*\(\s*|from\s+|import\s*\(?\s*)["']([^"'\n]+)["']`)
	})
)

// imported lists what the entry file and its siblings import, by first names (Python) or package names (Node).
func imported(kind, dir string, target []string) map[string]bool {
	const maxFiles, maxBytes = 40, 256 << 10
	out := map[string]bool{}
	entry := target[0]
	if entry == "-m" {
		out[strings.SplitN(target[1], ".", 2)[0]] = true
		entry = strings.ReplaceAll(target[1], ".", "/") + ".py"
	}
	if !path.IsAbs(entry) {
		entry = path.Join(dir, entry)
	}
	suffixes := []string{".py"}
	if kind == "node" {
		suffixes = []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"}
	}
	files := []string{entry}
	siblings, _ := os.ReadDir(path.Dir(entry))
	for _, s := range siblings {
		if f := filepath.Join(path.Dir(entry), s.Name()); s.Type().IsRegular() && slices.Contains(suffixes, path.Ext(f)) && f != entry && len(files) < maxFiles {
			files = append(files, f)
		}
	}
	for _, f := range files {
		text := readSome(f, maxBytes)
		if kind == "python" {
			for _, m := range pythonImport().FindAllSubmatch(text, -1) {
				out[strings.SplitN(string(m[1]), ".", 2)[0]] = true
				for _, more := range strings.Split(string(m[2]), ",") {
					if f := strings.Fields(more); len(f) > 0 && f[0] != "as" {
						out[strings.SplitN(f[0], ".", 2)[0]] = true
					}
				}
			}
			continue
		}
		for _, m := range nodeImport().FindAllSubmatch(text, -1) {
			out[packageName(string(m[1]))] = true
		}
	}
	return out
}

// readSome reads the beginning of a regular file and follows no link: the app's files are the app's word.
func readSome(file string, limit int) []byte {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, limit)
	n, _ := f.Read(buf)
	return buf[:max(n, 0)]
}

func packageName(spec string) string {
	parts := strings.Split(spec, "/")
	if strings.HasPrefix(spec, "@") && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}
