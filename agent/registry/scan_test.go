package registry

import (
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"reflect"
	"testing"
)

func TestOnlyAddressesChangeInAPage(t *testing.T) {
	page := `{ "a\"b" : "\\", "list":[1,-2.5e3,true,null,{"x":[]}], "dist" : {"tarball":"https:\/\/host\/a.tgz","n":{}},"e":{},"f":"}]\"{" }`
	g, _ := New(Config{}, nil)
	got, err := g.ownTarballs([]byte(page), "https://registry.example/", "a", "http://here")
	if err != nil {
		t.Fatal(err)
	}
	var before, after map[string]any
	if json.Unmarshal([]byte(page), &before) != nil || json.Unmarshal(got, &after) != nil {
		t.Fatal(string(got))
	}
	moved := after["dist"].(map[string]any)["tarball"].(string)
	if moved == "https://host/a.tgz" {
		t.Fatal(string(got))
	}
	after["dist"].(map[string]any)["tarball"] = "https://host/a.tgz"
	if !reflect.DeepEqual(before, after) {
		t.Fatal(string(got))
	}
}

func TestWhatIsNoJSONIsRefusedAndNeverWorse(t *testing.T) {
	page := []byte(`{"versions":{"1.0.0":{"dist":{"tarball":"https://host/a.tgz","integrity":"sha512-x"}}},"files":[{"filename":"a-1.whl","url":"x","hashes":{"sha256":"y"}}],"dist":{"tarball":"t"}}`)
	g, _ := New(Config{}, nil)
	for _, text := range []string{"", "<html>", "[]", `"`, `"\`, "{", `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":[1`, `{"a" 1}`, "{1:2}"} {
		if _, err := g.ownTarballs([]byte(text), "https://host/", "a", "http://here"); err == nil {
			t.Fatal(text)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		torn := append([]byte{}, page[:random.IntN(len(page)+1)]...)
		for range random.IntN(4) {
			if len(torn) > 0 {
				torn[random.IntN(len(torn))] = `{}[]",:\ x`[random.IntN(10)]
			}
		}
		_, _ = g.ownTarballs(torn, "https://host/", "a", "http://here")
		_, _ = fromJSON(torn, mustParse("https://host/simple/a/"))
	}
}

func mustParse(address string) *url.URL {
	parsed, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return parsed
}
