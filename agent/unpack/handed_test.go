package unpack

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
)

func TestATarballIsReadFromTheDescriptorThatComes(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(pair[0])
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Sendmsg(pair[1], []byte{0}, syscall.UnixRights(int(read.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	closeFD(pair[1])
	_ = read.Close()
	_, _ = write.WriteString("a tarball")
	_ = write.Close()
	if text, err := io.ReadAll(&handed{socket: pair[0]}); err != nil || string(text) != "a tarball" {
		t.Fatalf("%q, %v", text, err)
	}
}

func TestNoTarballThatComesIsNoEmptyOne(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(pair[0])
	closeFD(pair[1])
	if _, err := io.ReadAll(&handed{socket: pair[0]}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
}
