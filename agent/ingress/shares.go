package ingress

import (
	"net/http"
	"strings"
	"sync"
)

// shares keeps one visitor from having all that an app may have open. Who it is says X-Forwarded-For, which the proxy
// sets itself: behind a load balancer that it does not know, or one address translation, many visitors are one, so that
// a share is large.
type shares struct {
	mu   sync.Mutex
	open map[string]int64
}

// visitor is the address that the proxy saw, empty where it names none.
func visitor(h http.Header) string {
	said := h.Get("X-Forwarded-For")
	return strings.TrimSpace(said[strings.LastIndexByte(said, ',')+1:])
}

// take counts one more, unless that is more than the most; who has taken gives back.
func (s *shares) take(who string, most int64) bool {
	if who == "" {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[who] >= most {
		return false
	}
	s.open[who]++
	return true
}

func (s *shares) giveBack(who string) {
	if who == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[who]--; s.open[who] <= 0 {
		delete(s.open, who)
	}
}
