package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// registry is a fake: what it answers by path, and what it was asked.
type registry struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]http.HandlerFunc
	asked   []*http.Request
}

func fake(t *testing.T) *registry {
	r := &registry{answers: map[string]http.HandlerFunc{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.asked = append(r.asked, q)
		answer := r.answers[q.URL.EscapedPath()]
		r.mu.Unlock()
		if answer == nil {
			http.NotFound(w, q)
			return
		}
		answer(w, q)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *registry) serves(path, kind, body string) {
	r.answers[path] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}
}

func (r *registry) paths() (paths []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.asked {
		paths = append(paths, q.URL.EscapedPath())
	}
	return paths
}

// opened is a gate under test and a client that sees nothing else.
type opened struct {
	*httptest.Server
	t      *testing.T
	gate   *Gate
	events *lines
}

type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

func open(t *testing.T, config Config) *opened {
	t.Helper()
	events := &lines{}
	gate, err := New(config, events)
	if err != nil {
		t.Fatal(err)
	}
	o := &opened{httptest.NewServer(gate), t, gate, events}
	o.Config.ErrorLog = gate.quiet()
	t.Cleanup(o.Close)
	return o
}

func (o *opened) get(path string, header ...string) (int, string, http.Header) {
	o.t.Helper()
	if !strings.Contains(path, "://") {
		path = o.URL + path
	}
	q, err := http.NewRequest(http.MethodGet, path, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return -1, string(body), answer.Header
	}
	return answer.StatusCode, string(body), answer.Header
}

// page asks for a project as today's clients do; the files by their names.
func (o *opened) page(name string) map[string]map[string]any {
	o.t.Helper()
	status, body, header := o.get("/pypi/simple/"+name+"/", "Accept", asJSON+", "+asHTML+";q=0.2")
	if status != 200 || header.Get("Content-Type") != asJSON {
		o.t.Fatalf("%d %s", status, body)
	}
	var said struct{ Files []map[string]any }
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		o.t.Fatal(err)
	}
	files := map[string]map[string]any{}
	for _, f := range said.Files {
		files[f["filename"].(string)] = f
	}
	return files
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func jsonPage(files ...map[string]any) string {
	raw, _ := json.Marshal(map[string]any{"meta": map[string]string{"api-version": "1.0"}, "name": "x", "files": files})
	return string(raw)
}

func TestAnIndexesPageLeadsToTheGate(t *testing.T) {
	r := fake(t)
	r.serves("/simple/tiny-pkg/", asJSON, jsonPage(map[string]any{"filename": "tiny_pkg-1.0-py3-none-any.whl", "url": "../../files/t.whl",
		"hashes": map[string]string{"sha256": sha("content")}, "requires-python": ">=3.8", "core-metadata": map[string]string{"sha256": sha("meta")},
		"yanked": "broken", "upload-time": "2026-01-01T00:00:00Z"}))
	r.serves("/files/t.whl", "application/zip", "content")
	r.serves("/files/t.whl.metadata", "text/plain", "meta")
	o := open(t, Config{PyPI: []string{r.URL + "/simple/"}, Cache: t.TempDir()})
	for _, name := range []string{"tiny-pkg", "Tiny_Pkg", "tiny.pkg"} {
		f := o.page(name)["tiny_pkg-1.0-py3-none-any.whl"]
		if f["requires-python"] != ">=3.8" || f["yanked"] != "broken" || f["upload-time"] == nil {
			t.Fatalf("%s: what the page says of the file is lost: %v", name, f)
		}
		address := f["url"].(string)
		if !strings.HasPrefix(address, o.URL+"/pypi/file/") || !strings.HasSuffix(address, "/tiny_pkg-1.0-py3-none-any.whl") {
			t.Fatal(address)
		}
		if status, body, _ := o.get(address); status != 200 || body != "content" {
			t.Fatal(status, body)
		}
		if status, body, _ := o.get(address + ".metadata"); status != 200 || body != "meta" {
			t.Fatal(status, body)
		}
	}
	if n := strings.Count(strings.Join(r.paths(), " "), "/files/t.whl"); n != 2 {
		t.Fatalf("each file is downloaded once: %v", r.paths())
	}
}

func TestAPageInHTMLIsUnderstoodAndGiven(t *testing.T) {
	r := fake(t)
	r.serves("/simple/old/", "text/html; charset=utf-8", `<!DOCTYPE html><html><body>
<a href="/files/old-1.0.tar.gz#sha256=`+sha("one")+`" data-requires-python="&gt;=2.7">old-1.0.tar.gz</a><br/>
<A rel="internal" HREF='/files/old-2.0-py3-none-any.whl#md5=abc' data-requires-python=">=3" data-yanked data-dist-info-metadata="sha256=`+sha("m")+`">old-2.0-py3-none-any.whl</A>
<a href="https://example.com/">homepage</a></body></html>`)
	r.serves("/files/old-1.0.tar.gz", "", "one")
	o := open(t, Config{PyPI: []string{r.URL + "/simple"}})
	files := o.page("old")
	if f := files["old-1.0.tar.gz"]; f["requires-python"] != ">=2.7" || f["hashes"].(map[string]any)["sha256"] != sha("one") {
		t.Fatal(f)
	}
	if f := files["old-2.0-py3-none-any.whl"]; f["yanked"] != true || f["requires-python"] != ">=3" || f["hashes"].(map[string]any)["md5"] != "abc" {
		t.Fatal(f)
	}
	status, body, header := o.get("/pypi/simple/old/", "Accept", "text/html")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		t.Fatal(status, header)
	}
	for _, wanted := range []string{"/old-1.0.tar.gz#sha256=" + sha("one") + `"`, `data-requires-python="&gt;=2.7"`, `data-yanked=""`, "data-core-metadata=\"sha256=" + sha("m")} {
		if !strings.Contains(body, wanted) {
			t.Fatalf("no %s in %s", wanted, body)
		}
	}
}

