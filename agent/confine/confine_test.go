package confine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"vibed.dev/agent/launch"
)

// The test binary stands for vibed-agent, and, inside, for a hostile program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "confine":
			os.Exit(Main(os.Args[2:]))
		case "probe":
			os.Exit(probe())
		case "hog":
			os.Exit(hog())
		case "parent":
			os.Exit(parent(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

const sandboxUID = 231500

// probe tries what an app must not be able to do, and prints the errors as JSON.
func probe() int {
	out := map[string]string{}
	try := func(name string, nr uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		r, _, e := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e == 0 {
			out[name] = fmt.Sprintf("allowed: %d", r)
			return
		}
		out[name] = e.Error()
	}
	path := func(s string) uintptr { return uintptr(unsafe.Pointer(&append([]byte(s), 0)[0])) }
	try("mount", syscall.SYS_MOUNT, path("none"), path("/tmp"), path("tmpfs"), 0, 0)
	try("umount", syscall.SYS_UMOUNT2, path("/tmp"), 0)
	try("fsopen", sysFsopen, path("tmpfs"), 0)
	try("open_tree", sysOpenTree, atFdcwd, path("/tmp"), 1)
	try("mount_setattr", sysMountSetattr, atFdcwd, path("/tmp"), 0, path("                                "), 32)
	try("pivot_root", syscall.SYS_PIVOT_ROOT, path("/tmp"), path("/tmp"))
	try("ptrace", syscall.SYS_PTRACE, 0, 0, 0, 0) // PTRACE_TRACEME
	try("unshare user", syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER)
	try("unshare net", syscall.SYS_UNSHARE, syscall.CLONE_NEWNET)
	try("clone user", syscall.SYS_CLONE, syscall.CLONE_NEWUSER|uintptr(syscall.SIGCHLD), 0, 0, 0, 0)
	try("clone3", 435, 0, 0)
	try("io_uring_setup", 425, 1, path(strings.Repeat(" ", 120)))
	try("keyctl", syscall.SYS_KEYCTL, 0, 0)
	try("reboot", syscall.SYS_REBOOT, 0, 0, 0)
	try("personality", syscall.SYS_PERSONALITY, 0x40000)
	try("personality query", syscall.SYS_PERSONALITY, 0xffffffff)
	pair := make([]int32, 2)
	try("socketpair vsock", syscall.SYS_SOCKETPAIR, 40, syscall.SOCK_STREAM, 0, uintptr(unsafe.Pointer(&pair[0])))
	try("socketpair netlink", syscall.SYS_SOCKETPAIR, syscall.AF_NETLINK, syscall.SOCK_RAW, 0, uintptr(unsafe.Pointer(&pair[0])))
	try("socketpair unix", syscall.SYS_SOCKETPAIR, syscall.AF_UNIX, syscall.SOCK_STREAM, 0, uintptr(unsafe.Pointer(&pair[0])))
	try("io_setup", syscall.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&pair[0])))
	try("socket packet", syscall.SYS_SOCKET, syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	try("socket vsock", syscall.SYS_SOCKET, 40, syscall.SOCK_STREAM, 0)
	try("socket audit", syscall.SYS_SOCKET, syscall.AF_NETLINK, syscall.SOCK_RAW, 9)
	try("socket route", syscall.SYS_SOCKET, syscall.AF_NETLINK, syscall.SOCK_RAW, 0)
	try("socket inet6", syscall.SYS_SOCKET, syscall.AF_INET6, syscall.SOCK_STREAM, 0)
	try("tiocsti", syscall.SYS_IOCTL, 0, 0x5412, path("x"))
	try("kill init of the host", syscall.SYS_KILL, uintptr(os.Getppid()), 0)
	try("setuid", syscall.SYS_SETUID, 4711)
	try("chown", syscall.SYS_FCHOWNAT, atFdcwd, path("/tmp"), 4711, 4711, 0)
	_ = json.NewEncoder(os.Stdout).Encode(out)
	return 0
}

// hog takes all inotify instances that it is given, says how many, and holds them.
func hog() int {
	for n := 0; ; n++ {
		if _, err := syscall.InotifyInit(); err != nil {
			fmt.Println(n, err)
			time.Sleep(time.Minute)
			return 0
		}
	}
}

// parent starts confine and is there to be killed.
func parent(args []string) int {
	c := exec.Command(os.Args[0], args...)
	c.Stdout = os.Stdout
	_ = c.Run()
	return 0
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || effectiveCapabilities()&(1<<capSysAdmin) == 0 {
		t.Skip("SKIPPED, NOT TESTED: needs root with CAP_SYS_ADMIN, to give a sandbox a uid of its own")
	}
}

// sandbox is a spec with the host's programs, read-only, and the test binary at /probe/.
func sandbox(t *testing.T) map[string]any {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := []map[string]any{
		{"type": "bind", "source": filepath.Dir(self), "target": "/probe", "ro": true},
		{"type": "tmpfs", "target": "/tmp", "size": 1 << 20, "mode": "1777"},
		{"type": "proc", "target": "/proc"}, {"type": "dev", "target": "/dev"},
		{"type": "dir", "target": "/app"}, {"type": "file", "target": "/etc/passwd", "content": "root:x:0:0::/:/bin/sh\n"},
	}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if link, err := os.Readlink(dir); err == nil {
			root = append(root, map[string]any{"type": "symlink", "source": link, "target": dir})
		} else if _, err := os.Stat(dir); err == nil {
			root = append(root, map[string]any{"type": "bind", "source": dir, "target": dir, "ro": true})
		}
	}
	return map[string]any{"uid": sandboxUID, "gid": sandboxUID, "userns": true,
		"namespaces": []string{"mount", "pid", "net", "ipc", "uts", "cgroup"}, "hostname": "box",
		"root": root, "env": map[string]string{"PATH": "/usr/bin:/bin"}, "die_with_parent": true}
}

