package sites

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

var testTypes = map[string]string{
	"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "wasm": "application/wasm", "svgz": "image/svg+xml",
}

// site writes a site and its marker; the result asks it.
func newSite(t *testing.T, said map[string]any, contents map[string]string) func(method, path string, more ...string) *http.Response {
	t.Helper()
	apps, folder := t.TempDir(), t.TempDir()
	text, _ := json.Marshal(said)
	contents[Facts] = string(text)
	for name, content := range contents {
		place := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(apps, "a"), 0o755)
	if err := os.Symlink(folder, filepath.Join(apps, "a", "1-1.r.d")); err != nil {
		t.Fatal(err)
	}
	server := New(Config{Apps: apps, Types: testTypes, Unknown: "application/octet-stream"})
	return func(method, path string, more ...string) *http.Response {
		request := httptest.NewRequest(method, path, nil)
		request.Header.Set(siteHeader, "/a/1-1.r")
		for at := 0; at < len(more); at += 2 {
			request.Header.Set(more[at], more[at+1])
		}
		recorder := httptest.NewRecorder()
		server.ServeHTTP(recorder, request)
		return recorder.Result()
	}
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func expect(t *testing.T, response *http.Response, status int, text, location string) {
	t.Helper()
	if got := body(t, response); response.StatusCode != status || got != text || response.Header.Get("Location") != location {
		t.Errorf("got %d %q to %q, expected %d %q to %q", response.StatusCode, got, response.Header.Get("Location"), status, text, location)
	}
}

type rule map[string]any

func TestTheFirstRuleThatMatchesCountsAndAFileGoesBeforeARuleUnlessItIsForced(t *testing.T) {
	ask := newSite(t, map[string]any{"redirects": []rule{
		{"path": "/old", "to": []any{"/new"}, "status": 301},
		{"path": "/old", "to": []any{"/never"}, "status": 302},
		{"path": "/there", "to": []any{"/new"}, "status": 302},
		{"path": "/moved", "to": []any{"/new"}, "status": 302, "force": true},
		{"pattern": "^/blog/([^/]+)/?$", "to": []any{"/p?slug=", 0.0}, "status": 308},
		{"pattern": "^/go(?:/(.*))?$", "to": []any{"/", 0.0}, "status": 302},
		{"path": "/new", "to": []any{"/new"}, "status": 301, "force": true},
		{"pattern": "^/app(?:/(.*))?$", "to": []any{"/app.html"}, "status": 200},
		{"path": "/gone", "to": []any{"/gone-page"}, "status": 404},
	}}, map[string]string{"new.html": "new", "there.html": "there", "moved.html": "moved", "app.html": "app", "gone-page.html": "gone", "index.html": "i"})
	expect(t, ask("GET", "/old?q=1"), 301, "", "/new?q=1")
	expect(t, ask("POST", "/old/"), 301, "", "/new")
	expect(t, ask("GET", "/there"), 200, "there", "")
	expect(t, ask("GET", "/moved"), 302, "", "/new")
	expect(t, ask("GET", "/blog/a%2Fb?x=1"), 404, noSuch, "")
	expect(t, ask("GET", "/blog/a%20%0d%0aX:y?x=1"), 308, "", "/p?slug=a%20%0D%0AX:y")
	expect(t, ask("GET", "/go//evil.example"), 302, "", "/evil.example")
	expect(t, ask("GET", "/go/%2F%2Fevil.example/x"), 302, "", "/evil.example/x")
	expect(t, ask("GET", "/new"), 200, "new", "") // a rule that leads to itself leads nowhere
	expect(t, ask("GET", "/app/orders/7"), 200, "app", "")
	expect(t, ask("GET", "/gone"), 404, "gone", "")
	expect(t, ask("POST", "/there"), 405, notMethod, "")
}

func TestWhatTheHeaderRulesSayIsJoinedAndGoesBeforeWhatIsSaidUnasked(t *testing.T) {
	ask := newSite(t, map[string]any{"headers": []rule{
		{"pattern": "^/(.*)$", "set": [][2]string{{"X-A", "1"}, {"Content-Security-Policy", "default-src 'self'"}}},
		{"pattern": "^/assets(?:/(.*))?$", "set": [][2]string{{"Cache-Control", "immutable"}, {"x-a", "2"}}, "unset": []string{"Content-Security-Policy"}},
	}}, map[string]string{"index.html": "i", "assets/a.js": "js"})
	page, asset := ask("GET", "/"), ask("GET", "/assets/a.js")
	if got := page.Header; got.Get("X-A") != "1" || got.Get("Cache-Control") != "no-cache" || got.Get("Content-Security-Policy") == "" {
		t.Errorf("%v", got)
	}
	if got := asset.Header; got.Get("X-A") != "1, 2" || got.Get("Cache-Control") != "immutable" || got.Get("Content-Security-Policy") != "" {
		t.Errorf("%v", got)
	}
	if got := ask("GET", "/nope").Header.Get("X-A"); got != "1" {
		t.Errorf("a missing page has X-A %q", got)
	}
}

func TestASiteBuiltForAPrefixIsServedUnderItAndItsFirstPageLeadsThere(t *testing.T) {
	ask := newSite(t, map[string]any{"base": "/repo/", "fallback": "/index.html"}, map[string]string{"index.html": "i", "a.js": "js", "d/index.html": "d"})
	expect(t, ask("GET", "/?q=1"), 302, "", "/repo/?q=1")
	expect(t, ask("GET", "/repo"), 302, "", "/repo/")
	expect(t, ask("GET", "/repo/"), 200, "i", "")
	expect(t, ask("GET", "/repo/a.js"), 200, "js", "")
	expect(t, ask("GET", "/a.js"), 200, "js", "")
	expect(t, ask("GET", "/repo/d"), 308, "", "/repo/d/")
	expect(t, ask("GET", "/repo/deep/route"), 200, "i", "")
}

func TestTheNearest404PageAnswers(t *testing.T) {
	ask := newSite(t, map[string]any{}, map[string]string{"index.html": "i", "404.html": "root", "de/404.html": "de"})
	expect(t, ask("GET", "/x", "Range", "bytes=0-1", "If-None-Match", "*"), 404, "root", "")
	expect(t, ask("GET", "/de/a/b/"), 404, "de", "")
	if got := ask("HEAD", "/de/x"); got.StatusCode != 404 || got.Header.Get("Content-Length") != "2" {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
}

func TestAFileThatLiesCompressedBesideIsSentToWhoeverTakesIt(t *testing.T) {
	ask := newSite(t, map[string]any{}, map[string]string{"a.js": "plain", "a.js.br": "br", "a.js.gz": "gz", "b.js": "b", "b.js.gz": "bgz"})
	for _, one := range []struct{ path, accept, encoding, text string }{
		{"/a.js", "", "", "plain"}, {"/a.js", "gzip, br", "br", "br"}, {"/a.js", "gzip", "gzip", "gz"}, {"/a.js", "br;q=0, *", "gzip", "gz"},
		{"/b.js", "br", "", "b"}, {"/a.js", "identity", "", "plain"},
	} {
		got := ask("GET", one.path, "Accept-Encoding", one.accept)
		if text := body(t, got); text != one.text || got.Header.Get("Content-Encoding") != one.encoding || got.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%v: %q %v", one, text, got.Header)
		}
		if got.Header.Get("Content-Type") != testTypes["js"] {
			t.Errorf("%v: %v", one, got.Header)
		}
	}
	plain, packed := ask("GET", "/a.js").Header.Get("ETag"), ask("GET", "/a.js", "Accept-Encoding", "br").Header.Get("ETag")
	if plain == packed {
		t.Error("both have one ETag")
	}
	if got := ask("GET", "/a.js", "Accept-Encoding", "br", "If-None-Match", packed); got.StatusCode != 304 {
		t.Errorf("%d", got.StatusCode)
	}
}

func TestAnEncodedFileIsToldOnlyWhereALoaderAsksForItByThatName(t *testing.T) {
	ask := newSite(t, map[string]any{"encoded": []string{"/Build"}}, map[string]string{"Build/g.wasm.br": "x", "Build/g.js.gz": "y", "data.js.gz": "z", "i.svgz": "s"})
	for path, expected := range map[string][2]string{
		"/Build/g.wasm.br": {"br", "application/wasm"}, "/Build/g.js.gz": {"gzip", testTypes["js"]},
		"/data.js.gz": {"", "application/octet-stream"}, "/i.svgz": {"gzip", "image/svg+xml"},
	} {
		got := ask("GET", path, "Range", "bytes=0-0")
		if got.Header.Get("Content-Encoding") != expected[0] || got.Header.Get("Content-Type") != expected[1] || got.StatusCode != 206 {
			t.Errorf("%s: %d %v", path, got.StatusCode, got.Header)
		}
	}
}

func TestNothingOutsideTheSiteAndNothingHiddenIsServed(t *testing.T) {
	contents := map[string]string{"index.html": "i", ".env": "KEY", "a/.git/config": "g", ".well-known/x": "ok"}
	ask := newSite(t, map[string]any{"redirects": []rule{{"pattern": "^/r/(.*)$", "to": []any{"/", 0.0}, "status": 200}}}, contents)
	for _, path := range []string{"/.env", "/a/.git/config", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/r/.env", "/r/../../etc/passwd", "/.vibed.json", "/r/.vibed.json"} {
		if got := ask("GET", path); got.StatusCode != 404 {
			t.Errorf("%s: %d", path, got.StatusCode)
		}
	}
	expect(t, ask("GET", "/.well-known/x"), 200, "ok", "")
}

func TestALinkOutOfASiteIsNotFollowed(t *testing.T) {
	apps, folder := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(folder, Facts), []byte("{}"), 0o644)
	os.Symlink("/etc/hostname", filepath.Join(folder, "out.html"))
	os.Mkdir(filepath.Join(apps, "a"), 0o755)
	os.Symlink(folder, filepath.Join(apps, "a", "1-1.r.d"))
	server := New(Config{Apps: apps})
	for _, marker := range []string{"/a/1-1.r", "", "../x", "/a/1-1.r/../../..", "/a/9-9.r"} {
		recorder, request := httptest.NewRecorder(), httptest.NewRequest("GET", "/out.html", nil)
		request.Header.Set(siteHeader, marker)
		server.ServeHTTP(recorder, request)
		if recorder.Code != 404 || !strings.HasPrefix(recorder.Body.String(), "404") {
			t.Errorf("%q: %d %s", marker, recorder.Code, recorder.Body)
		}
	}
}

