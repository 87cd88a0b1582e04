package ingress

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// restartPatience bounds each step of a close with 1012: the end of the frame that is under way, a client that does
	// not read, and the client's own close frame.
	restartPatience = time.Second
	halfOpenLife    = 5 * time.Second
)

// tunnel is a connection that has been upgraded. Bytes pass unchanged; for a WebSocket both directions are followed frame
// by frame, so that the end of the app can be told to the client in the protocol's own words.
type tunnel struct {
	client    net.Conn
	app       *appConn
	websocket bool

	mu       sync.Mutex // held to write to the client, and for what follows
	toClient frames
	wanted   bool // a close with 1012 is to be sent at the next frame boundary
	sent     chan struct{}
	sentOnce sync.Once

	fromClient frames
	answered   chan struct{} // the client's close frame has passed
	over       chan struct{}
}

func (in *Ingress) tunnel(w http.ResponseWriter, r *http.Request, c *appConn, resp *http.Response) {
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		c.Close()
		panic(http.ErrAbortHandler)
	}
	t := &tunnel{
		client: client, app: c,
		websocket: strings.EqualFold(resp.Header.Get("Upgrade"), "websocket"),
		sent:      make(chan struct{}), answered: make(chan struct{}), over: make(chan struct{}),
	}
	// From here on it is a WebSocket, not an open request: the drain asks and tells about the two apart.
	in.upgraded.Add(1)
	in.open.Add(-1)
	t.mu.Lock() // a close with 1012 does not come before the head
	in.mu.Lock()
	in.tunnels[t] = struct{}{}
	in.mu.Unlock()
	defer func() {
		t.cut()
		close(t.over)
		in.mu.Lock()
		delete(in.tunnels, t)
		in.mu.Unlock()
		in.open.Add(1)
		in.upgraded.Add(-1)
	}()
	out := bufio.NewWriter(client)
	writeUpgradeHead(out, resp)
	err = out.Flush()
	t.mu.Unlock()
	if err != nil {
		return
	}
	t.run(buffered.Reader)
}

func writeUpgradeHead(w *bufio.Writer, resp *http.Response) {
	w.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	for name, values := range resp.Header {
		if name != "Connection" && hopByHop(name) && name != "Upgrade" || name == "Content-Length" {
			continue
		}
		for _, v := range values {
			writeField(w, name, v)
		}
	}
	w.WriteString("\r\n")
}

// run relays until either side is done.
func (t *tunnel) run(fromClient *bufio.Reader) {
	clientDone := make(chan struct{})
	go func() {
		defer close(clientDone)
		t.clientToApp(fromClient)
		// The app may still have something to say to a client that has only closed its own direction.
		if half, ok := t.app.Conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		t.app.SetReadDeadline(time.Now().Add(halfOpenLife))
	}()
	t.appToClient()
	select {
	case <-t.sent:
		// Closed with 1012 from here: give the client's own close frame its time.
		select {
		case <-t.answered:
		case <-clientDone:
		case <-time.After(restartPatience):
		}
	default:
	}
	t.cut()
	<-clientDone
}

func (t *tunnel) clientToApp(r *bufio.Reader) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := t.app.Write(buf[:n]); werr != nil {
				return
			}
			if t.websocket {
				if t.fromClient.follow(buf[:n]); t.fromClient.closed {
					select {
					case <-t.answered:
					default:
						close(t.answered)
					}
				}
			}
		}
		if err != nil {
			return
		}
	}
}

func (t *tunnel) appToClient() {
	buf := make([]byte, 16<<10)
	for {
		n, err := t.app.r.Read(buf)
		if n > 0 && !t.forward(buf[:n]) {
			return
		}
		if err != nil {
			return
		}
	}
}

// forward writes p to the client; false when nothing more may follow.
func (t *tunnel) forward(p []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.websocket {
		_, err := t.client.Write(p)
		return err == nil
	}
	if !t.wanted {
		if _, err := t.client.Write(p); err != nil {
			return false
		}
		t.toClient.follow(p)
		return true
	}
	if !t.toClient.atBoundary() {
		end := t.toClient.next(p)
		if _, err := t.client.Write(p[:end]); err != nil {
			return false
		}
	}
	if t.toClient.atBoundary() {
		t.sendRestart()
		return false
	}
	return true
}

// restart closes the tunnel, a WebSocket with code 1012 as soon as the frame under way is complete.
func (t *tunnel) restart() {
	if t.websocket {
		// Before the lock: a client that does not read holds it.
		t.client.SetWriteDeadline(time.Now().Add(restartPatience))
		t.mu.Lock()
		t.wanted = true
		if t.toClient.atBoundary() {
			t.sendRestart()
			// The app has nothing more to say; this ends the reader, which then waits for the client's answer.
			t.app.SetReadDeadline(time.Unix(1, 0))
		}
		t.mu.Unlock()
		select {
		case <-t.over:
			return
		case <-t.sent:
			select {
			case <-t.over:
				return
			case <-time.After(2 * restartPatience):
			}
		case <-time.After(restartPatience):
		}
	}
	t.cut()
	<-t.over
}

// sendRestart is called with the lock held.
func (t *tunnel) sendRestart() {
	t.sentOnce.Do(func() {
		if !t.toClient.closed {
			t.client.Write(restartFrame)
		}
		close(t.sent)
	})
}

func (t *tunnel) cut() {
	t.client.Close()
	t.app.Close()
}
