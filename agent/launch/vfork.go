package launch

import "syscall"

// rawVfork makes a child that shares memory and stack with the caller, which sleeps until the child has gone.
//
//go:noescape
func rawVfork(trap, flags uintptr) (pid uintptr, errno syscall.Errno)