const tightly = 3 << 20

// keepLittle is a server that keeps no more than `tightly`.
func keepLittle(t *testing.T) (*Server, string) {
	t.Helper()
	apps := t.TempDir()
	server := New(Config{Apps: apps})
	server.known.most = tightly
	return server, apps
}

// siteOf makes another version of an app's site, with facts that weigh about so much.
func siteOf(t *testing.T, apps, app, run string, weight int) {
	t.Helper()
	folder := t.TempDir()
	text, _ := json.Marshal(map[string]any{"redirects": []rule{{"pattern": "^/" + strings.Repeat("a", weight/(perLetter+1)) + "$", "to": []any{"/"}, "status": 301}}})
	os.WriteFile(filepath.Join(folder, Facts), text, 0o644)
	os.MkdirAll(filepath.Join(apps, app), 0o755)
	if err := os.Symlink(folder, filepath.Join(apps, app, run+".d")); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsKeptOfSitesIsBoundedAndLargeOnesDisplaceNoSmallOnes(t *testing.T) {
	server, apps := keepLittle(t)
	find := func(app, run string) *facts {
		t.Helper()
		_, facts, err := server.marked("/" + app + "/" + run)
		if err != nil {
			t.Fatal(err)
		}
		if server.known.weight > tightly {
			t.Errorf("%d bytes are kept", server.known.weight)
		}
		return facts
	}
	siteOf(t, apps, "small", "1", 1000)
	small := find("small", "1")
	for _, app := range []string{"a", "b", "c", "d", "e"} {
		siteOf(t, apps, app, "1", tightly/3)
		for range 3 {
			find(app, "1")
		}
	}
	if find("small", "1") != small {
		t.Error("the small site was read anew")
	}
	if got := len(server.known.apps); got > 3 {
		t.Errorf("%d sites are kept", got)
	}
}

func TestOfAnAppWhoseSiteHasASuccessorOnlyThatStaysKnown(t *testing.T) {
	server, apps := keepLittle(t)
	for _, run := range []string{"1", "2", "3"} {
		siteOf(t, apps, "a", run, tightly/3)
		if _, _, err := server.marked("/a/" + run); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.known.apps["/a"]; len(server.known.apps) != 1 || server.known.weight != got.facts.weight {
		t.Errorf("%d sites of %d bytes are kept", len(server.known.apps), server.known.weight)
	}
}

func TestManyWhoAskForASiteAtOnceHaveItReadOnce(t *testing.T) {
	server, apps := keepLittle(t)
	siteOf(t, apps, "a", "1", tightly/2)
	found := make(chan *facts, 20)
	for range cap(found) {
		go func() {
			_, facts, _ := server.marked("/a/1")
			found <- facts
		}()
	}
	first := <-found
	for range cap(found) - 1 {
		if other := <-found; other != first || other == nil {
			t.Error("it was read more than once")
		}
	}
}

func TestWithoutADescriptorLeftItIsSaidThatItMayBeTriedAgainAndNotThatThereIsNoSuchPage(t *testing.T) {
	ask := newSite(t, map[string]any{}, map[string]string{"index.html": "i", "a/b.js": "b", "a/b.js.br": "packed"})
	starved := func(path string) *http.Response {
		t.Helper()
		var before syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		lowest, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(lowest.Fd())
		lowest.Close()
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: next, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
		return ask("GET", path, "Accept-Encoding", "br")
	}
	// when the site was never asked for, and when it is known
	for range 2 {
		for _, path := range []string{"/", "/a/b.js", "/nothing"} {
			got := starved(path)
			if got.StatusCode != 503 || got.Header.Get("Retry-After") == "" || got.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: %d %v", path, got.StatusCode, got.Header)
			}
		}
		expect(t, ask("GET", "/a/b.js"), 200, "b", "")
		expect(t, ask("GET", "/nothing"), 404, noSuch, "")
	}
}

func TestAPathThatNoFileCanHaveIsNotLookedForInEachOfItsFolders(t *testing.T) {
	ask := newSite(t, map[string]any{}, map[string]string{"404.html": "none", "a/404.html": "none in a"})
	// this took minutes: as many folders as a visitor cares to write, each of them opened from the root
	expect(t, ask("GET", "/"+strings.Repeat("a/", 30_000)), 404, "none in a", "")
	expect(t, ask("GET", "/"+strings.Repeat("b", 60_000)), 404, "none", "")
}
