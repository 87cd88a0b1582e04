package ingress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What an app sends is held in the ingress, whose memory is not the sandbox's: it must not be the app that decides how
// much.

// headless has an app that sends this as the beginning of a head, and then waits.
func headless(t *testing.T, beginning string) *hop {
	return rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+beginning)
		io.Copy(io.Discard, r)
	})
}

func TestAHeadThatIsTooLongOrHasTooManyLinesIsRefused(t *testing.T) {
	for name, beginning := range map[string]string{
		"long lines": strings.Repeat("X-A: "+strings.Repeat("a", 2000)+"\r\n", 100),
		"many lines": strings.Repeat("a:\r\n", 2000),
	} {
		resp, said := headless(t, beginning).do(request("GET", "/", nil))
		if resp.StatusCode != http.StatusBadGateway || !strings.Contains(said, "headers are too large") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, said)
		}
	}
}

func TestTheHeadOfARealAppPasses(t *testing.T) {
	head := strings.Repeat("Set-Cookie: "+strings.Repeat("c", 4000)+"\r\n", 20) + strings.Repeat("X-B: b\r\n", 200)
	body := strings.Repeat("\n", 3000)
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
		}
	})
	for range 3 {
		resp, said := h.do(request("GET", "/", nil))
		if len(resp.Header["Set-Cookie"]) != 20 || said != body {
			t.Fatal("not what the app sent")
		}
	}
	eventually(t, "the heads to be forgotten", func() bool { return h.pool.heads.Load() == 0 })
}

func TestTheHeadsOfAllOpenResponsesAreBoundedTogether(t *testing.T) {
	h := headless(t, strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 100))
	most := maxHeads / (100 << 10)
	failed := make(chan string, 2*most)
	for range most + most/4 {
		go func() {
			if resp, err := h.client.Do(request("GET", "/", nil)); err == nil {
				said, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				failed <- string(said)
			}
		}()
	}
	select {
	case said := <-failed:
		if !strings.Contains(said, "take too much memory") {
			t.Error(said)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("nothing was refused; %d bytes are held", h.pool.heads.Load())
	}
	if held := h.pool.heads.Load(); held > maxHeads+maxHeads/4 {
		t.Errorf("%d bytes are held", held)
	}
}

func TestRequestsBeyondTheBoundAreToldToComeBack(t *testing.T) {
	h := headless(t, "")
	h.most = 2
	for range 2 {
		go h.client.Do(request("GET", "/", nil))
	}
	eventually(t, "two requests", func() bool { return h.Stats().Open == 2 })
	resp, said := h.do(request("GET", "/", nil))
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(said, "TooManyOpenRequests") {
		t.Errorf("%d %s", resp.StatusCode, said)
	}
}

func TestOneVisitorLeavesHalfOfWhatAnAppMayHaveOpenToOthers(t *testing.T) {
	h := headless(t, "")
	h.most = 4
	from := func(addresses string) *http.Request {
		r := request("GET", "/", nil)
		r.Header.Set("X-Forwarded-For", addresses)
		return r
	}
	greedy, stop := context.WithCancel(context.Background())
	for range 2 {
		go h.client.Do(from("192.0.2.1").WithContext(greedy))
	}
	eventually(t, "two requests", func() bool { return h.Stats().Open == 2 })
	// what stands before the last address is what the visitor itself has sent
	resp, said := h.do(from("198.51.100.7, 192.0.2.1"))
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(said, "from your address") {
		t.Errorf("%d %s", resp.StatusCode, said)
	}
	go h.client.Do(from("192.0.2.2"))
	eventually(t, "another's request", func() bool { return h.Stats().Open == 3 })
	stop()
	eventually(t, "the first ones to be gone", func() bool { return h.Stats().Open == 1 })
	go h.client.Do(from("192.0.2.1"))
	eventually(t, "a request where there is room again", func() bool { return h.Stats().Open == 2 })
}

func TestAStatusThatIsNoneIsNoAnswer(t *testing.T) {
	h := rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 042 What\r\nContent-Length: 0\r\n\r\n")
	})
	if resp, said := h.do(request("GET", "/", nil)); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%d %s", resp.StatusCode, said)
	}
}
