package ingress

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// watched is a hop whose app answers with the status that the header Answer asks for; "none" is a connection closed.
func watched(t *testing.T) (h *hop, told func() []string) {
	t.Helper()
	h = rawHop(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			asked, err := http.ReadRequest(r)
			if err != nil || asked.Header.Get("Answer") == "none" {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 %s Said\r\nContent-Length: 0\r\n\r\n", asked.Header.Get("Answer"))
		}
	})
	var mu sync.Mutex
	var heard []string
	h.Watch(func(answer string, failed bool) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprint(answer, " ", failed))
	})
	return h, func() []string { mu.Lock(); defer mu.Unlock(); return heard }
}

func (h *hop) asked(what ...string) {
	h.t.Helper()
	for _, one := range what {
		path, status, _ := strings.Cut(one, " ")
		r := request("GET", path, nil)
		r.Header.Set("Answer", status)
		h.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, _ := h.do(r)
		if wanted, err := strconv.Atoi(status); err == nil && resp.StatusCode != wanted {
			h.t.Fatalf("%s was answered %d", one, resp.StatusCode)
		}
	}
}

func TestAnAppThatFailsFromItsFirstAnswerOnIsToldOf(t *testing.T) {
	for name, c := range map[string]struct{ asked, told []string }{
		"once, however often":           {[]string{"/ 500", "/ 500", "/other 503"}, []string{"GET / was answered 500 true"}},
		"until it succeeds":             {[]string{"/a 503", "/a 503", "/a 200", "/a 500"}, []string{"GET /a was answered 503 true", "GET /a was answered 200 false"}},
		"or redirects":                  {[]string{"/ 500", "/ 302"}, []string{"GET / was answered 500 true", "GET / was answered 302 false"}},
		"not when it worked before":     {[]string{"/ 200", "/ 500"}, nil},
		"a redirection is no success":   {[]string{"/ 302", "/login 500"}, []string{"GET /login was answered 500 true"}},
		"nor is what is not there":      {[]string{"/robots.txt 404", "/ 500", "/favicon.ico 404"}, []string{"GET / was answered 500 true"}},
		"another address is another":    {[]string{"/ 500", "/style.css 200", "/?resource=style.css 200"}, []string{"GET / was answered 500 true"}},
		"the query is not told":         {[]string{"/?token=secret 500", "/ 200"}, []string{"GET / was answered 500 true", "GET / was answered 200 false"}},
		"the same query is the same":    {[]string{"/?a=1 500", "/?a=1 200"}, []string{"GET / was answered 500 true", "GET / was answered 200 false"}},
		"no answer is one":              {[]string{"/ none"}, []string{"GET / was answered 502 true"}},
		"nothing that moves a terminal": {[]string{"/%1b%5b2J%0a 500"}, []string{"GET /%1b%5b2J%0a was answered 500 true"}},
	} {
		t.Run(name, func(t *testing.T) {
			h, told := watched(t)
			h.asked(c.asked...)
			if !slices.Equal(told(), c.told) {
				t.Errorf("told %q", told())
			}
		})
	}
}

func TestALongPathIsNotToldWhole(t *testing.T) {
	h, told := watched(t)
	h.asked("/" + strings.Repeat("x", 9000) + " 500")
	if len(told()) != 1 || len(told()[0]) > 300 {
		t.Errorf("told %q", told())
	}
}

func TestWhatAnHeirAnswersIsNotTheApps(t *testing.T) {
	before, told := watched(t)
	after, toldAfter := watched(t)
	takes(after)
	before.LetHave(after.heir())
	before.asked("/ 500")
	if len(told()) != 0 || !slices.Equal(toldAfter(), []string{"GET / was answered 500 true"}) {
		t.Errorf("told %q and %q", told(), toldAfter())
	}
}
