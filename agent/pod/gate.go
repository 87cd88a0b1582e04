package pod

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"sync"
	"time"

	"vibed.dev/agent/supervise"
)

// reader is what follows a request on its connection.
type reader = io.Reader

const (
	// proofTime is what a stranger has from connecting to having proven who it is, the handshake included.
	proofTime = 5 * time.Second
	// proofBytes is the longest first line, with which that is done.
	proofBytes = 8 << 10
	// strangers may be connected at the same time, and so many from one address.
	strangers       = 32
	strangersOfOne  = 8
	friends         = 16
	friendsOfJob    = 128 // a builder's are what goes in and out of it, too
	failuresOfOne   = 10
	forgiveAfter    = time.Minute
	failuresKept    = 1024
	refusalsWritten = 100
)

var errTooMuch = errors.New("more is connected than may be")

// proof is the first request of a connection: `claim` with a document, `attach` with a token, or `stream` with a token and
// the socket from which the next connection is wanted; or all that is asked by it, `prefetch` with what is signed for that.
type proof struct {
	ID       json.RawMessage `json:"id"`
	Op       string          `json:"op"`
	Document string          `json:"document"`
	Token    string          `json:"token"`
	At       string          `json:"at"`
}

// gate lets nobody talk to the sandbox who has not proven to be its controller.
type gate struct {
	tls      *tls.Config
	owner    *ownership
	converse func(net.Conn, *bufio.Reader)
	streams  *streams // of a builder; nil: it has none
	ahead    *ahead   // nil: nothing is fetched before the claim
	most     int      // friends

	mu      sync.Mutex
	open    map[string]int // strangers by address
	all     int
	friends int
	failed  map[string]failures
	written int
}

// failures are those of one address since a moment.
type failures struct {
	count int
	since time.Time
}

func newGate(certificate tls.Certificate, owner *ownership, converse func(net.Conn, *bufio.Reader)) *gate {
	return &gate{
		tls: &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		},
		owner: owner, converse: converse, most: friends, open: map[string]int{}, failed: map[string]failures{},
	}
}

func (g *gate) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Printf("control: %v", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		if !g.enter(from) {
			conn.Close()
			continue
		}
		go g.meet(conn, from)
	}
}

// meet lets a stranger prove who it is, and then talk.
func (g *gate) meet(raw net.Conn, from string) {
	conn := tls.Server(raw, g.tls)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(proofTime))
	lines := bufio.NewReaderSize(conn, proofBytes)
	asked, err := g.listen(lines)
	if err == nil {
		switch asked.Op {
		case "claim":
			err = g.owner.take(asked.Document, time.Now())
		case "attach":
			err = g.owner.attach(asked.Token)
		case "stream":
			err = g.owner.attach(asked.Token)
		case "prefetch":
			var answer any
			if answer, err = g.prefetch(asked.Document); err == nil || supervise.Refused(err) {
				// whoever it is, it is a controller: only that which nobody has signed counts as a failure
				conn.Write(supervise.Reply(asked.ID, answer, err))
				g.leave(from, nil)
				return
			}
			err = supervise.Refusal("ClaimRefused", "it is refused: %v", err)
			g.owner.refuse()
		default:
			err = supervise.Refusal("NotProven", "the first request is a claim, or attaches by the token of one")
			g.owner.refuse()
		}
		if err == nil && !g.befriend() {
			err = errTooMuch
		}
		if err == nil && asked.Op == "stream" {
			if refused := g.streams.open(asked.At); refused != nil {
				// it is a friend all the same, and no failure of its proof
				conn.Write(supervise.Reply(asked.ID, struct{}{}, refused))
				g.leave(from, nil)
				g.part()
				return
			}
		}
		conn.Write(supervise.Reply(asked.ID, struct{}{}, err))
	} else {
		g.owner.refuse()
	}
	if errors.Is(err, errTooMuch) {
		g.leave(from, nil) // who has proven itself has not failed to; it may come again when there is room
		return
	}
	g.leave(from, err)
	if err != nil {
		return
	}
	defer g.part()
	conn.SetDeadline(time.Time{})
	if asked.Op == "stream" {
		g.streams.carry(conn, lines, asked.At)
		return
	}
	g.converse(conn, lines)
}

// prefetch does what a controller has signed; an error that is no refusal says that none has.
func (g *gate) prefetch(document string) (any, error) {
	wanted, err := g.owner.readPrefetch(document, time.Now())
	if err != nil {
		return nil, err
	}
	if g.ahead == nil {
		return nil, supervise.Refusal("NotSupported", "this pod fetches no layers before it is claimed")
	}
	if g.owner.taken() {
		return nil, supervise.Refusal("AlreadyClaimed", "this pod has been claimed")
	}
	return g.ahead.want(wanted)
}

func (g *gate) listen(lines *bufio.Reader) (*proof, error) {
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	asked := &proof{}
	return asked, json.Unmarshal(line, asked)
}

// enter counts a stranger in, or says that there is no room for it.
func (g *gate) enter(from string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.failed[from]
	if g.all >= strangers || g.open[from] >= strangersOfOne || known.count >= failuresOfOne && time.Since(known.since) < forgiveAfter {
		return false
	}
	g.all++
	g.open[from]++
	return true
}

// leave counts a stranger out: it has proven itself, or failed to.
func (g *gate) leave(from string, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.open[from]--; g.open[from] == 0 {
		delete(g.open, from)
	}
	if why == nil {
		delete(g.failed, from)
		return
	}
	known := g.failed[from]
	if time.Since(known.since) >= forgiveAfter {
		known = failures{since: time.Now()}
	}
	known.count++
	if len(g.failed) >= failuresKept {
		clear(g.failed)
	}
	g.failed[from] = known
	if g.written++; g.written <= refusalsWritten {
		log.Printf("control: %s is refused: %s", from, short(why.Error()))
	}
}

func (g *gate) befriend() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.friends >= g.most {
		return false
	}
	g.friends++
	return true
}

func (g *gate) part() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.friends--
}
