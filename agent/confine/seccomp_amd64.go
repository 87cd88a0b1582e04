package confine

import "syscall"

const (
	auditArch = 0xc000003e // AUDIT_ARCH_X86_64
	x32Bit    = 0x40000000
)

var deniedHere = []uint32{
	syscall.SYS_MOUNT, syscall.SYS_UMOUNT2, syscall.SYS_PIVOT_ROOT, syscall.SYS_CHROOT,
	syscall.SYS_SWAPON, syscall.SYS_SWAPOFF, syscall.SYS_REBOOT, syscall.SYS_ACCT, syscall.SYS_QUOTACTL,
	syscall.SYS_PTRACE, 310, 311, 312, // process_vm_readv, process_vm_writev, kcmp
	syscall.SYS_KEXEC_LOAD, 320, // kexec_file_load
	321, 298, 323, // bpf, perf_event_open, userfaultfd
	syscall.SYS_ADD_KEY, syscall.SYS_REQUEST_KEY, syscall.SYS_KEYCTL,
	syscall.SYS_INIT_MODULE, syscall.SYS_DELETE_MODULE, 313, // finit_module
	174, 177, 178, 180, // create_module, get_kernel_syms, query_module, nfsservctl
	308, 303, 304, // setns, name_to_handle_at, open_by_handle_at
	syscall.SYS_IOPL, syscall.SYS_IOPERM, syscall.SYS_MODIFY_LDT,
	syscall.SYS_SETTIMEOFDAY, syscall.SYS_CLOCK_SETTIME, 305, syscall.SYS_ADJTIMEX, // clock_adjtime
	syscall.SYS_SETHOSTNAME, syscall.SYS_SETDOMAINNAME, syscall.SYS_SYSLOG, syscall.SYS_VHANGUP,
	syscall.SYS_USELIB, syscall.SYS_USTAT, syscall.SYS_SYSFS, syscall.SYS__SYSCTL, syscall.SYS_LOOKUP_DCOOKIE,
	syscall.SYS_MOVE_PAGES, syscall.SYS_MIGRATE_PAGES,
}
