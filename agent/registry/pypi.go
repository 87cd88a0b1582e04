package registry

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	asJSON = "application/vnd.pypi.simple.v1+json"
	asHTML = "application/vnd.pypi.simple.v1+html"
)

var (
	projectForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,200}[A-Za-z0-9])?$`)
	separators  = regexp.MustCompile(`[-_.]+`)
)

func normal(name string) string { return strings.ToLower(separators.ReplaceAllString(name, "-")) }

// simple answers for one project: the files of the indexes, as PEP 503 or PEP 691, at addresses of this gate.
func (g *Gate) simple(w http.ResponseWriter, r *http.Request, rest string) error {
	name := strings.TrimSuffix(rest, "/")
	if !projectForm.MatchString(name) {
		return refuse(http.StatusNotFound, "%q is no name of a project", name)
	}
	name = normal(name)
	found := project{Name: name}
	known := g.linked(&found)
	var refused []string
	for _, index := range g.config.PyPI {
		one, err := g.projectAt(r, index, name)
		if why, ok := err.(*refusal); ok && why.theirs && len(g.config.PyPI) > 1 {
			// Some indexes answer so where they have no such project, and clients go on to the next.
			refused = append(refused, why.text)
			continue
		}
		if err != nil {
			return err
		}
		if one == nil {
			continue
		}
		found.add(one)
		if known = true; g.config.FirstIndex {
			break
		}
	}
	if !known {
		why := refuse(http.StatusNotFound, "%s", strings.Join(append([]string{"no configured index has a project " + name}, refused...), "; "))
		why.theirs = len(refused) > 0
		return why
	}
	self := here(r)
	address := func(f distFile) string {
		return self + "/pypi/file/" + g.token(f.given()) + "/" + url.PathEscape(f.name)
	}
	w.Header().Set("Cache-Control", "max-age=600")
	w.Header().Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), asJSON) {
		w.Header().Set("Content-Type", asJSON)
		found.writeJSON(w, address)
		return nil
	}
	w.Header().Set("Content-Type", asHTML)
	if !strings.Contains(r.Header.Get("Accept"), asHTML) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	}
	found.writeHTML(w, address)
	return nil
}

// projectAt asks one index; nil when it does not have the project.
func (g *Gate) projectAt(r *http.Request, index, name string) (*project, error) {
	accept := asJSON + ", " + asHTML + ";q=0.2, text/html;q=0.1"
	header := http.Header{"Accept": {accept}}
	if agent := r.UserAgent(); agent != "" {
		header.Set("User-Agent", agent)
	}
	answer, err := g.upstream.get(r.Context(), http.MethodGet, strings.TrimSuffix(index, "/")+"/"+name+"/", header)
	if err != nil {
		return nil, err
	}
	if absent(answer.StatusCode) {
		answer.Body.Close()
		return nil, nil
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		return nil, failed(answer)
	}
	body, err := page(answer)
	if err != nil {
		return nil, err
	}
	var found *project
	if kind := answer.Header.Get("Content-Type"); strings.Contains(kind, "json") {
		found, err = fromJSON(body, answer.Request.URL)
	} else {
		found = fromHTML(body, answer.Request.URL)
	}
	if err != nil {
		return nil, refuse(http.StatusBadGateway, "the registry %s answers with a page that makes no sense: %v", answer.Request.URL.Host, err)
	}
	return found, nil
}

// pypiFile serves a distribution that a page has named, or its metadata.
func (g *Gate) pypiFile(w http.ResponseWriter, r *http.Request, rest string) error {
	token, name, _ := strings.Cut(rest, "/")
	f, ok := g.open(token)
	if !ok || name == "" || strings.Contains(name, "/") {
		return refuse(http.StatusForbidden, "no page of an index has named this file: ask for its page at /pypi/simple/ first")
	}
	if strings.HasSuffix(name, ".metadata") {
		f.URL, f.SHA256 = f.URL+".metadata", f.Metadata
	}
	if path, ok := strings.CutPrefix(f.URL, "file://"); ok {
		http.ServeFile(w, r, path)
		return nil
	}
	// Of one build nobody asks twice for a file that was right.
	return g.file(w, r, f, f.SHA256 == "" && g.npm.again(f.URL))
}

var distribution = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._]*?)-(\d[^-]*)(-.*)?\.(whl|tar\.gz|zip|tar\.bz2)$`)

// linked adds the distributions of a project in the folders that the operator's own client looks into.
func (g *Gate) linked(to *project) bool {
	known := false
	for _, folder := range g.config.FindLinks {
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, e := range entries {
			// An sdist's name may have hyphens of its own: what is before the version decides.
			stem := e.Name()
			if m := distribution.FindStringSubmatch(stem); m == nil || normal(m[1]) != to.Name {
				if at := strings.LastIndex(stem, "-"); m != nil && m[4] == "whl" || at < 0 || normal(stem[:at]) != to.Name {
					continue
				}
			}
			known = true
			to.Files = append(to.Files, newFile(fileSaid{Name: stem, URL: "file://" + filepath.Join(folder, stem)}))
		}
	}
	return known
}
