package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	sysLandlockCreateRuleset = 444
	sysLandlockAddRule       = 445
	sysLandlockRestrictSelf  = 446
)

// Rights on files (include/uapi/linux/landlock.h), and the ABI that brought them.
const (
	llExecute = 1 << iota
	llWriteFile
	llReadFile
	llReadDir
	llRemoveDir
	llRemoveFile
	llMakeChar
	llMakeDir
	llMakeReg
	llMakeSock
	llMakeFifo
	llMakeBlock
	llMakeSym
	llRefer    // 2
	llTruncate // 3
	llIoctlDev // 5

	llRead  = llExecute | llReadFile | llReadDir
	llFiles = llExecute | llWriteFile | llReadFile | llTruncate | llIoctlDev
)

// handled returns the rights that a kernel of this ABI can restrict.
func handled(abi int) uint64 {
	rights := uint64(llRefer - 1)
	if abi >= 2 {
		rights |= llRefer
	}
	if abi >= 3 {
		rights |= llTruncate
	}
	if abi >= 5 {
		rights |= llIoctlDev
	}
	return rights
}

func (c *confinement) landlock() error {
	version, _, e := syscall.RawSyscall(sysLandlockCreateRuleset, 0, 0, 1)
	if e != 0 {
		if c.spec.LandlockRequired {
			return fmt.Errorf("landlock: %w (this kernel has none, or it is not in its list of security modules: boot with lsm=landlock,…)", e)
		}
		fmt.Fprintln(os.Stderr, "vibed-agent confine: this kernel has no Landlock, going on without it")
		return nil
	}
	if len(c.spec.Landlock.RO)+len(c.spec.Landlock.RW) == 0 {
		return errors.New("landlock: without a path in ro or rw the program itself could not be executed")
	}
	p, rights := c.p, handled(int(version))
	attr := &rights
	p.Pin(attr)
	p.Step("landlock")
	ruleset := p.Sys(sysLandlockCreateRuleset, unsafe.Pointer(attr), 8, 0).Out()
	add := func(paths []string, allowed uint64) {
		for _, path := range paths {
			p.Step("landlock %s", path)
			files := &pathBeneath{allowed: allowed & llFiles}
			dirs := &pathBeneath{allowed: allowed}
			p.Pin(files)
			p.Pin(dirs)
			const oPath = 0x200000
			fd := p.Sys(syscall.SYS_OPENAT, atFdcwd, path, oPath|syscall.O_CLOEXEC, 0)
			fd.Into(unsafe.Pointer(&files.parent))
			r := fd.Out()
			p.Sys(syscall.SYS_FCNTL, r, syscall.F_DUPFD_CLOEXEC, 0).Into(unsafe.Pointer(&dirs.parent))
			// Rights on directories are refused for a file: the first rule is right for both, the second adds to it.
			p.Sys(sysLandlockAddRule, ruleset, 1, unsafe.Pointer(files), 0)
			p.Sys(sysLandlockAddRule, ruleset, 1, unsafe.Pointer(dirs), 0).Allow(syscall.EINVAL)
		}
	}
	add(c.spec.Landlock.RO, rights&llRead)
	add(c.spec.Landlock.RW, rights)
	p.Step("landlock: restrict")
	p.Sys(sysLandlockRestrictSelf, ruleset, 0)
	return nil
}

// pathBeneath is struct landlock_path_beneath_attr: 12 bytes, packed.
type pathBeneath struct {
	allowed uint64
	parent  int32
}
