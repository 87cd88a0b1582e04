package pod

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// The levels that can be seen from inside (vibed.sandboxes.driver.Isolation).
const (
	levelVM         = "vm"
	levelVMEmulated = "vm-emulated"
	levelKernel     = "kernel"
	levelProcess    = "process"
)

// isolation is what stands between this pod and its node, as far as it shows from inside, and what was looked at. It is
// measured before any code of an app is there.
type isolation struct {
	Level    string   `json:"level"`
	Evidence []string `json:"evidence"`
}

// kataWords are in the command line of the kernel that Kata boots for a pod, and in no node's.
var kataWords = []string{"kata-containers.target", "agent.log_vport=", "agent.debug_console", "systemd.unit=kata-"}

// measure looks at the kernel that this pod has; root is / but for tests. A hypervisor alone proves nothing, since nodes
// are virtual machines themselves: the kernel has to be one that was booted for this pod.
func measure(root string) isolation {
	read := func(file string) string {
		text, _ := os.ReadFile(filepath.Join(root, file))
		return strings.TrimSpace(string(bytes.ReplaceAll(text, []byte{0}, nil)))
	}
	release, cmdline := read("proc/sys/kernel/osrelease"), read("proc/cmdline")
	found := isolation{Level: levelProcess, Evidence: []string{"kernel " + release}}
	note := func(text string) { found.Evidence = append(found.Evidence, text) }
	messages := ""
	if root == "/" {
		messages = kernelMessages()
	} else {
		messages = read("dmesg")
	}
	if strings.Contains(strings.ToLower(release), "gvisor") || strings.Contains(messages, "Starting gVisor") {
		found.Level = levelKernel
		note("the kernel's messages begin with those of gVisor")
		return found
	}
	processor := read("proc/cpuinfo")
	guest := strings.Contains(strings.SplitN(processor, "\n\n", 2)[0], " hypervisor")
	if guest {
		note("the processor says that it is a virtual machine's")
	}
	for _, file := range []string{"sys_vendor", "product_name"} {
		if text := read("sys/class/dmi/id/" + file); text != "" {
			note(file + " " + short(text))
		}
	}
	own := ""
	for _, word := range kataWords {
		if own == "" && strings.Contains(cmdline, word) {
			own = word
		}
	}
	if own == "" {
		note("the kernel was not booted for this pod")
		return found
	}
	note("the kernel was booted for this pod: " + own)
	switch {
	case strings.Contains(processor, "TCG"):
		found.Level = levelVMEmulated
		note("its processor is emulated")
	case guest:
		found.Level = levelVM
	default:
		note("but no hypervisor shows")
	}
	return found
}

// kernelMessages is the beginning of what the kernel has said, where a pod may ask: gVisor's has its own.
func kernelMessages() string {
	const readAll = 3
	buffer := make([]byte, 4<<10)
	n, _, errno := syscall.Syscall(syscall.SYS_SYSLOG, readAll, uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
	if errno != 0 {
		return ""
	}
	return string(buffer[:n])
}