func specFile(t *testing.T, spec map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "spec.json")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func confined(t *testing.T, spec map[string]any, argv ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe", append([]string{"confine", specFile(t, spec), "--"}, argv...)...)
	self, _ := os.Executable()
	c.Path = self
	c.Env = []string{"SECRET=of-the-host"}
	return c
}

func run(t *testing.T, spec map[string]any, argv ...string) (stdout, stderr string, code int) {
	t.Helper()
	c := confined(t, spec, argv...)
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

func shell(t *testing.T, spec map[string]any, script string) string {
	t.Helper()
	o, e, code := run(t, spec, "sh", "-c", script)
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, o, e)
	}
	return o
}

func probePath(t *testing.T) string {
	t.Helper()
	self, _ := os.Executable()
	return "/probe/" + filepath.Base(self)
}

func TestEverythingDangerousIsRefused(t *testing.T) {
	needRoot(t)
	o, e, code := run(t, sandbox(t), probePath(t), "probe")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, e)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(o), &got); err != nil {
		t.Fatal(err)
	}
	const eperm, noFamily = "operation not permitted", "address family not supported by protocol"
	for name, want := range map[string]string{
		"mount": eperm, "umount": eperm, "fsopen": eperm, "open_tree": eperm, "mount_setattr": eperm, "pivot_root": eperm,
		"ptrace": eperm, "unshare user": eperm, "unshare net": eperm, "clone user": eperm, "clone3": "function not implemented",
		"io_uring_setup": eperm, "keyctl": eperm, "reboot": eperm, "personality": eperm, "personality query": "allowed",
		"io_setup":         eperm,
		"socketpair vsock": noFamily, "socketpair netlink": noFamily, "socketpair unix": "allowed", "socket packet": noFamily, "socket vsock": noFamily, "socket audit": noFamily, "socket route": "allowed",
		"socket inet6": "allowed", "tiocsti": eperm, "setuid": "invalid argument", "chown": "invalid argument",
	} {
		if !strings.HasPrefix(got[name], want) {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

func TestStatusInsideShowsNoPrivileges(t *testing.T) {
	needRoot(t)
	o := shell(t, sandbox(t), "cat /proc/self/status")
	for _, want := range []string{"Uid:\t0\t0\t0\t0", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
		"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(o, want) {
			t.Errorf("status lacks %q:\n%s", want, o)
		}
	}
}

func descendant(t *testing.T, pid int) int {
	t.Helper()
	for range 200 {
		if entries, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)); err == nil {
			for _, e := range entries {
				text, _ := os.ReadFile(e)
				for _, f := range strings.Fields(string(text)) {
					n, _ := strconv.Atoi(f)
					if cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n)); bytes.HasPrefix(cmd, []byte("sleep")) {
						return n
					}
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the program did not start")
	return 0
}

func TestOutsideTheProcessHasTheUidOfTheSandbox(t *testing.T) {
	needRoot(t)
	c := confined(t, sandbox(t), "sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	pid := descendant(t, c.Process.Pid)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	id := strconv.Itoa(sandboxUID)
	for _, want := range []string{"Uid:\t" + strings.Repeat(id+"\t", 3) + id, "Gid:\t" + strings.Repeat(id+"\t", 3) + id} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
}

// The kernel counts inotify instances, queued signals, message queues and more by user, in the user namespace and for its
// creator in the one above.
func TestWhatTheKernelCountsByUserIsTheSandboxsOwn(t *testing.T) {
	needRoot(t)
	c := confined(t, sandbox(t), probePath(t), "hog")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(said, "too many open files") {
		t.Fatalf("%q, %v", said, err)
	}
	fd, err := syscall.InotifyInit()
	if err != nil {
		t.Fatalf("a sandbox left none to root: %v", err)
	}
	_ = syscall.Close(fd)
	other := sandbox(t)
	other["uid"], other["gid"] = sandboxUID+1, sandboxUID+1
	if o := shell(t, other, "tail -f /etc/passwd >/dev/null & sleep 0.3; ls -l /proc/$!/fd | grep -c inotify; kill $!"); o != "1\n" {
		t.Errorf("a sandbox left none to another one: %q", o)
	}
}

func TestASandboxCanBeTheFirstToGoWhenMemoryIsOut(t *testing.T) {
	needRoot(t)
	spec := sandbox(t)
	spec["oom_score_adj"] = 700
	if o := shell(t, spec, "cat /proc/self/oom_score_adj"); o != "700\n" {
		t.Errorf("%q", o)
	}
}

func TestTheHostIsNotThere(t *testing.T) {
	needRoot(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := shell(t, sandbox(t), `
test -e `+secret+` && echo FILE; test -e /root && echo ROOT; test -e /etc/shadow && echo SHADOW
env | grep SECRET; tr '\0' '\n' < /proc/1/environ | grep SECRET; hostname
ls /proc | grep -E '^[0-9]+$' | wc -l
cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '
touch /x 2>/dev/null && echo WROTE-ROOT; touch /usr/x 2>/dev/null && echo WROTE-USR; touch /dev/x 2>/dev/null && echo WROTE-DEV
echo 1 2>/dev/null > /proc/sys/kernel/panic && echo WROTE-SYSCTL
ls /proc/self/fd | wc -l`)
	// Numbers in /proc: the shell, and the three of the pipe; descriptors: 0, 1, 2 and the one that ls reads.
	lines := strings.Fields(o)
	if lines[0] != "box" || lines[2] != "lo" || len(lines) != 4 || lines[3] != "4" {
		t.Errorf("%q", lines)
	}
	if n, _ := strconv.Atoi(lines[1]); n < 1 || n > 5 {
		t.Errorf("%d processes are visible", n)
	}
}

func TestLoopbackIsUp(t *testing.T) {
	needRoot(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	script := fmt.Sprintf("cat /proc/net/fib_trie /proc/net/if_inet6; (exec 3<>/dev/tcp/127.0.0.1/%d) 2>/dev/null && echo REACHED; exit 0", port)
	o, e, code := run(t, sandbox(t), "bash", "-c", script)
	if code != 0 || !strings.Contains(o, "127.0.0.1") || !strings.Contains(o, "00000000000000000000000000000001") || strings.Contains(o, "REACHED") {
		t.Error(code, e, o)
	}
}

func TestTmpfsIsBounded(t *testing.T) {
	needRoot(t)
	o := shell(t, sandbox(t), "dd if=/dev/zero of=/tmp/f bs=1k count=2000 2>&1 | grep -c 'No space'; stat -c %s /tmp/f")
	if f := strings.Fields(o); f[0] != "1" || f[1] != strconv.Itoa(1<<20) {
		t.Error(o)
	}
}

func TestAForkBombHitsTheLimitAndEndsWithTheSandbox(t *testing.T) {
	needRoot(t)
	s := sandbox(t)
	s["rlimits"] = map[string]int{"nproc": 20, "core": 0}
	s["uid"], s["gid"] = sandboxUID+1, sandboxUID+1
	o, e, _ := run(t, s, "sh", "-c", "(i=0; while [ $i -lt 60 ]; do sleep 30 & i=$((i+1)); done); set -- /proc/[0-9]*; echo $#")
	if n, err := strconv.Atoi(strings.TrimSpace(o)); err != nil || n < 10 || n > 21 {
		t.Errorf("%q processes with a limit of 20: %s", o, e)
	}
	time.Sleep(50 * time.Millisecond)
	pids, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, p := range pids {
		if text, _ := os.ReadFile(p); strings.Contains(string(text), fmt.Sprintf("Uid:\t%d\t", sandboxUID+1)) {
			t.Errorf("%s outlived its sandbox", p)
		}
	}
}

func TestWhenTheParentDiesTheProgramDies(t *testing.T) {
	needRoot(t)
	self, _ := os.Executable()
	for _, init := range []bool{false, true} {
		s := sandbox(t)
		s["init"] = init
		c := exec.Command(self, "parent", "confine", specFile(t, s), "--", "sh", "-c", "echo up; exec sleep 60")
		out, _ := c.StdoutPipe()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		_ = c.Process.Kill()
		// The pipe ends only when nobody is left who could write to it.
		done := make(chan struct{})
		go func() { _, _ = out.Read(make([]byte, 16)); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Errorf("init %v: the program outlived the one who started it", init)
		}
		_ = c.Wait()
	}
}

func TestTheProgramsEndIsPassedOn(t *testing.T) {
	needRoot(t)
	if _, _, code := run(t, sandbox(t), "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	s := sandbox(t)
	s["init"] = true
	if o, _, code := run(t, s, "sh", "-c", "echo $$; cat /proc/1/cmdline | tr '\\0' ' '; (sleep 0.05; echo orphan) & exit 9"); code != 9 || !strings.HasPrefix(o, "2\n") || strings.Contains(o, "spec.json") {
		t.Errorf("exit code %d, output %q", code, o)
	}
	c := confined(t, s, "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done")
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 8))
	_ = c.Process.Signal(syscall.SIGTERM)
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 5 {
		t.Errorf("SIGTERM did not reach the program: exit code %d", code)
	}
	c = confined(t, sandbox(t), "sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(descendant(t, c.Process.Pid), syscall.SIGKILL)
	_ = c.Wait()
	if ws := c.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("the signal that killed the program is lost: %v", c.ProcessState)
	}
}

func TestKeptDescriptorsArriveAndOthersDoNot(t *testing.T) {
	needRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := sandbox(t)
	s["keep_fds"] = []int{4}
	c := confined(t, s, "sh", "-c", "echo through >&4; ls /proc/self/fd | tr '\\n' ' '")
	c.ExtraFiles = []*os.File{w, w, w}
	o, err := c.Output()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 32)
	n, _ := r.Read(b)
	if string(b[:n]) != "through\n" || strings.TrimSpace(string(o)) != "0 1 2 3 4" { // 3 is what ls reads
		t.Errorf("%q %q", b[:n], o)
	}
}

func TestAMountBelowASlotAppearsInARunningSandbox(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	slot, data, low := filepath.Join(dir, "slot"), filepath.Join(dir, "data"), filepath.Join(dir, "low")
	for _, d := range []string{slot, data, low} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o700)) // as the controller's directories are
	must(os.Chown(data, sandboxUID, sandboxUID))
	must(os.WriteFile(filepath.Join(low, "f"), []byte("layer\n"), 0o644))
	must(syscall.Mount(slot, slot, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { _ = syscall.Unmount(slot, syscall.MNT_DETACH) })
	must(syscall.Mount("", slot, "", syscall.MS_SHARED, ""))
	s := sandbox(t)
	s["slots"] = []map[string]string{{"source": slot, "target": "/layers"}}
	c := confined(t, s, "sh", "-c", "echo up; while ! test -e /layers/d/go; do sleep 0.02; done; cat /layers/l/f; echo w > /layers/d/w; echo w > /layers/l/f; echo end")
	out, _ := c.StdoutPipe()
	must(c.Start())
	_, _ = out.Read(make([]byte, 8))
	must(os.Mkdir(filepath.Join(slot, "d"), 0o755))
	must(os.Mkdir(filepath.Join(slot, "l"), 0o755))
	must(syscall.Mount("overlay", filepath.Join(slot, "l"), "overlay", 0, "lowerdir="+low+":"+data))
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(slot, "l"), syscall.MNT_DETACH) })
	must(syscall.Mount(data, filepath.Join(slot, "d"), "", syscall.MS_BIND, ""))
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(slot, "d"), syscall.MNT_DETACH) })
	must(os.WriteFile(filepath.Join(data, "go"), nil, 0o644))
	var b bytes.Buffer
	_, _ = b.ReadFrom(out)
	_ = c.Wait()
	if b.String() != "layer\nend\n" {
		t.Errorf("%q", b.String())
	}
	if got, _ := os.ReadFile(filepath.Join(data, "w")); string(got) != "w\n" {
		t.Errorf("the writable mount did not take a write: %q", got)
	}
	if got, _ := os.ReadFile(filepath.Join(low, "f")); string(got) != "layer\n" {
		t.Errorf("the layer was written to: %q", got)
	}
}

