package unpack

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// handed reads from the descriptor that comes by a Unix socket, whose other end is the host's. It is waited for at the first read.
type handed struct {
	socket int
	file   *os.File
}

func (h *handed) Read(b []byte) (int, error) {
	if h.file == nil {
		if err := h.receive(); err != nil {
			return 0, err
		}
	}
	return h.file.Read(b)
}

func (h *handed) receive() error {
	word, rights := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
	n, m, _, _, err := syscall.Recvmsg(h.socket, word, rights, syscall.MSG_CMSG_CLOEXEC)
	for err == syscall.EINTR {
		n, m, _, _, err = syscall.Recvmsg(h.socket, word, rights, syscall.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return io.ErrUnexpectedEOF // nobody sends one any more
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:m])
	if err != nil || len(messages) != 1 {
		return errors.New("no descriptor came")
	}
	found, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(found) != 1 {
		return errors.New("no descriptor came")
	}
	h.file = os.NewFile(uintptr(found[0]), "tarball")
	return nil
}
