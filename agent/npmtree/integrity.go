package npmtree

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// promise is what a text such as "sha512-… sha1-…" says of some content: one of the strongest digests in it has to fit
// (https://www.w3.org/TR/SRI/).
type promise struct {
	hash.Hash
	any []string
}

var hashes = []struct {
	name string
	make func() hash.Hash
}{{"sha512", sha512.New}, {"sha384", sha512.New384}, {"sha256", sha256.New}, {"sha1", sha1.New}}

func promised(text string) (*promise, error) {
	for _, h := range hashes {
		var found []string
		for _, one := range strings.Fields(text) {
			if value, ok := strings.CutPrefix(one, h.name+"-"); ok {
				value, _, _ = strings.Cut(value, "?")
				found = append(found, value)
			}
		}
		if len(found) > 0 {
			return &promise{h.make(), found}, nil
		}
	}
	return nil, fmt.Errorf("no digest that is known: %q", text)
}

func (p *promise) kept() bool {
	return slices.Contains(p.any, base64.StdEncoding.EncodeToString(p.Sum(nil)))
}
