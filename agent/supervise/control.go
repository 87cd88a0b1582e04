package supervise

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"
)

const (
	maxRequestLine = 1 << 20
	// maxPending requests of one connection may be unanswered; drain and stop take their time, the others none.
	maxPending = 64
	// outbox is how many messages a client may be behind before it is cut off: events are not held for those who do not
	// read, and nobody waits for them.
	outbox       = 256
	writeTimeout = 2 * time.Second
)

// control answers who may ask: JSON lines, requests and their answers, and events for everyone.
type control struct {
	s    *sandbox
	more Ops
	// path and listener are those of DIR/ctl.sock, where there is one.
	path     string
	listener *net.UnixListener

	mu      sync.Mutex
	clients map[*client]struct{}
	pending sync.WaitGroup
}

// client is one control connection.
type client struct {
	conn   net.Conn
	out    chan []byte
	slots  chan struct{}
	asked  sync.WaitGroup // requests of this connection that are not answered yet
	gone   chan struct{}
	closed sync.Once
	wrote  chan struct{}
}

// Ops are operations that somebody adds to those of every supervisor. Each is given the request's line.
type Ops map[string]Op

// Op is one of them. What follows of the connection may be read by it where Reads is set: the next request is read when it
// has returned.
type Op struct {
	Do    func(line []byte, following io.Reader) (any, error)
	Reads bool
}

func newControl(s *sandbox) *control {
	c := &control{s: s, clients: map[*client]struct{}{}}
	s.state.announce = func(state []byte) { c.broadcast(stateEvent(state)) }
	s.events = func(event any) { c.broadcast(encode(event)) }
	return c
}

// serveControl has everybody asked who may connect to the socket at path.
func serveControl(path string, s *sandbox) (*control, error) {
	l, err := listenUnix(path, 0o600, owner{os.Geteuid(), os.Getegid()})
	if err != nil {
		return nil, err
	}
	c := newControl(s)
	c.path, c.listener = path, l
	go c.accept()
	return c, nil
}

