package confine

import (
	"encoding/binary"
	"syscall"
)

// The default seccomp policy: what a web app has no use for, and what kernel exploits are made of, is refused.
// It is a list of what is denied, not of what is allowed, because apps bring their own runtimes and compilers;
// the namespaces, the empty capability sets and the uid of its own are what keeps an app in.

// Classic BPF opcodes (include/uapi/linux/bpf_common.h) and seccomp's return values.
const (
	bpfLoad   = 0x20 // BPF_LD | BPF_W | BPF_ABS
	bpfJeq    = 0x15
	bpfJge    = 0x35
	bpfJset   = 0x45
	bpfReturn = 0x06

	retKill  = 0x80000000
	retErrno = 0x00050000
	retAllow = 0x7fff0000

	offNr   = 0
	offArch = 4
)

func offArg(n int) uint32 { return uint32(16 + 8*n) } // low half, little endian

const namespaces = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
	syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | cloneNewCgroup | 0x80 // and CLONE_NEWTIME

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// filter returns the policy as an array of struct sock_filter.
func filter() []byte {
	var p []instruction
	add := func(code uint16, jt, jf uint8, k uint32) { p = append(p, instruction{code, jt, jf, k}) }
	errno := func(e syscall.Errno) uint32 { return retErrno | uint32(e) }

	add(bpfLoad, 0, 0, offArch)
	add(bpfJeq, 1, 0, auditArch)
	add(bpfReturn, 0, 0, retKill)
	add(bpfLoad, 0, 0, offNr)
	if x32Bit != 0 {
		add(bpfJge, 0, 1, x32Bit)
		add(bpfReturn, 0, 0, retKill)
	}
	for _, nr := range denied {
		add(bpfJeq, 0, 1, nr)
		add(bpfReturn, 0, 0, errno(syscall.EPERM))
	}
	// glibc and musl fall back to clone, whose flags a filter can see.
	add(bpfJeq, 0, 1, 435)
	add(bpfReturn, 0, 0, errno(syscall.ENOSYS))

	// Each of the following looks at arguments; it ends in a verdict, so the number stays loaded for the next.
	for _, nr := range []uint32{syscall.SYS_CLONE, syscall.SYS_UNSHARE} {
		add(bpfJeq, 0, 4, nr)
		add(bpfLoad, 0, 0, offArg(0))
		add(bpfJset, 0, 1, namespaces)
		add(bpfReturn, 0, 0, errno(syscall.EPERM))
		add(bpfReturn, 0, 0, retAllow)
	}
	add(bpfJeq, 0, 5, syscall.SYS_PERSONALITY)
	add(bpfLoad, 0, 0, offArg(0))
	add(bpfJeq, 1, 0, 0)
	add(bpfJeq, 0, 1, 0xffffffff) // asks only
	add(bpfReturn, 0, 0, retAllow)
	add(bpfReturn, 0, 0, errno(syscall.EPERM))
	add(bpfJeq, 0, 5, syscall.SYS_IOCTL)
	add(bpfLoad, 0, 0, offArg(1))
	add(bpfJeq, 1, 0, 0x5412) // TIOCSTI
	add(bpfJeq, 0, 1, 0x541c) // TIOCLINUX
	add(bpfReturn, 0, 0, errno(syscall.EPERM))
	add(bpfReturn, 0, 0, retAllow)
	add(bpfJeq, 0, 4, syscall.SYS_SOCKETPAIR)
	add(bpfLoad, 0, 0, offArg(0))
	add(bpfJeq, 0, 1, syscall.AF_UNIX)
	add(bpfReturn, 0, 0, retAllow)
	add(bpfReturn, 0, 0, errno(syscall.EAFNOSUPPORT))
	// Sockets: local, IPv4, IPv6, and of netlink only routing, which getifaddrs (Node, Go, glibc) reads interfaces by.
	add(bpfJeq, 0, 9, syscall.SYS_SOCKET)
	add(bpfLoad, 0, 0, offArg(0))
	add(bpfJeq, 5, 0, syscall.AF_UNIX)
	add(bpfJeq, 4, 0, syscall.AF_INET)
	add(bpfJeq, 3, 0, syscall.AF_INET6)
	add(bpfJeq, 0, 3, syscall.AF_NETLINK)
	add(bpfLoad, 0, 0, offArg(2))
	add(bpfJeq, 0, 1, syscall.NETLINK_ROUTE)
	add(bpfReturn, 0, 0, retAllow)
	add(bpfReturn, 0, 0, errno(syscall.EAFNOSUPPORT))
	add(bpfReturn, 0, 0, retAllow)

	out := make([]byte, 0, 8*len(p))
	for _, i := range p {
		out = binary.LittleEndian.AppendUint16(out, i.code)
		out = append(out, i.jt, i.jf)
		out = binary.LittleEndian.AppendUint32(out, i.k)
	}
	return out
}

// Numbers from 424 on are the same on every architecture.
var deniedEverywhere = []uint32{
	425, 426, 427, // io_uring_setup, _enter, _register
	428, 429, 430, 431, 432, 433, 442, // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
	438,           // pidfd_getfd
	440,           // process_madvise
	443,           // quotactl_fd
	447,           // memfd_secret
	448,           // process_mrelease
	457, 458, 467, // statmount, listmount, open_tree_attr
}

// Asynchronous I/O is denied for its bound, which is one for the whole machine (fs.aio-max-nr).
var denied = append(append([]uint32{syscall.SYS_IO_SETUP}, deniedEverywhere...), deniedHere...)
