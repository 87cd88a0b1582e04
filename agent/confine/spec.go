package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// Spec is the confine spec of docs/reference/supervisor.md.
type Spec struct {
	UID        *int     `json:"uid"`
	GID        *int     `json:"gid"`
	UserNS     bool     `json:"userns"`
	InnerUID   int      `json:"inner_uid"`
	InnerGID   int      `json:"inner_gid"`
	UIDMap     [][3]int `json:"uid_map"`
	GIDMap     [][3]int `json:"gid_map"`
	Namespaces []string `json:"namespaces"`
	Hostname   string   `json:"hostname"`

	Root  []Mount `json:"root"`
	Slots []Slot  `json:"slots"`

	Cwd          string            `json:"cwd"`
	Env          map[string]string `json:"env"`
	Init         bool              `json:"init"`
	NoNewPrivs   *bool             `json:"no_new_privs"`
	Capabilities []string          `json:"capabilities"`
	Seccomp      string            `json:"seccomp"`
	Landlock     *Landlock         `json:"landlock"`
	// LandlockRequired makes a kernel without Landlock an error instead of a line on standard error.
	LandlockRequired bool              `json:"landlock_required"`
	Rlimits          map[string]uint64 `json:"rlimits"`
	CgroupProcs      []string          `json:"cgroup_procs"`
	KeepFDs          []int             `json:"keep_fds"`
	DieWithParent    bool              `json:"die_with_parent"`
	// OOMScoreAdj is what the kernel adds to its score when the whole machine is out of memory; nil leaves what it was.
	OOMScoreAdj *int `json:"oom_score_adj"`
}

// Mount is one entry of the root, made in the order of the list.
type Mount struct {
	Type    string `json:"type"`
	Source  string `json:"source"`
	Target  string `json:"target"`
	RO      bool   `json:"ro"`
	Exec    *bool  `json:"exec"`
	Size    int64  `json:"size"`
	Mode    string `json:"mode"`
	Content string `json:"content"`
	UID     *int   `json:"uid"`
	GID     *int   `json:"gid"`
}

// Slot is a directory, shared on the host, below which later mounts appear in a running sandbox.
type Slot struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// Landlock lists what may be read (and executed), and what may be written.
type Landlock struct {
	RO []string `json:"ro"`
	RW []string `json:"rw"`
}

func readSpec(file string) (*Spec, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var s Spec
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w (docs/reference/supervisor.md, Confine spec)", file, err)
	}
	return &s, s.check()
}

func (s *Spec) check() error {
	for _, n := range s.Namespaces {
		if _, ok := namespaceFlags[n]; !ok {
			return fmt.Errorf("namespaces: unknown %q", n)
		}
	}
	switch s.Seccomp {
	case "":
		s.Seccomp = "default"
	case "default", "none":
	default:
		return fmt.Errorf("seccomp: %q is neither default nor none", s.Seccomp)
	}
	if (s.Root != nil || len(s.Slots) > 0) && !s.has("mount") {
		return errors.New(`root and slots need the namespace "mount"`)
	}
	if s.Init && !s.has("pid") {
		return errors.New(`init needs the namespace "pid"`)
	}
	if s.Hostname != "" && !s.has("uts") {
		return errors.New(`hostname needs the namespace "uts"`)
	}
	for i, m := range s.Root {
		if !strings.HasPrefix(m.Target, "/") || path.Clean(m.Target) != m.Target {
			return fmt.Errorf("root[%d]: target %q is not a clean absolute path", i, m.Target)
		}
		switch m.Type {
		case "bind", "erofs":
			if !strings.HasPrefix(m.Source, "/") {
				return fmt.Errorf("root[%d]: source %q is not an absolute path", i, m.Source)
			}
		case "tmpfs", "proc", "dev", "dir", "file":
		case "symlink":
			if m.Source == "" {
				return fmt.Errorf("root[%d]: a symlink needs a source", i)
			}
		default:
			return fmt.Errorf("root[%d]: unknown type %q", i, m.Type)
		}
		if m.Target == "/" && (i != 0 || m.Type == "proc" || m.Type == "dev" || m.Type == "symlink" || m.Type == "file" || m.Type == "dir") {
			return fmt.Errorf("root[%d]: only a bind, tmpfs or erofs that comes first can be /", i)
		}
		if _, err := m.mode(0); err != nil {
			return fmt.Errorf("root[%d]: mode %q is not octal", i, m.Mode)
		}
	}
	for i, l := range s.Slots {
		if !strings.HasPrefix(l.Source, "/") || !strings.HasPrefix(l.Target, "/") || path.Clean(l.Target) != l.Target || l.Target == "/" {
			return fmt.Errorf("slots[%d]: %q, %q are not clean absolute paths", i, l.Source, l.Target)
		}
	}
	for name := range s.Rlimits {
		if _, ok := rlimits[name]; !ok {
			return fmt.Errorf("rlimits: unknown %q", name)
		}
	}
	for _, fd := range s.KeepFDs {
		if fd < 3 {
			return fmt.Errorf("keep_fds: %d: 0, 1 and 2 are always kept", fd)
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); e != 0 {
			return fmt.Errorf("keep_fds: %d is not open in the process that started confine", fd)
		}
	}
	if _, err := s.capabilities(); err != nil {
		return err
	}
	return nil
}

func (s *Spec) has(namespace string) bool {
	for _, n := range s.Namespaces {
		if n == namespace {
			return true
		}
	}
	return false
}

func (s *Spec) noNewPrivs() bool { return s.NoNewPrivs == nil || *s.NoNewPrivs }

func (m *Mount) mode(otherwise uint32) (uint32, error) {
	if m.Mode == "" {
		return otherwise, nil
	}
	v, err := strconv.ParseUint(m.Mode, 8, 12)
	return uint32(v), err
}

var namespaceFlags = map[string]uintptr{
	"mount": syscall.CLONE_NEWNS, "pid": syscall.CLONE_NEWPID, "net": syscall.CLONE_NEWNET,
	"ipc": syscall.CLONE_NEWIPC, "uts": syscall.CLONE_NEWUTS, "cgroup": cloneNewCgroup,
}

const cloneNewCgroup = 0x02000000

// include/uapi/asm-generic/resource.h; x86 and arm64 use the generic numbers.
var rlimits = map[string]int{
	"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "nproc": rlimitNproc, "nofile": 7, "memlock": 8, "as": 9,
	"locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}

const rlimitNproc = 6

// include/uapi/linux/capability.h
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

const (
	capSysAdmin = 21
	capMax      = 63
)

// capabilities returns the set to keep as a bit mask. "ALL" is all that there are.
func (s *Spec) capabilities() (uint64, error) {
	var set uint64
next:
	for _, c := range s.Capabilities {
		name := strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		if name == "ALL" {
			return 1<<len(capabilityNames) - 1, nil
		}
		for bit, known := range capabilityNames {
			if name == known {
				set |= 1 << bit
				continue next
			}
		}
		return 0, fmt.Errorf("capabilities: unknown %q", c)
	}
	return set, nil
}

func (s *Spec) environ() []string {
	out := make([]string, 0, len(s.Env))
	for k, v := range s.Env {
		out = append(out, k+"="+v)
	}
	return out
}
