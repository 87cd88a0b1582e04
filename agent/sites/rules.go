package sites

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
)

// Facts is the file in a site's folder that says what it is beyond files (vibed.drivers.site_facts writes it).
const Facts = ".vibed.json"

const (
	largestFacts = 8 << 20
	// perLetter is about what a letter of a pattern takes when it is compiled.
	perLetter = 64
	// longestPath is what rules are tried for and files looked for: each is, one after the other, and a source has no path
	// of half that length.
	longestPath = 1024
)

// pattern is paths: one that is written out, or a regular expression.
type pattern struct {
	Path    string `json:"path"`
	Pattern string `json:"pattern"`
	expr    *regexp.Regexp
}

type redirect struct {
	pattern
	// To is text, and the numbers of groups that go between.
	To     []any `json:"to"`
	Status int   `json:"status"`
	Force  bool  `json:"force"`
}

type headers struct {
	pattern
	Set   [][2]string `json:"set"`
	Unset []string    `json:"unset"`
}

type facts struct {
	// Fallback is what answers for paths that are no file, as in a single-page app; empty for none.
	Fallback string `json:"fallback"`
	// Base is a prefix, with both slashes, that the pages were built for.
	Base string `json:"base"`
	// Encoded are folders with files that are asked for by the names they have compressed.
	Encoded   []string   `json:"encoded"`
	Redirects []redirect `json:"redirects"`
	Headers   []headers  `json:"headers"`
	// weight is about how much memory it takes, in bytes.
	weight int
}

// plain is what there is to know of a site that is no more than its files, by its marker; nil for one with rules.
func plain(marker string) *facts {
	switch path.Ext(marker) {
	case ".s":
		return &facts{}
	case ".p":
		return &facts{Fallback: "/index.html"}
	}
	return nil
}

func readFacts(root *os.Root) (*facts, error) {
	file, err := root.Open(Facts)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, largestFacts))
	if err != nil {
		return nil, err
	}
	found := &facts{}
	if err := json.Unmarshal(text, found); err != nil {
		return nil, fmt.Errorf("%s: %w", Facts, err)
	}
	found.weight = leastWeight + len(text)
	for i := range found.Redirects {
		found.weight += perLetter * len(found.Redirects[i].Pattern)
		if err := found.Redirects[i].compile(); err != nil {
			return nil, err
		}
	}
	for i := range found.Headers {
		found.weight += perLetter * len(found.Headers[i].Pattern)
		if err := found.Headers[i].compile(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (p *pattern) compile() (err error) {
	if p.Pattern != "" {
		p.expr, err = regexp.Compile(p.Pattern)
	}
	return err
}

// match returns the groups of a path that matches; a slash at its end makes no difference.
func (p *pattern) match(path string) ([]string, bool) {
	if len(path) > longestPath {
		return nil, false
	}
	if p.expr != nil {
		groups := p.expr.FindStringSubmatch(path)
		if groups == nil {
			return nil, false
		}
		return groups[1:], true
	}
	return nil, path == p.Path || (len(path) > 1 && strings.TrimSuffix(path, "/") == p.Path)
}

// target puts what the groups matched between the text of a rule; `escaped` for a place in a URL.
func (r *redirect) target(groups []string, escaped bool) string {
	var out strings.Builder
	for _, part := range r.To {
		switch part := part.(type) {
		case string:
			out.WriteString(part)
		case float64:
			group := ""
			if int(part) < len(groups) {
				group = groups[int(part)]
			}
			if escaped {
				group = escape(group)
			}
			out.WriteString(group)
		}
	}
	return out.String()
}

// location is where a redirect leads; empty when that is where the request is already.
func (r *redirect) location(groups []string, asked *url.URL) string {
	to := r.target(groups, true)
	if strings.HasPrefix(to, "/") {
		// a group that begins with a slash must not make the name of another host of it
		to = "/" + strings.TrimLeft(to, "/")
	}
	place, fragment, cut := strings.Cut(to, "#")
	if cut {
		fragment = "#" + fragment
	}
	if asked.RawQuery != "" && !strings.Contains(place, "?") {
		place += "?" + asked.RawQuery
	}
	if place == asked.RequestURI() {
		return ""
	}
	return place + fragment
}

func escape(path string) string {
	return (&url.URL{Path: path}).EscapedPath()
}

func (f *facts) dress(header http.Header, path string) {
	touched := map[string]bool{}
	for i := range f.Headers {
		rule := &f.Headers[i]
		if _, ok := rule.match(path); !ok {
			continue
		}
		for _, name := range rule.Unset {
			header.Del(name)
		}
		for _, pair := range rule.Set {
			name := http.CanonicalHeaderKey(pair[0])
			// what several rules say is joined; what is there without them is theirs to replace
			if before := header.Get(name); touched[name] && before != "" && name != "Set-Cookie" {
				header.Set(name, before+", "+pair[1])
			} else if touched[name] {
				header.Add(name, pair[1])
			} else {
				header.Set(name, pair[1])
			}
			touched[name] = true
		}
	}
}
