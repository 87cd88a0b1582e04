package sites

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"vibed.dev/agent/unread"
)

// siteHeader is how Caddy says which site is asked: the path of its marker below the folder of markers.
const siteHeader = "X-Vibed-Site"

const (
	noSuch    = "404: this site has no such page\n"
	notMethod = "405: a site is read with GET and HEAD\n"
	notNow    = "503: too much is asked of this server at the moment, try again\n"
	retryIn   = "1" // seconds
)

// Server answers for the sites that markers lead to.
type Server struct {
	config Config
	known  known
	// find says in which folder the site is that a request means, and what is known of it.
	find func(*http.Request) (string, *facts, error)
}

// New is a server of the sites below `config.Apps`.
func New(config Config) *Server {
	s := &Server{config: config, known: known{most: kept, apps: map[string]*entry{}}}
	s.find = func(r *http.Request) (string, *facts, error) { return s.marked(r.Header.Get(siteHeader)) }
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer answerShortage(w, r)
	unread.Discard(w, r, unread.Longest)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	folder, facts, err := s.find(r)
	refuseShortage(err)
	if err != nil {
		// a switch has just taken it away; the next request finds the next one
		if !os.IsNotExist(err) {
			own.Error("a site cannot be served", "site", r.Header.Get(siteHeader), "error", err.Error())
		}
		say(w, http.StatusNotFound, noSuch)
		return
	}
	root, err := os.OpenRoot(folder)
	refuseShortage(err)
	if err != nil {
		say(w, http.StatusNotFound, noSuch)
		return
	}
	defer root.Close()
	(&visit{w, r, facts, files{root, s.config, facts.Encoded}, path.Clean("/" + r.URL.Path), ""}).answer()
}

// marked looks up which folder a marker leads to, and what is known of the site there.
func (s *Server) marked(marker string) (string, *facts, error) {
	clean := path.Clean("/" + marker)
	if marker == "" || strings.Count(clean, "/") != 2 {
		return "", nil, fmt.Errorf("%q is no marker", marker)
	}
	folder, err := os.Readlink(filepath.Join(s.config.Apps, clean+".d"))
	if err != nil {
		return "", nil, err
	}
	if facts := plain(clean); facts != nil {
		return folder, facts, nil
	}
	facts, err := s.known.of(path.Dir(clean), folder)
	return folder, facts, err
}

// visit is one request of one site.
type visit struct {
	w http.ResponseWriter
	r *http.Request
	*facts
	files files
	path  string
	// base is the prefix that the request came with.
	base string
}

func (v *visit) answer() {
	if strings.HasSuffix(v.r.URL.Path, "/") && v.path != "/" {
		v.path += "/"
	}
	if v.Base != "" {
		if v.path == "/" || v.path+"/" == v.Base {
			v.redirect(v.Base+query(v.r), http.StatusFound)
			return
		}
		if rest, ok := strings.CutPrefix(v.path, v.Base); ok {
			v.path, v.base = "/"+rest, strings.TrimSuffix(v.Base, "/")
		}
	}
	name, to := v.files.resolve(v.path)
	for i := range v.Redirects {
		rule := &v.Redirects[i]
		if !rule.Force && (name != "" || to != "") {
			continue
		}
		if groups, ok := rule.match(v.path); ok && v.follow(rule, groups) {
			return
		}
	}
	switch {
	case v.r.Method != http.MethodGet && v.r.Method != http.MethodHead:
		v.w.Header().Set("Allow", "GET, HEAD")
		say(v.w, http.StatusMethodNotAllowed, notMethod)
	case to != "":
		v.redirect(v.base+escape(to)+query(v.r), http.StatusPermanentRedirect)
	case name != "":
		v.serve(name, http.StatusOK)
	case v.Fallback != "" && v.files.is(v.Fallback):
		v.serve(v.Fallback, http.StatusOK)
	default:
		v.missing()
	}
}

// follow does what a rule says; false when that leads nowhere else.
func (v *visit) follow(rule *redirect, groups []string) bool {
	if rule.Status >= 300 && rule.Status < 400 {
		to := rule.location(groups, v.r.URL)
		if to == "" {
			return false
		}
		v.redirect(to, rule.Status)
		return true
	}
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		return false
	}
	target, _, _ := strings.Cut(rule.target(groups, false), "?")
	target = path.Clean("/" + target)
	if name := v.files.page(target); name != "" {
		v.serve(name, rule.Status)
	} else {
		v.missing()
	}
	return true
}

func (v *visit) redirect(to string, status int) {
	v.w.Header().Set("Location", to)
	say(v.w, status, "")
}

// missing answers with the nearest 404 page.
func (v *visit) missing() {
	// there is no folder deeper than that: each is looked into, and a visitor chooses how many there are
	for folder := path.Dir(v.path[:min(len(v.path), longestPath)]); ; folder = path.Dir(folder) {
		if name := path.Join(folder, "404.html"); v.files.is(name) {
			v.serve(name, http.StatusNotFound)
			return
		}
		if folder == "/" {
			break
		}
	}
	v.dress(v.w.Header(), v.path)
	say(v.w, http.StatusNotFound, noSuch)
}

func (v *visit) serve(name string, status int) {
	v.files.send(v.w, v.r, name, status, func() { v.dress(v.w.Header(), v.path) })
}

func query(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return "?" + r.URL.RawQuery
}

func say(w http.ResponseWriter, status int, text string) {
	if w.Header().Get("Content-Type") == "" && text != "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}
