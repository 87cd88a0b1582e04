package ingress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An app may answer before it has read the request's body. What it then does with the rest is its own affair: the client
// gets the answer.

const upload8MB = "POST /up HTTP/1.1\r\nHost: todo\r\nContent-Length: 8000000\r\n\r\n"

// answersEarly has an app that answers this as soon as it has read a head, and then does that with its connection.
func answersEarly(t *testing.T, answer string, then func(net.Conn)) (h *hop, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	return rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(conn, answer); err != nil {
				return // it has hung up; what it had read with the head is no request
			}
			asked.Add(1)
			then(conn)
		}
	}), asked
}

func hangUp(conn net.Conn) { conn.Close() }
func readOn(conn net.Conn) { io.CopyN(io.Discard, conn, 8_000_000) }
func goDeaf(net.Conn)      { select {} }

func TestWhoSendsBeforeItReadsIsAnsweredAllTheSame(t *testing.T) {
	for how, then := range map[string]func(net.Conn){"hangs up": hangUp, "reads on": readOn, "goes deaf": goDeaf} {
		for what, answer := range map[string]string{
			"a length":  "413 Too Much\r\nContent-Length: 10\r\n\r\nno, thanks",
			"chunks":    "413 Too Much\r\nTransfer-Encoding: chunked\r\n\r\na\r\nno, thanks\r\n0\r\n\r\n",
			"no body":   "401 Who Are You\r\nContent-Length: 0\r\n\r\n",
			"only head": "204 No Content\r\n\r\n",
		} {
			t.Run(how+", "+what, func(t *testing.T) {
				t.Parallel()
				h, _ := answersEarly(t, "HTTP/1.1 "+answer, then)
				conn := h.connect()
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := io.WriteString(conn, upload8MB+strings.Repeat("x", 8_000_000)); err != nil {
					t.Fatal("sending:", err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if fmt.Sprint(resp.StatusCode) != answer[:3] || err != nil || strings.Contains(answer, "thanks") != (string(body) == "no, thanks") {
					t.Errorf("%d %q %v", resp.StatusCode, body, err)
				}
			})
		}
	}
}

func TestAnEarlyAnswerComesWhileTheBodyIsStillBeingSent(t *testing.T) {
	h, _ := answersEarly(t, "HTTP/1.1 413 Too Much\r\nContent-Length: 10\r\n\r\nno, thanks", readOn)
	conn := h.connect()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, upload8MB+strings.Repeat("x", 1_000_000))
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatal(resp, err)
	}
	io.WriteString(conn, strings.Repeat("x", 7_000_000))
	if body, err := io.ReadAll(resp.Body); string(body) != "no, thanks" || err != nil {
		t.Errorf("%q %v", body, err)
	}
}

func TestAClientThatStopsSendingHasItsAnswerAndWhatItSentIsNoRequest(t *testing.T) {
	for how, then := range map[string]func(net.Conn){"hangs up": hangUp, "reads on": readOn} {
		t.Run(how, func(t *testing.T) {
			h, asked := answersEarly(t, "HTTP/1.1 413 Too Much\r\nContent-Length: 10\r\n\r\nno, thanks", then)
			answer := h.exchange(upload8MB + strings.Repeat("GET /smuggled HTTP/1.1\r\nHost: todo\r\n\r\n", 1000))
			if !strings.HasSuffix(answer, "\r\n\r\nno, thanks") || !strings.Contains(answer, "Connection: close") {
				t.Errorf("%q", answer)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("the app was asked %d times", n)
			}
		})
	}
}

func TestWhatFollowsABrokenBodyIsNoRequestThoughTheAnswerIsThere(t *testing.T) {
	answered := make(chan struct{}, 1)
	h, asked := answersEarly(t, "HTTP/1.1 413 Too Much\r\nContent-Length: 10\r\n\r\nno, thanks", func(net.Conn) {
		select {
		case answered <- struct{}{}:
		default:
		}
	})
	for range 20 {
		conn := h.connect()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, "POST /up HTTP/1.1\r\nHost: todo\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		<-answered
		time.Sleep(time.Millisecond) // it is read, and not passed on yet
		io.WriteString(conn, "no length\r\nGET /smuggled HTTP/1.1\r\nHost: todo\r\nConnection: close\r\n\r\n")
		io.ReadAll(conn)
		conn.Close()
	}
	if n := asked.Load(); n != 20 {
		t.Errorf("the app was asked %d times", n)
	}
}

