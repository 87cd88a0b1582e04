package ingress

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func h2hop(h *hop) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols, MaxResponseHeaderBytes: 1 << 20,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 64 << 10},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(h.dir, "front"))
		}}}
}

// Streams of gRPC whose client does not read.
func TestGRPCStreamsThatNobodyReadsTakeLittleMemory(t *testing.T) {
	const streams = 60
	chunk := make([]byte, 64<<10)
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	client := h2hop(h)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range streams {
		resp := callGRPC(ctx, t, client)
		defer resp.Body.Close()
	}
	time.Sleep(3 * time.Second)
	if held := heap() - before; held > streams<<20 {
		t.Errorf("%d streams hold %d MiB", streams, held>>20)
	}
	cancel()
}

// The heads of gRPC answers.
func TestGRPCHeadsAreBoundedTogether(t *testing.T) {
	const streams = 400
	big := strings.Repeat("v", 100<<10)
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Big", big)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	client := h2hop(h)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	refused, held := 0, 0
	for range streams {
		resp := callGRPC(ctx, t, client)
		if resp.StatusCode != 200 {
			io.Copy(io.Discard, resp.Body)
			refused++
		} else {
			held += len(resp.Header.Get("X-Big"))
		}
		defer resp.Body.Close()
	}
	if held > maxHeads {
		t.Errorf("%d MiB of heads are held, %d refused", held>>20, refused)
	}
}

// callGRPC begins a call and returns when the head of its answer is there.
func callGRPC(ctx context.Context, t *testing.T, client *http.Client) *http.Response {
	t.Helper()
	r, _ := http.NewRequestWithContext(ctx, "POST", "http://todo/svc/M", strings.NewReader("x"))
	r.Header.Set("Content-Type", "application/grpc")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
