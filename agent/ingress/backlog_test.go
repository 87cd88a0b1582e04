package ingress

import "syscall"

func shortBacklog(fd uintptr) { syscall.Listen(int(fd), 1) }
