package registry

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"
)

// errBroken is an answer that was begun and could not be finished.
var errBroken = errors.New("broken off")

// file serves what is at an address, from the cache when it is there. What comes from the registry is passed on while it
// comes, but for its end, which waits until the whole has the digest that was promised.
func (g *Gate) file(w http.ResponseWriter, r *http.Request, f given, fresh bool) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	digest := f.SHA256
	if digest == "" && !fresh {
		digest = g.cache.at(f.URL)
	}
	if kept := g.cache.open(digest); kept != nil {
		defer kept.Close()
		if f.Integrity == "" || matches(kept, f.Integrity) {
			w.Header().Set("ETag", `"`+digest+`"`)
			http.ServeContent(w, r, "", time.Time{}, kept)
			return nil
		}
	}
	header := http.Header{"Accept-Encoding": {"identity"}}
	part := r.Header.Get("Range")
	if part != "" {
		header.Set("Range", part)
	}
	answer, err := g.upstream.get(r.Context(), r.Method, f.URL, header)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch {
	case absent(answer.StatusCode):
		return refuse(http.StatusNotFound, "the registry %s has no %s", answer.Request.URL.Host, answer.Request.URL.Path)
	case answer.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return refuse(answer.StatusCode, "the range %s is not there", part)
	case answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent:
		return failed(answer)
	}
	for _, name := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Last-Modified"} {
		if value := answer.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	if r.Method == http.MethodHead || answer.StatusCode == http.StatusPartialContent {
		w.WriteHeader(answer.StatusCode)
		if _, err := io.Copy(w, io.LimitReader(answer.Body, maxFile)); err != nil {
			return errBroken
		}
		return nil
	}
	return g.passOn(w, answer, f)
}

func (g *Gate) passOn(w http.ResponseWriter, answer *http.Response, f given) error {
	kept := g.cache.begin()
	defer kept.drop()
	promised, wanted := integrity(f.Integrity)
	to := io.MultiWriter(kept, promised)
	var held []byte // the last piece, which nobody has yet
	buffers := [2][]byte{make([]byte, 64<<10), make([]byte, 64<<10)}
	var total int64
	for i := 0; ; i++ {
		n, err := answer.Body.Read(buffers[i%2])
		if n > 0 {
			if len(held) > 0 {
				if _, failure := w.Write(held); failure != nil {
					return errBroken
				}
			}
			held = buffers[i%2][:n]
			_, _ = to.Write(held)
			if total += int64(n); total > maxFile {
				return g.spoiled(answer, total > int64(len(held)), "is larger than a build may download")
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if errors.Is(err, context.Canceled) && !errors.Is(context.Cause(answer.Request.Context()), errSilent) {
				return errBroken
			}
			return g.spoiled(answer, total > int64(len(held)), "broke off ("+err.Error()+"); trying again may help")
		}
		if n == 0 {
			i++ // the same buffer again: the other one is held
		}
	}
	if f.SHA256 != "" && kept.digest() != f.SHA256 || wanted != "" && base64.StdEncoding.EncodeToString(promised.Sum(nil)) != wanted {
		return g.spoiled(answer, total > int64(len(held)), "is not what the registry's own page says: its digest is another")
	}
	if _, err := w.Write(held); err != nil {
		return errBroken
	}
	address := f.URL
	if f.SHA256 != "" {
		address = ""
	}
	kept.keep(address)
	return nil
}

// spoiled is a download that must not look like a whole one: when some of it has been passed on, it breaks off here too.
func (g *Gate) spoiled(answer *http.Response, begun bool, why string) error {
	text := "the download " + answer.Request.URL.Host + answer.Request.URL.Path + " " + why
	if !begun {
		return refuse(http.StatusBadGateway, "%s", text)
	}
	g.tell(event{Trouble: text})
	return errBroken
}

// integrity is the strongest digest of a text such as "sha512-…", in base64, and what computes it.
func integrity(text string) (hash.Hash, string) {
	makers := []struct {
		prefix string
		make   func() hash.Hash
	}{{"sha512-", sha512.New}, {"sha384-", sha512.New384}, {"sha256-", sha256.New}, {"sha1-", sha1.New}}
	for _, m := range makers {
		for _, one := range strings.Fields(text) {
			if value, ok := strings.CutPrefix(one, m.prefix); ok {
				value, _, _ = strings.Cut(value, "?")
				return m.make(), value
			}
		}
	}
	return sha256.New(), ""
}

// matches says whether a file has the integrity that was promised. It is read from its beginning, and left there.
func matches(f io.ReadSeeker, text string) bool {
	sum, wanted := integrity(text)
	_, err := io.Copy(sum, f)
	if _, back := f.Seek(0, io.SeekStart); err != nil || back != nil {
		return false
	}
	return wanted == "" || base64.StdEncoding.EncodeToString(sum.Sum(nil)) == wanted
}
