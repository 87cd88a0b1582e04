package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxAgentAnswer bounds what we read of an answer: inside the sandbox nobody is trusted.
const maxAgentAnswer = 1 << 20

// socketClient speaks HTTP to a Unix socket: the agent's, or a worker's admin socket.
type socketClient struct {
	http *http.Client
}

func newSocketClient(dial func(context.Context) (net.Conn, error)) *socketClient {
	return &socketClient{&http.Client{Transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// do sends one request; body may be nil, length is -1 when it is not known.
func (c *socketClient) do(ctx context.Context, method, path string, body io.Reader, length int64) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path, body)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		r.ContentLength = length
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAgentAnswer))
	return resp.StatusCode, answer, err
}

func (c *socketClient) post(ctx context.Context, path string, body any) (int, []byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	return c.do(ctx, http.MethodPost, path, bytes.NewReader(data), int64(len(data)))
}

// errBrokeOff is that of a request which got no answer.
var errBrokeOff = errors.New("the agent broke off")

// inject streams the source file, whose members lose the prefix strip.
func (c *socketClient) inject(ctx context.Context, source, strip string) error {
	f, info, err := openRegular(source)
	if err != nil {
		return faultf("InjectFailed", "the source cannot be read: %v", err)
	}
	defer f.Close()
	path := "/inject?strip=" + url.QueryEscape(strip)
	// http.Client would close the file behind our back, and take an *os.File for one that it may read twice.
	status, answer, err := c.do(ctx, http.MethodPost, path, struct{ io.Reader }{f}, info.Size())
	if err != nil {
		return fmt.Errorf("%w: %w", errBrokeOff, err)
	}
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusRequestEntityTooLarge:
		return agentFault("DiskFull", answer)
	default:
		return agentFault("InjectFailed", answer)
	}
}

// openRegular opens a file in a folder that a lesser uid may write: it could be a link to a file of root's by now, or a
// pipe that nobody writes.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// agentFault takes over what the agent says of a failure, under the code that the contract has for it.
func agentFault(code string, answer []byte) *fault {
	var said struct {
		Code    string          `json:"code"`
		Message string          `json:"message"`
		Exit    json.RawMessage `json:"exit"`
		Details map[string]any  `json:"details"`
	}
	if json.Unmarshal(answer, &said) != nil {
		said.Message = string(answer[:min(len(answer), 1000)])
	}
	if said.Code != "" {
		code = said.Code // the agent knows better what failed
	}
	f := &fault{Code: code, Message: said.Message, Details: said.Details}
	if f.Message == "" {
		f.Message = "the agent gave no reason"
	}
	if len(said.Exit) > 0 {
		if f.Details == nil {
			f.Details = map[string]any{}
		}
		f.Details["exit"] = said.Exit
	}
	return f
}

// appExit is the agent's account of how the app ended.
type appExit struct {
	Code   *int    `json:"code"`
	Signal *string `json:"signal"`
}

// status asks for the app's exit; nil while it has not ended.
func (c *socketClient) status(ctx context.Context) (*appExit, error) {
	_, answer, err := c.do(ctx, http.MethodGet, "/status", nil, 0)
	if err != nil {
		return nil, err
	}
	var said struct {
		Exit *appExit `json:"exit"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, err
	}
	return said.Exit, nil
}

var errLogRefused = errors.New("the agent does not give its log")

// logs reads the agent's stream of the app's output to its end.
func (c *socketClient) logs(ctx context.Context, emit func(stream, text string, more bool)) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sandbox/logs", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errLogRefused
	}
	// A JSON line of the longest text has six bytes for each of its bytes; a longer line comes in pieces that are no
	// JSON, and is kept as it is.
	reader := bufio.NewReaderSize(resp.Body, 8*maxText)
	for {
		line, err := reader.ReadSlice('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var entry struct {
				Stream string `json:"stream"`
				Text   string `json:"text"`
				More   bool   `json:"cont"`
			}
			if json.Unmarshal(line, &entry) == nil {
				if entry.Stream != streamErr && entry.Stream != streamBuild && entry.Stream != streamSystem {
					entry.Stream = streamOut
				}
				emit(entry.Stream, entry.Text, entry.More)
			} else {
				emit(streamOut, strings.TrimSuffix(string(line), "\n"), err == bufio.ErrBufferFull)
			}
		}
		if err != nil && err != bufio.ErrBufferFull {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// poll calls ready at once and then more and more rarely, from every millisecond to every 25, until it says yes.
func poll(ctx context.Context, ready func() bool) bool {
	for wait := time.Millisecond; ; wait = min(wait*5/4+100*time.Microsecond, 25*time.Millisecond) {
		if ready() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}
