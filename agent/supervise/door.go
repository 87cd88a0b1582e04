package supervise

import (
	"log"
	"os"
	"path/filepath"

	"vibed.dev/agent/ingress"
)

// door is where the app's traffic comes in.
type door interface {
	// needsPath tells whether a run has to name a socket.
	needsPath() bool
	// open has the run served.
	open(run *runState) (*ingress.Ingress, error)
	// shut lets nobody in any more who means the run; what is open goes on.
	shut(run *runState)
}

// socketDoor is a Unix socket of the run's own.
type socketDoor struct{ s *sandbox }

func (d socketDoor) needsPath() bool { return true }

func (d socketDoor) shut(run *runState) { os.Remove(run.Socket) }

func (d socketDoor) open(run *runState) (*ingress.Ingress, error) {
	l, err := listenUnix(run.Socket, 0o660, d.s.spec.SocketOwner)
	if err != nil {
		return nil, err
	}
	inherited, err := listenUnix(filepath.Join(d.s.dir, connectionsSocket), 0o600, owner{os.Geteuid(), os.Getegid()})
	if err != nil {
		l.Close()
		return nil, err
	}
	in := ingress.New(d.s.app, nil)
	in.Watch(d.s.beginning)
	go func() {
		if err := in.Serve(l); err != nil {
			log.Printf("ingress: %v", err)
		}
		inherited.Close()
	}()
	go in.Inherit(inherited)
	return in, nil
}
