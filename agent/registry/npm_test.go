package registry

import (
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func sri(text string) string {
	sum := sha512.Sum512([]byte(text))
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// packument is a package's page with one tarball a version.
func packument(name string, dists map[string]map[string]any) string {
	versions := map[string]any{}
	for version, dist := range dists {
		versions[version] = map[string]any{"name": name, "version": version, "dist": dist, "dependencies": map[string]string{"a": "^1"}}
	}
	raw, _ := json.Marshal(map[string]any{"name": name, "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": versions, "time": map[string]string{"x": "y"}})
	return string(raw)
}

// tarballs asks for a package; the addresses of its tarballs by their versions.
func (o *opened) tarballs(path string) map[string]string {
	o.t.Helper()
	status, body, _ := o.get(path, "Accept", "application/vnd.npm.install-v1+json")
	var said struct {
		Name     string
		Versions map[string]struct {
			Dependencies map[string]string
			Dist         struct{ Tarball, Integrity string }
		}
	}
	if err := json.Unmarshal([]byte(body), &said); status != 200 || err != nil {
		o.t.Fatal(status, err, body)
	}
	found := map[string]string{}
	for version, one := range said.Versions {
		if one.Dependencies["a"] != "^1" {
			o.t.Fatal("what we do not know is lost: ", body)
		}
		found[version] = one.Dist.Tarball
	}
	return found
}

func TestTarballsOfAPackageLeadToTheGate(t *testing.T) {
	r, cdn := fake(t), fake(t)
	r.serves("/npm/left", "application/vnd.npm.install-v1+json", packument("left", map[string]map[string]any{
		"1.0.0": {"tarball": r.URL + "/npm/left/-/left-1.0.0.tgz", "integrity": sri("one")},
		"2.0.0": {"tarball": cdn.URL + "/dl/left.tgz?sig=1", "integrity": sri("two")}}))
	r.serves("/npm/left/-/left-1.0.0.tgz", "", "one")
	cdn.serves("/dl/left.tgz", "", "two")
	// The operator's own settings name the second host, which is a private one here.
	o := open(t, Config{NPM: r.URL + "/npm", Scopes: map[string]string{"@cdn": cdn.URL}, Cache: t.TempDir()})
	found := o.tarballs("/npm/left")
	if found["1.0.0"] != o.URL+"/npm/left/-/left-1.0.0.tgz" || !strings.HasPrefix(found["2.0.0"], o.URL+"/npm/-/tarball/") {
		t.Fatal(found)
	}
	for range 2 {
		for version, wanted := range map[string]string{"1.0.0": "one", "2.0.0": "two"} {
			if status, body, _ := o.get(found[version]); status != 200 || body != wanted {
				t.Fatal(version, status, body)
			}
		}
	}
	if len(cdn.paths()) != 1 || len(r.paths()) != 2 {
		t.Fatal("each is downloaded once", cdn.paths(), r.paths())
	}
	if accept := r.asked[0].Header.Get("Accept"); accept != "application/vnd.npm.install-v1+json" {
		t.Fatal("the client's own Accept decides how much the registry tells:", accept)
	}
}

func TestScopesHaveRegistriesAndCredentialsOfTheirOwn(t *testing.T) {
	usual, acme := fake(t), fake(t)
	acme.serves("/api/npm/@acme%2fui", "application/json", packument("@acme/ui", map[string]map[string]any{
		"1.0.0": {"tarball": acme.URL + "/api/npm/@acme/ui/-/ui-1.0.0.tgz", "integrity": sri("ui")},
		"2.0.0": {"tarball": acme.URL + "/api/npm/download/@acme/ui/2.0.0/abc", "integrity": sri("ui2")}}))
	acme.serves("/api/npm/@acme/ui/-/ui-1.0.0.tgz", "", "ui")
	acme.serves("/api/npm/download/@acme/ui/2.0.0/abc", "", "ui2")
	o := open(t, Config{NPM: usual.URL, Scopes: map[string]string{"@acme": acme.URL + "/api/npm/"},
		Authorization: []Authorization{{acme.URL + "/api/npm/", "Bearer scoped"}}})
	for _, path := range []string{"/npm/@acme%2fui", "/npm/@acme%2Fui", "/npm/@acme/ui"} {
		found := o.tarballs(path)
		for version, wanted := range map[string]string{"1.0.0": "ui", "2.0.0": "ui2"} {
			if status, body, _ := o.get(found[version]); status != 200 || body != wanted {
				t.Fatal(path, version, found[version], status, body)
			}
		}
	}
	for _, q := range acme.asked {
		if q.Header.Get("Authorization") != "Bearer scoped" {
			t.Fatal(q.URL)
		}
	}
	if status, body, _ := o.get("/npm/@other%2fui"); status != 404 || !strings.Contains(body, "has no package @other/ui") {
		t.Fatal(status, body)
	}
	if len(usual.asked) != 1 || usual.asked[0].Header.Get("Authorization") != "" {
		t.Fatal(usual.paths())
	}
}

func TestALockedTarballNeedsNoPage(t *testing.T) {
	r := fake(t)
	r.serves("/x/-/x-1.0.0.tgz", "", "content")
	config := Config{NPM: r.URL, Cache: t.TempDir()}
	for range 3 { // three builds, one download
		if status, body, _ := open(t, config).get("/npm/x/-/x-1.0.0.tgz"); status != 200 || body != "content" {
			t.Fatal(status, body)
		}
	}
	if len(r.paths()) != 1 {
		t.Fatal(r.paths())
	}
}

func TestAClientThatIsNotContentGetsTheRegistrysAgain(t *testing.T) {
	r := fake(t)
	wrong := true
	r.answers["/x/-/x-1.0.0.tgz"] = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, map[bool]string{true: "wrong", false: "right"}[wrong])
	}
	config := Config{NPM: r.URL, Cache: t.TempDir()}
	first := open(t, config)
	first.get("/npm/x/-/x-1.0.0.tgz")
	wrong = false
	if _, body, _ := first.get("/npm/x/-/x-1.0.0.tgz"); body != "right" {
		t.Fatal("its lock said another integrity, and it asked again:", body)
	}
	if _, body, _ := open(t, config).get("/npm/x/-/x-1.0.0.tgz"); body != "right" {
		t.Fatal(body)
	}
}