func TestSeveralIndexesAreOne(t *testing.T) {
	one, two := fake(t), fake(t)
	one.serves("/p/", asJSON, jsonPage(map[string]any{"filename": "p-1.tar.gz", "url": one.URL + "/p-1", "hashes": map[string]string{}}))
	two.serves("/p/", asJSON, jsonPage(map[string]any{"filename": "p-1.tar.gz", "url": two.URL + "/p-1", "hashes": map[string]string{}},
		map[string]any{"filename": "p-2.tar.gz", "url": two.URL + "/p-2", "hashes": map[string]string{}}))
	two.serves("/only-two/", asJSON, jsonPage(map[string]any{"filename": "only_two-1.tar.gz", "url": two.URL + "/o", "hashes": map[string]string{}}))
	one.serves("/p-1", "", "of the first")
	all := open(t, Config{PyPI: []string{one.URL, two.URL}})
	files := all.page("p")
	if len(files) != 2 || len(all.page("only-two")) != 1 {
		t.Fatal(files)
	}
	if _, body, _ := all.get(files["p-1.tar.gz"]["url"].(string)); body != "of the first" {
		t.Fatal(body)
	}
	first := open(t, Config{PyPI: []string{one.URL, two.URL}, FirstIndex: true})
	if len(first.page("p")) != 1 || len(first.page("only-two")) != 1 {
		t.Fatal("an index that comes first hides a project of the others")
	}
	if status, body, _ := all.get("/pypi/simple/nowhere/"); status != 404 || !strings.Contains(body, "no configured index has a project nowhere") {
		t.Fatal(status, body)
	}
}