func TestASecondUidInsideIsASecondUidOutside(t *testing.T) {
	needRoot(t)
	s := sandbox(t)
	ids := [][3]int{{0, sandboxUID, 1}, {1000, sandboxUID + 1, 1}}
	s["uid_map"], s["gid_map"], s["capabilities"] = ids, ids, []string{"CHOWN", "SETUID", "SETGID"}
	o := shell(t, s, "touch /tmp/f && chown 1000:1000 /tmp/f && stat -c %u /tmp/f; grep -E 'CapEff|CapBnd' /proc/self/status | cut -f2 | uniq")
	if o != "1000\n00000000000000c1\n" {
		t.Error(o)
	}
}

func TestLandlockBoundsWhatIsReadAndWritten(t *testing.T) {
	dir := t.TempDir()
	ro, rw, no := filepath.Join(dir, "ro"), filepath.Join(dir, "rw"), filepath.Join(dir, "no")
	for _, d := range []string{ro, rw, no} {
		_ = os.Mkdir(d, 0o777)
		_ = os.WriteFile(filepath.Join(d, "f"), []byte("x"), 0o666)
	}
	if _, _, e := syscall.RawSyscall(sysLandlockCreateRuleset, 0, 0, 1); e != 0 {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no Landlock")
	}
	s := map[string]any{"root": nil, "namespaces": []string{}, "landlock_required": true, "env": map[string]string{"PATH": "/usr/bin:/bin"},
		"landlock": map[string]any{"ro": []string{"/usr", "/bin", "/lib", "/lib64", "/etc/passwd", ro}, "rw": []string{rw, "/dev/null"}}}
	o, _, _ := run(t, s, "sh", "-c", fmt.Sprintf(`cat %[1]s/f && echo y > %[2]s/f && echo y > %[2]s/new && echo OK; cat %[3]s/f 2>/dev/null && echo READ; echo y 2>/dev/null > %[1]s/f && echo WROTE; exit 0`, ro, rw, no))
	if o != "xOK\n" {
		t.Error(o)
	}
}

