package registry

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"
)

// orSHA1 is npm's integrity, or what older packages have instead.
func orSHA1(integrity, shasum string) string {
	if integrity != "" {
		return integrity
	}
	if raw, err := hex.DecodeString(shasum); err == nil && len(raw) == 20 {
		return "sha1-" + base64.StdEncoding.EncodeToString(raw)
	}
	return ""
}

// goProxy is one of a GOPROXY list. After one that ends with a comma the next is asked where the first has nothing; after
// one with a bar, whatever went wrong.
type goProxy struct {
	url       string
	anyReason bool
}

// goProxies leaves out "direct", which means version control systems: a build reaches none.
func goProxies(list string) []goProxy {
	var out []goProxy
	for list != "" {
		at := strings.IndexAny(list, ",|")
		one, bar := list, false
		if at >= 0 {
			one, bar, list = list[:at], list[at] == '|', list[at+1:]
		} else {
			list = ""
		}
		if one = strings.TrimSpace(one); one == "off" {
			return out
		} else if one != "" && one != "direct" && !strings.HasPrefix(one, "file:") {
			out = append(out, goProxy{strings.TrimSuffix(one, "/"), bar})
		}
	}
	return out
}

var unchanging = regexp.MustCompile(`/@v/[^/]+\.(zip|mod|info)$`)

// goPath answers for the module proxy's protocol, and for the checksum database below sumdb/.
func (g *Gate) goPath(w http.ResponseWriter, r *http.Request, rest string) error {
	proxies := goProxies(g.config.Go)
	if name, query, ok := sumQuery(rest); ok {
		return g.sumDB(w, r, proxies, name, query)
	}
	var last error = refuse(http.StatusNotFound, "no configured module proxy has %s (a build reaches no version control system)", rest)
	for _, proxy := range proxies {
		f := given{URL: proxy.url + "/" + rest}
		var err error
		if unchanging.MatchString("/" + rest) {
			err = g.file(w, r, f, g.npm.again(f.URL))
		} else {
			err = g.plain(w, r, f.URL)
		}
		why, refused := err.(*refusal)
		if !refused {
			return err
		}
		if last = err; !absent(why.status) && !proxy.anyReason {
			return err
		}
		w.Header().Del("Content-Type")
	}
	return last
}

func sumQuery(rest string) (name, query string, ok bool) {
	rest, ok = strings.CutPrefix(rest, "sumdb/")
	if !ok {
		return "", "", false
	}
	name, query, ok = strings.Cut(rest, "/")
	return name, query, ok
}

// sumDB asks the proxies, as the go command would; where they do not stand for the database, the database itself.
func (g *Gate) sumDB(w http.ResponseWriter, r *http.Request, proxies []goProxy, name, query string) error {
	if g.config.SumDB.URL == "" || g.config.SumDB.Name != name {
		return refuse(http.StatusNotFound, "%s is not the checksum database that is configured", name)
	}
	if query == "supported" {
		return nil // that is a 200
	}
	for _, proxy := range proxies {
		err := g.plain(w, r, proxy.url+"/sumdb/"+name+"/"+query)
		if why, refused := err.(*refusal); !refused || !absent(why.status) && !proxy.anyReason {
			return err
		}
	}
	return g.plain(w, r, strings.TrimSuffix(g.config.SumDB.URL, "/")+"/"+query)
}

// plain passes a small answer on as it is.
func (g *Gate) plain(w http.ResponseWriter, r *http.Request, address string) error {
	answer, err := g.upstream.get(r.Context(), http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		if absent(answer.StatusCode) {
			return refuse(answer.StatusCode, "the registry %s has no %s", answer.Request.URL.Host, answer.Request.URL.Path)
		}
		return failed(answer)
	}
	body, err := page(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if kind := answer.Header.Get("Content-Type"); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	_, _ = w.Write(body)
	return nil
}