func TestFoldersOfDistributionsCountAsAnIndex(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"my_tool-1.2-py3-none-any.whl", "my-tool-1.1.tar.gz", "other-1.0-py3-none-any.whl", "notes.txt", "my_tool_extra-1.0-py3-none-any.whl"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("it is "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := open(t, Config{FindLinks: []string{folder}})
	files := o.page("my-tool")
	if len(files) != 2 {
		t.Fatal(files)
	}
	for name, f := range files {
		if status, body, _ := o.get(f["url"].(string)); status != 200 || body != "it is "+name {
			t.Fatal(status, body)
		}
	}
}

func TestNothingIsFetchedButWhatAPageHasNamed(t *testing.T) {
	r := fake(t)
	r.serves("/secret", "", "secret")
	o := open(t, Config{PyPI: []string{r.URL}, NPM: r.URL})
	forged := base64.RawURLEncoding.EncodeToString(append(make([]byte, 16), []byte("\n\n\n"+r.URL+"/secret")...))
	other, _ := New(Config{}, io.Discard)
	for _, token := range []string{forged, other.token(given{URL: r.URL + "/secret"}), "", "%2e%2e", "x"} {
		for _, at := range []string{"/pypi/file/", "/npm/-/tarball/"} {
			if status, body, _ := o.get(at + token + "/secret"); status < 400 {
				t.Fatal(at, token, status, body)
			}
		}
	}
	for _, path := range []string{"/pypi/simple/../../secret/", "/pypi/simple/%2e%2e/", "/pypi/simple/a%2fb/", "/npm/..%2fsecret", "/npm/%2e%2e/secret", "/go/../secret", "/secret", "/"} {
		if status, body, _ := o.get(path); status < 400 {
			t.Fatal(path, status, body)
		}
	}
	for _, path := range r.paths() {
		if path == "/secret" {
			t.Fatal(r.paths())
		}
	}
}

func TestOtherHostsAreRefusedByTheirNames(t *testing.T) {
	o := open(t, Config{})
	to, _ := url.Parse(o.URL)
	through := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(to)}}
	answer, err := through.Get("http://Evil.example/x")
	if err != nil || answer.StatusCode != 403 {
		t.Fatal(err, answer)
	}
	body, _ := io.ReadAll(answer.Body)
	if !strings.Contains(string(body), "evil.example:80 is refused") {
		t.Fatal(string(body))
	}
	if _, err := through.Get("https://evil.example:8443/x"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Fatal(err)
	}
	if said := o.events.text(); said != `{"denied":"evil.example:80"}`+"\n"+`{"denied":"evil.example:8443"}`+"\n" {
		t.Fatal(said)
	}
	for range maxDenials + 100 {
		answer, err := through.Get("http://evil.example/x")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	if n := strings.Count(o.events.text(), "\n"); n != maxDenials {
		t.Fatal("a build that asks in a loop is told of once in a while:", n)
	}
	if status, _, _ := o.get("/npm/x", "X-HTTP-Method-Override", "PUT"); status != 404 {
		t.Fatal(status)
	}
	post, err := http.Post(o.URL+"/npm/x", "application/json", strings.NewReader("{}"))
	if err != nil || post.StatusCode != 405 {
		t.Fatal(err, post)
	}
}

func TestPrivateAddressesAreOnlyAskedWhereTheOperatorNamesThem(t *testing.T) {
	inner := fake(t)
	inner.serves("/metadata", "", "the machine's credentials")
	r := fake(t)
	elsewhere := strings.Replace(inner.URL, "127.0.0.1", "localhost", 1)
	for name, address := range map[string]string{"direct": inner.URL + "/metadata", "by-name": elsewhere + "/metadata", "mapped": strings.Replace(inner.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1) + "/metadata"} {
		r.serves("/simple/"+name+"/", asJSON, jsonPage(map[string]any{"filename": name + "-1.tar.gz", "url": address, "hashes": map[string]string{}}))
	}
	r.answers["/simple/redirected/"] = func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, inner.URL+"/metadata", 302) }
	o := open(t, Config{PyPI: []string{r.URL + "/simple"}})
	for _, name := range []string{"direct", "by-name", "mapped"} {
		status, body, _ := o.get(o.page(name)[name+"-1.tar.gz"]["url"].(string))
		if status != 403 || !strings.Contains(body, "private network") {
			t.Fatal(name, status, body)
		}
	}
	if status, body, _ := o.get("/pypi/simple/redirected/"); status != 403 || !strings.Contains(body, "private network") {
		t.Fatal(status, body)
	}
	if len(inner.paths()) != 0 {
		t.Fatal(inner.paths())
	}
}

