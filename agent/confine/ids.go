package confine

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mapIDs waits until the child has its user namespace and gives it its uids.
func (c *confinement) mapIDs(pid int) error {
	var b [1]byte
	for {
		n, err := syscall.Read(c.ask[0], b[:])
		if err == syscall.EINTR {
			continue
		}
		if n != 1 {
			return nil // it failed before; its report says where
		}
		break
	}
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	if !c.privileged {
		if err := os.WriteFile(proc+"setgroups", []byte("deny"), 0); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
	}
	if err := os.WriteFile(proc+"gid_map", mapText(c.gidMap), 0); err != nil {
		return fmt.Errorf("gid map %v: %w", c.gidMap, err)
	}
	if err := os.WriteFile(proc+"uid_map", mapText(c.uidMap), 0); err != nil {
		return fmt.Errorf("uid map %v: %w", c.uidMap, err)
	}
	_, err := syscall.Write(c.answer[1], b[:])
	return err
}

func mapText(m [][3]int) []byte {
	var b strings.Builder
	for _, r := range m {
		fmt.Fprintf(&b, "%d %d %d\n", r[0], r[1], r[2])
	}
	return []byte(b.String())
}

// outside translates an id of the sandbox to the host's, or returns -1.
func outside(m [][3]int, id int) int {
	for _, r := range m {
		if id >= r[0] && id < r[0]+r[2] {
			return r[1] + id - r[0]
		}
	}
	return -1
}

// whoami settles ids and privileges.
func (c *confinement) whoami() error {
	s := c.spec
	c.keep, _ = s.capabilities()
	c.privileged = os.Geteuid() == 0 && effectiveCapabilities()&(1<<capSysAdmin) != 0
	c.forked = s.UserNS || s.has("pid")
	c.uid, c.gid = os.Geteuid(), os.Getegid()
	if s.UID != nil {
		c.uid = *s.UID
	}
	c.gid = c.gidOrUID()
	if !c.privileged {
		if c.uid != os.Geteuid() || c.gid != os.Getegid() {
			return fmt.Errorf("uid %d, gid %d: only root can give a sandbox another uid than its own (%d, %d); leave them out",
				c.uid, c.gid, os.Geteuid(), os.Getegid())
		}
		if !s.UserNS && len(s.Namespaces) > 0 {
			return errors.New("namespaces need root, or userns: true")
		}
		if len(s.UIDMap) > 0 || len(s.GIDMap) > 0 {
			return errors.New("uid_map and gid_map need root; without it a sandbox has one uid, the caller's own")
		}
	}
	c.uidMap, c.gidMap = s.UIDMap, s.GIDMap
	if len(c.uidMap) == 0 {
		c.uidMap = [][3]int{{s.InnerUID, c.uid, 1}}
	}
	if len(c.gidMap) == 0 {
		c.gidMap = [][3]int{{s.InnerGID, c.gid, 1}}
	}
	if s.UserNS && (outside(c.uidMap, s.InnerUID) < 0 || outside(c.gidMap, s.InnerGID) < 0) {
		return fmt.Errorf("inner_uid %d and inner_gid %d must be in uid_map and gid_map", s.InnerUID, s.InnerGID)
	}
	return nil
}

func (c *confinement) gidOrUID() int {
	switch {
	case c.spec.GID != nil:
		return *c.spec.GID
	case c.spec.UID != nil && c.privileged:
		return *c.spec.UID
	}
	return os.Getegid()
}

func effectiveCapabilities() uint64 {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			return v
		}
	}
	return 0
}
