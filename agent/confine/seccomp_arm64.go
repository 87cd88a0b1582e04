package confine

import "syscall"

const (
	auditArch = 0xc00000b7 // AUDIT_ARCH_AARCH64
	x32Bit    = 0
)

var deniedHere = []uint32{
	syscall.SYS_MOUNT, syscall.SYS_UMOUNT2, syscall.SYS_PIVOT_ROOT, syscall.SYS_CHROOT,
	syscall.SYS_SWAPON, syscall.SYS_SWAPOFF, syscall.SYS_REBOOT, syscall.SYS_ACCT, syscall.SYS_QUOTACTL,
	syscall.SYS_PTRACE, 270, 271, 272, // process_vm_readv, process_vm_writev, kcmp
	syscall.SYS_KEXEC_LOAD, 294, // kexec_file_load
	280, 241, 282, // bpf, perf_event_open, userfaultfd
	syscall.SYS_ADD_KEY, syscall.SYS_REQUEST_KEY, syscall.SYS_KEYCTL,
	syscall.SYS_INIT_MODULE, syscall.SYS_DELETE_MODULE, 273, // finit_module
	42,            // nfsservctl
	268, 264, 265, // setns, name_to_handle_at, open_by_handle_at
	syscall.SYS_SETTIMEOFDAY, syscall.SYS_CLOCK_SETTIME, 266, syscall.SYS_ADJTIMEX, // clock_adjtime
	syscall.SYS_SETHOSTNAME, syscall.SYS_SETDOMAINNAME, syscall.SYS_SYSLOG, syscall.SYS_VHANGUP,
	syscall.SYS_LOOKUP_DCOOKIE, syscall.SYS_MOVE_PAGES, syscall.SYS_MIGRATE_PAGES,
}