func TestCredentialsGoToWhomTheyAreFor(t *testing.T) {
	r, other := fake(t), fake(t)
	r.serves("/private/simple/p/", asJSON, jsonPage(map[string]any{"filename": "p-1.tar.gz", "url": r.URL + "/private/p", "hashes": map[string]string{}},
		map[string]any{"filename": "p-2.tar.gz", "url": other.URL + "/p2", "hashes": map[string]string{}}))
	r.serves("/private/p", "", "one")
	r.answers["/private/away"] = func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, other.URL+"/p2", 302) }
	other.serves("/p2", "", "two")
	o := open(t, Config{PyPI: []string{r.URL + "/private/simple", other.URL}, Authorization: []Authorization{
		{r.URL + "/", "Basic b3RoZXI="}, {r.URL + "/private/", "Bearer secret"}}})
	files := o.page("p")
	o.get(files["p-1.tar.gz"]["url"].(string))
	o.get(files["p-2.tar.gz"]["url"].(string))
	for _, q := range r.asked {
		if q.Header.Get("Authorization") != "Bearer secret" {
			t.Fatal(q.URL, q.Header)
		}
	}
	for _, q := range other.asked {
		if q.Header.Get("Authorization") != "" {
			t.Fatal(q.URL, q.Header)
		}
	}
	r.answers["/private/simple/closed/"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }
	alone := open(t, Config{PyPI: []string{r.URL + "/private/simple"}})
	status, body, _ := alone.get("/pypi/simple/closed/")
	if status != 403 || !strings.Contains(body, "credentials") || !strings.Contains(alone.events.text(), `{"refused":"the registry `) {
		t.Fatal(status, body, alone.events.text())
	}
	status, body, _ = o.get("/pypi/simple/closed/")
	if status != 404 || !strings.Contains(body, "no configured index has a project closed; the registry") || strings.Contains(body+o.events.text(), "secret") {
		t.Fatal(status, body)
	}
}

func TestAnIndexThatRefusesWhatItDoesNotHaveHidesNobody(t *testing.T) {
	odd, usual := fake(t), fake(t)
	odd.answers["/p/"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }
	usual.serves("/p/", asJSON, jsonPage(map[string]any{"filename": "p-1.tar.gz", "url": "/p-1", "hashes": map[string]string{}}))
	if files := open(t, Config{PyPI: []string{odd.URL, usual.URL}, FirstIndex: true}).page("p"); len(files) != 1 {
		t.Fatal(files)
	}
}

func TestARegistryThatFailsIsNamedAndARetryOffered(t *testing.T) {
	r := fake(t)
	r.answers["/simple/ill/"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	r.answers["/simple/busy/"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }
	r.serves("/simple/odd/", asJSON, "<html>")
	o := open(t, Config{PyPI: []string{r.URL + "/simple"}, NPM: "http://127.0.0.1:1/npm"})
	for path, wanted := range map[string]string{"/pypi/simple/ill/": "answers 500; trying again may help", "/pypi/simple/busy/": "too many requests",
		"/pypi/simple/odd/": "makes no sense", "/npm/any": "127.0.0.1:1 cannot be reached"} {
		status, body, _ := o.get(path)
		if status < 500 || !strings.Contains(body, wanted) {
			t.Fatal(path, status, body)
		}
		if !strings.Contains(o.events.text(), wanted) {
			t.Fatal(o.events.text())
		}
	}
}

func TestADownloadThatLiesOrBreaksOffIsNeverWhole(t *testing.T) {
	r := fake(t)
	content := strings.Repeat("0123456789", 30_000)
	page := func(name string) map[string]any {
		return map[string]any{"filename": name + ".tar.gz", "url": "/files/" + name, "hashes": map[string]string{"sha256": sha(content)}}
	}
	r.serves("/simple/p/", asJSON, jsonPage(page("p-1"), page("p-2"), page("p-3")))
	r.serves("/files/p-1", "", strings.Replace(content, "5", "6", 1))
	r.answers["/files/p-2"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = io.WriteString(w, content[:len(content)/2])
	}
	r.answers["/files/p-3"] = func(w http.ResponseWriter, _ *http.Request) { // chunked: only the digest tells
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, content[:len(content)/2])
	}
	cache := t.TempDir()
	o := open(t, Config{PyPI: []string{r.URL + "/simple"}, Cache: cache})
	for _, name := range []string{"p-1", "p-2", "p-3"} {
		status, body, _ := o.get(o.page("p")[name+".tar.gz"]["url"].(string))
		if status == 200 {
			t.Fatal(name, len(body))
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(cache, "files", "*", "*")); len(kept) != 0 {
		t.Fatal(kept)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "tmp", "*")); len(left) != 0 {
		t.Fatal(left)
	}
	if said := o.events.text(); strings.Count(said, "trouble") != 3 {
		t.Fatal(said)
	}
}

