package inside

import (
	"errors"
	"net"
	"time"
)

// registryAddress is where what runs in a builder sandbox finds the registries.
const registryAddress = "127.0.0.1:3128"

// openRegistry joins each connection to the registry address to the gate on the host, whose socket a claim mounts. It is
// the only way out of a sandbox, and only builders have it.
func openRegistry(socket string) error {
	l, err := net.Listen("tcp4", registryAddress)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(5 * time.Millisecond) // out of descriptors: wait for some to be closed
				continue
			}
			go join(c.(*net.TCPConn), socket)
		}
	}()
	return nil
}

func join(inner *net.TCPConn, socket string) {
	defer func() { _ = inner.Close() }()
	c, err := net.DialTimeout("unix", socket, 10*time.Second)
	if err != nil {
		return // no gate was mounted, or it has ended
	}
	outer := c.(*net.UnixConn)
	defer func() { _ = outer.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(outer, inner, nil)
	}()
	forward(inner, outer, nil)
	<-done
}