func TestWithoutRootOneUidIsConfinedTheSame(t *testing.T) {
	needRoot(t) // to become someone who is not
	s := sandbox(t)
	delete(s, "uid")
	delete(s, "gid")
	var root []map[string]any
	for _, m := range s["root"].([]map[string]any) {
		if m["target"] != "/probe" {
			root = append(root, m)
		}
	}
	s["root"] = root
	file := specFile(t, s)
	self, _ := os.Executable()
	// Under a directory that everybody may search.
	dir, err := os.MkdirTemp("/tmp", "confine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	for name, from := range map[string]string{"exe": self, "spec.json": file} {
		b, _ := os.ReadFile(from)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(filepath.Join(dir, "exe"), "confine", filepath.Join(dir, "spec.json"), "--", "sh", "-c",
		"id -u; cat /proc/self/uid_map; grep -E 'CapEff|Seccomp:' /proc/self/status; ls /root 2>/dev/null; echo $$")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	o, err := c.CombinedOutput()
	if got := strings.Fields(string(o)); err != nil || strings.Join(got, " ") != "0 0 65534 1 CapEff: 0000000000000000 Seccomp: 2 1" {
		t.Errorf("%v: %s", err, o)
	}
}

func TestErrorsNameTheStepAndTheCure(t *testing.T) {
	needRoot(t)
	s := sandbox(t)
	if _, e, code := run(t, s, "nothing-there"); code != launch.Failed || !strings.Contains(e, "exec nothing-there") {
		t.Errorf("%d %s", code, e)
	}
	s["root"] = append(s["root"].([]map[string]any), map[string]any{"type": "bind", "source": "/no/such", "target": "/x"})
	if _, e, code := run(t, s, "true"); code != launch.Failed || !strings.Contains(e, "bind /no/such") {
		t.Errorf("%d %s", code, e)
	}
	s = sandbox(t)
	s["unknown_field"] = 1
	if _, e, code := run(t, s, "true"); code != launch.Failed || !strings.Contains(e, "unknown_field") {
		t.Errorf("%d %s", code, e)
	}
}

func TestAnImageIsMountedReadOnly(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: mkfs.erofs is not installed")
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	_ = os.MkdirAll(filepath.Join(tree, "sub"), 0o755)
	_ = os.WriteFile(filepath.Join(tree, "f"), []byte("image\n"), 0o644)
	image := filepath.Join(dir, "x.erofs")
	if out, err := exec.Command("mkfs.erofs", image, tree).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	s := sandbox(t)
	s["root"] = append(s["root"].([]map[string]any), map[string]any{"type": "erofs", "source": image, "target": "/img"},
		map[string]any{"type": "file", "target": "/img/f", "content": "over\n"}, map[string]any{"type": "tmpfs", "target": "/img/sub"})
	if o := shell(t, s, "cat /img/f; touch /img/sub/x && echo sub; touch /img/x 2>/dev/null || echo ro"); o != "over\nsub\nro\n" {
		t.Error(o)
	}
	used, _ := exec.Command("losetup", "-j", image).Output()
	if len(used) > 0 {
		t.Errorf("the loop device was not freed: %s", used)
	}
}