func TestATarballThatIsNotWhatThePageSaysIsNotKept(t *testing.T) {
	r := fake(t)
	old := sha1.Sum([]byte("old"))
	r.serves("/x", "application/json", packument("x", map[string]map[string]any{
		"1.0.0": {"tarball": r.URL + "/x/-/x-1.0.0.tgz", "integrity": sri("right")},
		"0.1.0": {"tarball": r.URL + "/x/-/x-0.1.0.tgz", "shasum": hex.EncodeToString(old[:])}}))
	r.serves("/x/-/x-1.0.0.tgz", "", "wrong")
	r.serves("/x/-/x-0.1.0.tgz", "", "old")
	o := open(t, Config{NPM: r.URL, Cache: t.TempDir()})
	found := o.tarballs("/npm/x")
	if status, _, _ := o.get(found["1.0.0"]); status == 200 {
		t.Fatal("a lie was passed on as a whole answer")
	}
	if status, body, _ := o.get(found["0.1.0"]); status != 200 || body != "old" {
		t.Fatal(status, body)
	}
	r.serves("/x/-/x-1.0.0.tgz", "", "right")
	if status, body, _ := o.get(found["1.0.0"]); status != 200 || body != "right" {
		t.Fatal(status, body)
	}
}

func TestWhatIsNoPackageIsNotAskedFor(t *testing.T) {
	r := fake(t)
	o := open(t, Config{NPM: r.URL})
	for _, path := range []string{"-/npm/v1/security/advisories/bulk", "-/v1/search?text=x", "@scope", "@a%2fb%2fc", "a%3fb", "a%23b", ".%2e/x"} {
		if status, body, _ := o.get("/npm/" + path); status != 404 && status != 400 {
			t.Fatal(path, status, body)
		}
	}
	if status, _, _ := open(t, Config{}).get("/npm/x"); status != 404 {
		t.Fatal(status)
	}
	if len(r.paths()) != 0 {
		t.Fatal(r.paths())
	}
}