func (c *control) accept() {
	for {
		conn, err := c.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors: those that are there go on.
			log.Printf("control: %v", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		go c.serve(conn, bufio.NewReaderSize(conn, 64<<10))
	}
}

// serve holds a conversation with a client, of which lines may have read ahead.
func (c *control) serve(conn net.Conn, lines *bufio.Reader) {
	k := &client{
		conn: conn, out: make(chan []byte, outbox), slots: make(chan struct{}, maxPending),
		gone: make(chan struct{}), wrote: make(chan struct{}),
	}
	go k.write()
	// The present state first, and no change between it and the events that follow.
	c.s.state.json(func(state []byte) {
		if state != nil {
			k.send(stateEvent(state))
		}
		c.mu.Lock()
		c.clients[k] = struct{}{}
		c.mu.Unlock()
	})
	defer func() {
		// It may only have closed its own direction, and still wait for an answer.
		k.asked.Wait()
		c.mu.Lock()
		delete(c.clients, k)
		c.mu.Unlock()
		k.close()
	}()
	for {
		line, err := readLine(lines)
		if errors.Is(err, errLineTooLong) {
			k.send(encode(reply{Error: faultf("BadRequest", "a request is at most 1 MiB")}))
			continue
		}
		if len(bytes.TrimSpace(line)) > 0 {
			c.request(k, line, lines)
		}
		if err != nil {
			return
		}
	}
}

type reply struct {
	ID    json.RawMessage `json:"id"`
	OK    any             `json:"ok,omitempty"`
	Error *fault          `json:"error,omitempty"`
}

// request is one line of a client; the op run has more fields (runRequest).
type request struct {
	ID        json.RawMessage `json:"id"`
	Op        string          `json:"op"`
	DeadlineS *float64        `json:"deadline_s"`
	CalmS     *float64        `json:"calm_s"`
	GraceS    *float64        `json:"grace_s"`
	To        string          `json:"to"`
	Socket    string          `json:"socket"`
	Order     int64           `json:"order"`
}

// request answers one line, when it is done; the next one is read meanwhile.
func (c *control) request(k *client, line []byte, following io.Reader) {
	var head request
	if err := json.Unmarshal(line, &head); err != nil {
		k.send(encode(reply{ID: head.ID, Error: faultf("BadRequest", "not a request: %v", err)}))
		return
	}
	select {
	case k.slots <- struct{}{}:
	default:
		k.send(encode(reply{ID: head.ID, Error: faultf("TooManyRequests", "%d requests are not answered yet", maxPending)}))
		return
	}
	c.pending.Add(1)
	k.asked.Add(1)
	answer := func() {
		defer c.pending.Done()
		defer k.asked.Done()
		ok, err := c.perform(&head, line, following)
		answer := reply{ID: head.ID, OK: ok}
		if err != nil {
			answer = reply{ID: head.ID, Error: asFault(err)}
		}
		<-k.slots
		k.send(encode(answer))
	}
	if c.more[head.Op].Reads {
		answer()
	} else {
		go answer()
	}
}

func (c *control) perform(asked *request, line []byte, following io.Reader) (any, error) {
	if op, ok := c.more[asked.Op]; ok {
		return op.Do(line, following)
	}
	switch asked.Op {
	case "status":
		return c.s.state.get(), nil
	case "run":
		var req runRequest
		if err := json.Unmarshal(line, &req); err != nil {
			return nil, faultf("BadRequest", "%v", err)
		}
		return c.s.run(&req)
	case "drain":
		return c.s.drain(*or(asked.DeadlineS, 60), *or(asked.CalmS, 0))
	case "hand_over":
		return c.s.handOver(asked.To, asked.Socket, asked.Order)
	case "stop":
		return struct{}{}, c.s.stop(*or(asked.GraceS, 5))
	case "requests":
		return c.s.requests(), nil
	default:
		return nil, faultf("UnknownOp", "there is no op %q", asked.Op)
	}
}

func or(v *float64, otherwise float64) *float64 {
	if v == nil {
		return &otherwise
	}
	return v
}

// requestCounts is the answer to the op requests.
type requestCounts struct {
	Open       int64    `json:"open"`
	WebSockets int64    `json:"websockets"`
	Total      int64    `json:"total"`
	LastAt     *float64 `json:"last_at"`
}

func (s *sandbox) requests() requestCounts {
	in := s.front()
	if in == nil {
		return requestCounts{}
	}
	stats := in.Stats()
	counts := requestCounts{Open: stats.Open, WebSockets: stats.WebSockets, Total: stats.Total}
	if !stats.LastAt.IsZero() {
		counts.LastAt = ptr(unixSeconds(stats.LastAt))
	}
	return counts
}

func (c *control) broadcast(message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.clients {
		k.send(message)
	}
}

// end answers what is still asked, gives the last event time to be read, and closes the socket.
func (c *control) end() {
	within(writeTimeout, c.pending.Wait)
	if c.listener != nil {
		c.listener.Close()
		os.Remove(c.path)
	}
	c.mu.Lock()
	left := make([]*client, 0, len(c.clients))
	for k := range c.clients {
		left = append(left, k)
	}
	c.mu.Unlock()
	for _, k := range left {
		k.close()
		<-k.wrote
	}
}

// send never waits: a client that is too far behind is cut off instead.
func (k *client) send(message []byte) {
	select {
	case <-k.gone:
		return
	default:
	}
	select {
	case k.out <- message:
	default:
		k.conn.Close()
	}
}

// close lets the writer write what it has, and end.
func (k *client) close() { k.closed.Do(func() { close(k.gone) }) }

func (k *client) write() {
	defer close(k.wrote)
	defer k.conn.Close()
	put := func(message []byte) bool {
		k.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := k.conn.Write(message)
		return err == nil
	}
	for {
		select {
		case message := <-k.out:
			if !put(message) {
				return
			}
		case <-k.gone:
			for {
				select {
				case message := <-k.out:
					if !put(message) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

var errLineTooLong = errors.New("line too long")

// readLine reads a line of at most 1 MiB; of a longer one it reads the rest away.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxRequestLine {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			if err != nil {
				return nil, err
			}
			return nil, errLineTooLong
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

func stateEvent(state []byte) []byte {
	return encode(map[string]any{"event": "state", "state": json.RawMessage(state)})
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		data, _ = json.Marshal(reply{Error: faultf("Internal", "%v", err)})
	}
	return append(data, '\n')
}
