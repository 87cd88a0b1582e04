package ingress

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// upgrade opens a WebSocket through h, without the handshake's key, which no hop looks at.
func (h *hop) upgrade(protocol string) (net.Conn, *bufio.Reader) {
	h.t.Helper()
	conn := h.connect()
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: todo\r\nConnection: keep-alive, Upgrade\r\nUpgrade: "+protocol+"\r\nSec-WebSocket-Key: k\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != protocol || resp.Header.Get("Sec-WebSocket-Accept") != "a" {
		h.t.Fatalf("%v %v", resp, err)
	}
	return conn, r
}

// upgradeApp accepts every upgrade and then gives the connection to talk.
func upgradeApp(t *testing.T, talk func(conn net.Conn, r *bufio.Reader)) *hop {
	return rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+req.Header.Get("Upgrade")+"\r\nSec-WebSocket-Accept: a\r\n\r\n")
		talk(conn, r)
	})
}

func frame(opcode byte, payload string) []byte {
	head := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		head = append(head, byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	return append(head, payload...)
}

func readFrame(t *testing.T, r *bufio.Reader) (opcode byte, payload string) {
	t.Helper()
	var f frames
	var raw []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatalf("in a frame, after %d bytes: %v", len(raw), err)
		}
		raw = append(raw, b)
		f.follow(raw[len(raw)-1:])
		if f.atBoundary() {
			break
		}
	}
	skip := 2
	switch raw[1] & 0x7f {
	case 126:
		skip = 4
	case 127:
		skip = 10
	}
	return raw[0] & 0x0f, string(raw[skip:])
}

func TestWebSocketsPassAndAreCountedApart(t *testing.T) {
	h := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(conn, r) })
	conn, r := h.upgrade("websocket")
	for _, size := range []int{0, 5, 125, 126, 70000} {
		sent := frame(1, strings.Repeat("x", size))
		go conn.Write(sent)
		if _, payload := readFrame(t, r); len(payload) != size {
			t.Errorf("%d bytes of %d", len(payload), size)
		}
	}
	if s := h.Stats(); s.Open != 0 || s.WebSockets != 1 || s.Total != 1 {
		t.Errorf("%+v", s)
	}
	conn.Close()
	eventually(t, "end of the WebSocket", func() bool { return h.Stats().WebSockets == 0 })
}

func TestAWebSocketIsClosedWith1012BetweenTwoFrames(t *testing.T) {
	appSaw := make(chan string, 1)
	h := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) {
		// It sends without a pause, in pieces that do not fit the frames.
		go func() {
			message := append(frame(1, strings.Repeat("m", 70000)), frame(2, "short")...)
			for {
				for part := message; len(part) > 0; {
					n := min(len(part), 4093)
					if _, err := conn.Write(part[:n]); err != nil {
						return
					}
					part = part[n:]
				}
			}
		}()
		data, _ := io.ReadAll(r)
		appSaw <- string(data)
	})
	conn, r := h.upgrade("websocket")
	drained := make(chan [2]int, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		open, closed := h.Drain(ctx, 0)
		drained <- [2]int{open, closed}
	}()
	for {
		opcode, payload := readFrame(t, r)
		if opcode == 8 {
			if code := binary.BigEndian.Uint16([]byte(payload)); code != 1012 {
				t.Errorf("close code %d", code)
			}
			break
		}
		if len(payload) != 70000 && payload != "short" {
			t.Fatalf("a frame of %d bytes", len(payload))
		}
	}
	answer := []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4}
	conn.Write(answer)
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the close: %v", err)
	}
	if got := <-drained; got != [2]int{0, 1} {
		t.Errorf("drain: %v", got)
	}
	if saw := <-appSaw; saw != string(answer) {
		t.Errorf("the app saw %q", saw)
	}
}