func TestNoRequestIsLostToAnAppThatClosesIdleConnectionsAfterASecond(t *testing.T) {
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := http.ReadRequest(r); err != nil {
				time.Sleep(20 * time.Millisecond) // it has made up its mind, and is busy
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	var all sync.WaitGroup
	for n := range 40 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 3 {
				if resp, said := h.do(request("POST", "/", nil)); resp.StatusCode != http.StatusOK {
					t.Error(said)
				}
				time.Sleep(990*time.Millisecond + time.Duration(n)*500*time.Microsecond)
			}
		}()
	}
	all.Wait()
}

func TestWhatAVisitorIsToldNamesNoPath(t *testing.T) {
	h := emptyHop(t)
	for _, method := range []string{"GET", "POST"} {
		resp, said := h.do(request(method, "/", nil))
		if resp.StatusCode != http.StatusBadGateway || strings.Contains(said, "/") || !strings.Contains(said, "no such file") {
			t.Errorf("%d %s", resp.StatusCode, said)
		}
	}
	r := request("POST", "/pkg.Service/Talk", strings.NewReader("x"))
	r.Header.Set("Content-Type", "application/grpc")
	resp, err := h2hop(h).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if said, _ := io.ReadAll(resp.Body); strings.Contains(string(said), "/") || !strings.Contains(string(said), "no such file") {
		t.Errorf("%s", said)
	}
}

func TestABodyThatStopsComingIsA408AndTheAppIsLetGo(t *testing.T) {
	for name, body := range map[string]string{
		"small":  "Content-Length: 100\r\n\r\nhalf",
		"large":  "Content-Length: 8000000\r\n\r\n" + strings.Repeat("x", 3_000_000),
		"chunks": "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			let := make(chan struct{}, 1)
			h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
				if request, err := http.ReadRequest(r); err == nil {
					io.Copy(io.Discard, request.Body)
				}
				let <- struct{}{}
			})
			h.bodyIdle = 100 * time.Millisecond
			answer := h.exchange("POST /up HTTP/1.1\r\nHost: todo\r\n" + body)
			if !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "RequestTimeout") {
				t.Errorf("%q", answer)
			}
			if name != "small" { // of which the app has not heard
				<-let
			}
		})
	}
}

func TestAnAppThatThinksForLongIsNoBodyThatStopsComing(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		time.Sleep(300 * time.Millisecond)
		fmt.Fprint(w, n)
	}))
	h.bodyIdle = 100 * time.Millisecond
	for _, size := range []int{10, 100_000} {
		for range 2 { // by the same connection
			if resp, said := h.do(request("POST", "/", strings.NewReader(strings.Repeat("x", size)))); said != fmt.Sprint(size) {
				t.Error(resp.StatusCode, said)
			}
		}
	}
}

func TestARefusalIsReadByWhoSendsBeforeItReads(t *testing.T) {
	absent, full := emptyHop(t), version(t, "one")
	full.most = 0
	for code, h := range map[string]*hop{"AppUnreachable": absent, "TooManyOpenRequests": full} {
		conn := h.connect()
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(conn)
		for range 2 { // by the same connection
			if _, err := io.WriteString(conn, upload8MB+strings.Repeat("x", 8_000_000)); err != nil {
				t.Fatal(code, err)
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(code, err)
			}
			if said, err := io.ReadAll(resp.Body); !strings.Contains(string(said), code) || err != nil || resp.Close {
				t.Errorf("%s: %q %v, closes %v", code, said, err, resp.Close)
			}
		}
	}
}

func TestAnAnswerBeforeTheEndOfABodySaysSoToTheProxy(t *testing.T) {
	early, _ := answersEarly(t, "HTTP/1.1 401 Who\r\nContent-Length: 2\r\n\r\nno", readOn)
	for what, h := range map[string]*hop{"the app's": early, "a refusal": emptyHop(t)} {
		answer := h.exchange(upload8MB + "half")
		if !strings.Contains(answer, "\r\nX-Vibed-Unread: 1\r\n") || !strings.Contains(answer, "\r\nConnection: close\r\n") {
			t.Errorf("%s: %q", what, answer)
		}
	}
	if answer := early.exchange("POST / HTTP/1.1\r\nHost: todo\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"); strings.Contains(answer, "Unread") {
		t.Errorf("%q", answer)
	}
}
