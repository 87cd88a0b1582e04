package registry

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
)

// maxKnown bounds what is remembered of tarballs, some 150 bytes each.
const maxKnown = 200_000

// npmKnown remembers, of one build, what the registry's pages said of tarballs, and which addresses were asked for: a
// client that asks again was not content with what it got.
type npmKnown struct {
	mu        sync.Mutex
	integrity map[string]string
	served    map[string]bool
}

func (k *npmKnown) learn(address, integrity string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.integrity == nil {
		k.integrity = map[string]string{}
	}
	if len(k.integrity) < maxKnown {
		k.integrity[address] = integrity
	}
}

func (k *npmKnown) of(address string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.integrity[address]
}

func (k *npmKnown) again(address string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.served == nil {
		k.served = map[string]bool{}
	}
	before := k.served[address]
	if len(k.served) < maxKnown {
		k.served[address] = true
	}
	return before
}

// npmPath answers for <name>, <name>/<version>, <name>/-/<file> and -/tarball/<token>/<file>.
func (g *Gate) npmPath(w http.ResponseWriter, r *http.Request, rest string) error {
	if rest, ok := strings.CutPrefix(rest, "-/tarball/"); ok {
		token, _, _ := strings.Cut(rest, "/")
		f, ok := g.open(token)
		if !ok {
			return refuse(http.StatusForbidden, "no page of the registry has named this tarball: ask for the package first")
		}
		return g.file(w, r, f, f.Integrity == "" && g.npm.again(f.URL))
	}
	name, rest := packageOf(rest)
	if name == "" || g.config.NPM == "" {
		return refuse(http.StatusNotFound, "the registry for npm packages has nothing at /npm/%s", rest)
	}
	base := strings.TrimSuffix(g.registryOf(name), "/") + "/"
	if file, ok := strings.CutPrefix(rest, "-/"); ok {
		address := base + name + "/-/" + file
		f := given{URL: address, Integrity: g.npm.of(address)}
		return g.file(w, r, f, f.Integrity == "" && g.npm.again(address))
	}
	return g.packageData(w, r, base, name, rest)
}

func (g *Gate) registryOf(name string) string {
	if scope, _, scoped := strings.Cut(name, "/"); scoped {
		if address := g.config.Scopes[scope]; address != "" {
			return address
		}
	}
	return g.config.NPM
}

// packageOf splits a path into the name of a package, unescaped, and what comes after it.
func packageOf(rest string) (name, after string) {
	first, after, _ := strings.Cut(rest, "/")
	name, err := url.PathUnescape(first)
	if err == nil && strings.HasPrefix(name, "@") && !strings.Contains(name, "/") {
		var second string
		second, after, _ = strings.Cut(after, "/")
		name += "/" + second
	}
	if err != nil || name == "" || strings.HasPrefix(name, "-") || strings.Count(name, "/") > 1 || strings.HasSuffix(name, "/") ||
		strings.Contains(name, "/") != strings.HasPrefix(name, "@") || strings.ContainsAny(name, "?#%\\ ") {
		return "", rest
	}
	return name, after
}

func (g *Gate) packageData(w http.ResponseWriter, r *http.Request, base, name, version string) error {
	address := base + strings.Replace(name, "/", "%2f", 1)
	if version != "" {
		address += "/" + version
	}
	header := http.Header{}
	for _, key := range []string{"Accept", "User-Agent"} {
		if value := r.Header.Get(key); value != "" {
			header.Set(key, value)
		}
	}
	answer, err := g.upstream.get(r.Context(), http.MethodGet, address, header)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		if absent(answer.StatusCode) {
			return refuse(http.StatusNotFound, "the registry %s has no package %s", answer.Request.URL.Host, name)
		}
		return failed(answer)
	}
	body, err := page(answer)
	if err != nil {
		return err
	}
	if body, err = g.ownTarballs(body, base, name, here(r)); err != nil {
		return refuse(http.StatusBadGateway, "the registry %s answers with a page that makes no sense: %v", answer.Request.URL.Host, err)
	}
	w.Header().Set("Content-Type", "application/json")
	if kind := answer.Header.Get("Content-Type"); strings.Contains(kind, "json") {
		w.Header().Set("Content-Type", kind)
	}
	w.Header().Set("Cache-Control", "max-age=300")
	w.Header().Set("Vary", "Accept")
	_, _ = w.Write(body)
	return nil
}

// ownTarballs rewrites the addresses of tarballs of a package, or of one version of it.
func (g *Gate) ownTarballs(body []byte, base, name, self string) ([]byte, error) {
	var edits []edit
	version := func(key []byte, value span) {
		if string(key) == "dist" {
			edits = g.ownTarball(edits, body, value, base, name, self)
		}
	}
	err := members(body, span{0, len(body)}, func(key []byte, value span) {
		if string(key) == "versions" {
			_ = members(body, value, func(_ []byte, one span) { _ = members(body, one, version) })
		}
		version(key, value)
	})
	if err != nil {
		return nil, err
	}
	return edited(body, edits), nil
}

func (g *Gate) ownTarball(edits []edit, body []byte, dist span, base, name, self string) []edit {
	var at span
	said := map[string]string{}
	_ = members(body, dist, func(key []byte, value span) {
		switch k := string(key); k {
		case "tarball", "integrity", "shasum":
			if said[k] = text(value.of(body)); k == "tarball" {
				at = value
			}
		}
	})
	to, err := url.Parse(said["tarball"])
	if err != nil || said["tarball"] == "" {
		return edits
	}
	file, promised := path.Base(to.Path), orSHA1(said["integrity"], said["shasum"])
	// Where the path is the usual one it stays, so that what the client writes down is the same for every build.
	address := self + "/npm/" + name + "/-/" + file
	if usual := base + name + "/-/" + file; sameAddress(to, usual) {
		g.npm.learn(usual, promised)
	} else {
		address = self + "/npm/-/tarball/" + g.token(given{URL: said["tarball"], Integrity: promised}) + "/" + url.PathEscape(file)
	}
	return append(edits, edit{at, address})
}

// sameAddress tells whether an address is the usual one, however it is escaped and whichever scheme it has.
func sameAddress(to *url.URL, usual string) bool {
	wanted, err := url.Parse(usual)
	return err == nil && strings.EqualFold(wanted.Host, to.Host) && wanted.Path == to.Path && to.RawQuery == ""
}
