package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Binaries is a host of programs that the install scripts of packages fetch and no registry has.
type Binaries struct {
	Name string `json:"name"`
	// URL is where they are; empty: the operator has switched the source off.
	URL string `json:"url"`
	// Digests is what an address ends with where the source publishes the SHA-256 of a file; empty: it publishes none.
	Digests string `json:"digests"`
}

// lacking is told of a source that does not answer: packages may do without it, so it is no registry's trouble.
type lacking struct {
	Source string `json:"source"`
	Why    string `json:"why"`
}

// patience is how long a source may take to show that it is there.
const patience = 8 * time.Second

var digestLine = regexp.MustCompile(`^([0-9A-Fa-f]{64})(?:\s|$)`)

// binary answers for a source by its name. The empty path asks whether it can be reached.
func (g *Gate) binary(w http.ResponseWriter, r *http.Request, rest string) error {
	name, path, _ := strings.Cut(rest, "/")
	for _, source := range g.config.Binaries {
		if source.Name != name {
			continue
		}
		err := g.fromSource(w, r, source, path)
		var why *refusal
		if !errors.As(err, &why) || absent(why.status) || why.status < 500 && source.URL != "" && !why.theirs {
			return err
		}
		if path != "" { // who only asks does without it
			g.tell(event{Lacking: &lacking{name, why.text}})
		}
		return &refusal{status: why.status, text: why.text, told: true}
	}
	return refuse(http.StatusNotFound, "no source of programs is called %q", name)
}

func (g *Gate) fromSource(w http.ResponseWriter, r *http.Request, source Binaries, path string) error {
	if source.URL == "" {
		return refuse(http.StatusForbidden, "the operator of this vibeD has switched it off")
	}
	at := strings.TrimSuffix(source.URL, "/") + "/" + path
	if path == "" {
		return g.reaches(w, r, at)
	}
	if source.Digests == "" {
		return g.file(w, r, given{URL: at}, g.npm.again(at))
	}
	if strings.HasSuffix(path, source.Digests) {
		return g.plain(w, r, at)
	}
	digest, err := g.published(r.Context(), at+source.Digests)
	if err != nil {
		return err
	}
	return g.file(w, r, given{URL: at, SHA256: digest}, digest == "" && g.npm.again(at))
}

// published is the SHA-256 that a source says of a file, empty where it says none: what then becomes of the file is its
// client's to decide, as without a gate.
func (g *Gate) published(ctx context.Context, at string) (string, error) {
	answer, err := g.upstream.get(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		if absent(answer.StatusCode) {
			return "", nil
		}
		return "", failed(answer)
	}
	body, err := page(answer)
	if err != nil {
		return "", err
	}
	found := digestLine.FindSubmatch(body)
	if found == nil {
		return "", refuse(http.StatusBadGateway, "%s is no SHA-256", at)
	}
	return strings.ToLower(string(found[1])), nil
}

// reaches says whether a source answers at all, whatever it answers.
func (g *Gate) reaches(w http.ResponseWriter, r *http.Request, at string) error {
	ctx, cancel := context.WithTimeoutCause(r.Context(), patience, fmt.Errorf("no answer within %s", patience))
	defer cancel()
	answer, err := g.upstream.get(ctx, http.MethodHead, at, nil)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode >= 500 {
		return failed(answer)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
