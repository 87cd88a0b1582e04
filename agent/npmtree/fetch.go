package npmtree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// atOnce is how many tarballs are fetched at a time, ahead how many may be there before they are written.
	atOnce = 12
	ahead  = 64
	// patience is for one tarball, however slow the registry.
	patience = 120 * time.Second
	wordsMax = 500
)

var errAbsent = errors.New("no registry has it")

// source is the gate, by its socket.
type source struct {
	client *http.Client
	folder string       // where tarballs wait, without names
	room   atomic.Int64 // how many bytes may still come
}

func newSource(socket, folder string) *source {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: atOnce, DisableCompression: true}
	return &source{client: &http.Client{Transport: transport}, folder: folder}
}

// fetched is a tarball that is what the lock says, or why there is none.
type fetched struct {
	file *os.File
	err  error
}

// all fetches the tarballs of packages, of at most so many bytes together; the channels are theirs, in their order, nil for those that have none. Each has to be
// taken before those much further on are fetched.
func (s *source) all(ctx context.Context, packages []Package, most int64) []chan fetched {
	found := make([]chan fetched, len(packages))
	for i, p := range packages {
		if p.From != "" {
			found[i] = make(chan fetched) // taken, or given up
		}
	}
	s.room.Store(most)
	waiting := make(chan struct{}, ahead)
	fetching := make(chan struct{}, atOnce)
	go func() {
		for i, p := range packages {
			if p.From == "" {
				continue
			}
			select {
			case waiting <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-waiting }()
				fetching <- struct{}{}
				file, err := s.get(ctx, p)
				<-fetching
				select {
				case found[i] <- fetched{file, err}:
				case <-ctx.Done():
				}
			}()
		}
	}()
	return found
}

// get fetches one tarball, whole and verified.
func (s *source) get(ctx context.Context, p Package) (*os.File, error) {
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	wanted, err := promised(p.Integrity)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gate"+p.From, nil)
	if err != nil {
		return nil, err
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		words, _ := io.ReadAll(io.LimitReader(answer.Body, wordsMax))
		err := fmt.Errorf("%d: %s", answer.StatusCode, strings.TrimSpace(string(words)))
		if answer.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w (%w)", err, errAbsent)
		}
		return nil, err
	}
	file, err := os.CreateTemp(s.folder, "tarball-")
	if err != nil {
		return nil, err
	}
	if err := s.fill(file, io.TeeReader(answer.Body, wanted)); err != nil {
		_ = file.Close()
		return nil, err
	}
	if !wanted.kept() {
		_ = file.Close()
		return nil, fmt.Errorf("it is not the one that the lock names")
	}
	return file, nil
}

// fill writes content into a file that has no name from then on, and goes back to its beginning.
func (s *source) fill(file *os.File, content io.Reader) error {
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	if _, err := io.Copy(file, within{content, &s.room}); err != nil {
		return err
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// within is content that takes up room.
type within struct {
	content io.Reader
	room    *atomic.Int64
}

func (w within) Read(into []byte) (int, error) {
	n, err := w.content.Read(into)
	if w.room.Add(-int64(n)) < 0 {
		return 0, errLarge
	}
	return n, err
}