func TestTheCacheIsReadThroughBeforeItIsBelieved(t *testing.T) {
	r := fake(t)
	r.serves("/simple/p/", asJSON, jsonPage(map[string]any{"filename": "p-1.tar.gz", "url": "/f", "hashes": map[string]string{"sha256": sha("right")}}))
	r.serves("/f", "", "right")
	cache := t.TempDir()
	config := Config{PyPI: []string{r.URL + "/simple"}, Cache: cache}
	fetch := func() string {
		o := open(t, config)
		_, body, _ := o.get(o.page("p")["p-1.tar.gz"]["url"].(string))
		return body
	}
	if fetch() != "right" || fetch() != "right" {
		t.Fatal("not what it is")
	}
	kept, _ := filepath.Glob(filepath.Join(cache, "files", "*", "*"))
	if len(kept) != 1 || strings.Count(strings.Join(r.paths(), " "), "/f") != 1 {
		t.Fatal(kept, r.paths())
	}
	if err := os.WriteFile(kept[0], []byte("poisoned"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fetch() != "right" || fetch() != "right" || strings.Count(strings.Join(r.paths(), " "), "/f") != 2 {
		t.Fatal(r.paths())
	}
}

func TestAPartOfAFileCanBeAskedFor(t *testing.T) {
	r := fake(t)
	r.serves("/simple/p/", asJSON, jsonPage(map[string]any{"filename": "p-1.whl", "url": "/f", "hashes": map[string]string{"sha256": sha("0123456789")}}))
	r.answers["/f"] = func(w http.ResponseWriter, q *http.Request) {
		http.ServeContent(w, q, "", time.Time{}, strings.NewReader("0123456789"))
	}
	o := open(t, Config{PyPI: []string{r.URL + "/simple"}, Cache: t.TempDir()})
	address := o.page("p")["p-1.whl"]["url"].(string)
	for range 2 {
		status, body, header := o.get(address, "Range", "bytes=2-4")
		if status != 206 || body != "234" || header.Get("Content-Range") != "bytes 2-4/10" {
			t.Fatal(status, body, header)
		}
		if status, body, _ := o.get(address); status != 200 || body != "0123456789" {
			t.Fatal(status, body)
		}
	}
}

func TestTheCacheIsHeldToItsSize(t *testing.T) {
	c := newCache(t.TempDir(), "", 0)
	for i := range 10 {
		e := c.begin()
		_, _ = e.Write(bytes.Repeat([]byte{byte(i)}, 1000))
		digest := e.digest()
		e.keep("https://host/" + fmt.Sprint(i))
		then := time.Now().Add(time.Duration(i-20) * time.Minute)
		if err := os.Chtimes(c.file(digest), then, then); err != nil {
			t.Fatal(err)
		}
	}
	if f := c.open(c.at("https://host/0")); f == nil { // of use again
		t.Fatal("it is not there")
	} else {
		f.Close()
	}
	c.trim(5 * 2 * block)
	for i := range 10 {
		f := c.open(c.at("https://host/" + fmt.Sprint(i)))
		if f != nil {
			f.Close()
		}
		if wanted := i == 0 || i > 6; wanted != (f != nil) {
			t.Fatal(i, "is there:", f != nil)
		}
	}
}

func TestOneBuildDoesNotTakeTheWholeCache(t *testing.T) {
	c := newCache(t.TempDir(), "", 4*(2*block+900))
	kept := 0
	for i := range 4 {
		e := c.begin()
		_, _ = e.Write(bytes.Repeat([]byte{byte(i)}, 900))
		e.keep("https://host/" + fmt.Sprint(i))
		if f := c.open(c.at("https://host/" + fmt.Sprint(i))); f != nil {
			f.Close()
			kept++
		}
	}
	if kept != 2 {
		t.Fatal(kept)
	}
}

func TestManySmallFilesCountAsWhatTheyTakeOnADisk(t *testing.T) {
	c := newCache(t.TempDir(), "", 20*2*block)
	kept := 0
	for i := range 40 {
		e := c.begin()
		_, _ = e.Write([]byte{byte(i)})
		e.keep("https://host/" + fmt.Sprint(i))
		if c.at("https://host/"+fmt.Sprint(i)) != "" {
			kept++
		}
	}
	if kept != 9 {
		t.Fatal(kept)
	}
}

func TestWhatAGateHasOnItsWayIsInAFolderOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	c := newCache(dir, "gate", 0)
	e := c.begin()
	_, _ = e.Write([]byte("half of it"))
	if left, _ := filepath.Glob(filepath.Join(dir, "tmp", "gate", "*")); len(left) != 1 {
		t.Fatal(left)
	}
}