func TestAnIdleWebSocketIsClosedWith1012(t *testing.T) {
	h := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	conn, r := h.upgrade("websocket")
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		h.Drain(ctx, 0)
	}()
	if opcode, payload := readFrame(t, r); opcode != 8 || payload[:2] != "\x03\xf4" {
		t.Errorf("%d %q", opcode, payload)
	}
	conn.Close()
}

func TestADrainIsNotHeldUpByAWebSocketThatIsStuck(t *testing.T) {
	h := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) {
		conn.Write(frame(1, strings.Repeat("x", 1000))[:500]) // the rest never comes
		io.Copy(io.Discard, r)
	})
	h.upgrade("websocket")
	flooded := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) { // and here the client never reads
		for {
			if _, err := conn.Write(frame(2, strings.Repeat("x", 60000))); err != nil {
				return
			}
		}
	})
	flooded.upgrade("websocket")
	time.Sleep(50 * time.Millisecond)
	for _, h := range []*hop{h, flooded} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		begun := time.Now()
		if _, closed := h.Drain(ctx, 0); closed != 1 || time.Since(begun) > 6*time.Second {
			t.Errorf("%d closed after %v", closed, time.Since(begun))
		}
	}
}

func TestOtherUpgradesPassWithoutFrames(t *testing.T) {
	h := upgradeApp(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(conn, r) })
	conn, r := h.upgrade("something")
	io.WriteString(conn, "\xff\xff\xff any bytes")
	conn.(*net.UnixConn).CloseWrite()
	if data, _ := io.ReadAll(r); string(data) != "\xff\xff\xff any bytes" {
		t.Errorf("%q", data)
	}
}

func TestADrainWaitsForWhatIsOpenAndClosesWhatIsIdle(t *testing.T) {
	release := make(chan struct{})
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
		io.WriteString(w, "done")
	}))
	idle := h.connect()
	defer idle.Close()
	io.WriteString(idle, "GET / HTTP/1.1\r\nHost: todo\r\n\r\n")
	reader := bufio.NewReader(idle)
	if resp, err := http.ReadResponse(reader, nil); err != nil || resp.Close {
		t.Fatalf("%v %v", resp, err)
	} else {
		io.Copy(io.Discard, resp.Body)
	}
	slow := make(chan string, 1)
	go func() { _, body := h.do(request("GET", "/wait", nil)); slow <- body }()
	eventually(t, "request", func() bool { return h.Stats().Open == 1 })
	drained := make(chan int, 1)
	go func() { open, _ := h.Drain(context.Background(), 0); drained <- open }()
	time.Sleep(50 * time.Millisecond)
	resp, body := h.do(request("GET", "/late", nil))
	if body != "done" || !resp.Close {
		t.Errorf("a late request got %q, close %v", body, resp.Close)
	}
	select {
	case <-drained:
		t.Fatal("the drain did not wait")
	default:
	}
	close(release)
	if body := <-slow; body != "done" {
		t.Errorf("%q", body)
	}
	if open := <-drained; open != 0 {
		t.Errorf("%d open", open)
	}
	idle.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
}

func TestFramesAreFollowedWhereverTheBytesAreCut(t *testing.T) {
	var stream []byte
	boundaries := map[int]bool{0: true}
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536} {
		stream = append(stream, frame(2, strings.Repeat("p", size))...)
		boundaries[len(stream)] = true
	}
	masked := append([]byte{0x81, 0xfe, 0x01, 0x00, 1, 2, 3, 4}, make([]byte, 256)...)
	stream = append(stream, masked...)
	boundaries[len(stream)] = true
	for _, step := range []int{1, 2, 3, 7, 1000, len(stream)} {
		var f frames
		for at := 0; at < len(stream); at += step {
			end := min(at+step, len(stream))
			f.follow(stream[at:end])
			if f.atBoundary() != boundaries[end] {
				t.Fatalf("step %d, byte %d: boundary %v", step, end, f.atBoundary())
			}
		}
	}
}
