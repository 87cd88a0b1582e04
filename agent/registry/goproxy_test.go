package registry

import (
	"net/http"
	"strings"
	"testing"
)

func TestModulesComeFromTheConfiguredProxies(t *testing.T) {
	one, two := fake(t), fake(t)
	two.serves("/example.com/mod/@v/list", "text/plain", "v1.0.0\n")
	two.serves("/example.com/mod/@v/v1.0.0.zip", "application/zip", "zipped")
	one.serves("/example.com/%21upper/@v/v1.0.0.mod", "text/plain", "module example.com/Upper")
	config := Config{Go: one.URL + "," + two.URL + "/,direct", Cache: t.TempDir()}
	for range 2 {
		o := open(t, config)
		for path, wanted := range map[string]string{"example.com/mod/@v/list": "v1.0.0\n", "example.com/mod/@v/v1.0.0.zip": "zipped",
			"example.com/%21upper/@v/v1.0.0.mod": "module example.com/Upper"} {
			if status, body, _ := o.get("/go/" + path); status != 200 || body != wanted {
				t.Fatal(path, status, body)
			}
		}
		status, body, _ := o.get("/go/example.com/none/@v/list")
		if status != 404 {
			t.Fatal(status, body)
		}
	}
	if n := strings.Count(strings.Join(two.paths(), " "), "v1.0.0.zip"); n != 1 {
		t.Fatal("a version is downloaded once", two.paths())
	}
	if n := strings.Count(strings.Join(two.paths(), " "), "@v/list"); n != 4 {
		t.Fatal("the list of versions is asked for each time", two.paths())
	}
}

func TestWhatComesAfterAProxyThatFailsIsTheListsToSay(t *testing.T) {
	ill, well := fake(t), fake(t)
	ill.answers["/m/@v/list"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	well.serves("/m/@v/list", "text/plain", "v1.0.0\n")
	if status, _, _ := open(t, Config{Go: ill.URL + "," + well.URL}).get("/go/m/@v/list"); status != 502 {
		t.Fatal(status)
	}
	if status, _, _ := open(t, Config{Go: ill.URL + "|" + well.URL}).get("/go/m/@v/list"); status != 200 {
		t.Fatal(status)
	}
	if status, body, _ := open(t, Config{Go: "direct"}).get("/go/m/@v/list"); status != 404 || !strings.Contains(body, "no version control") {
		t.Fatal(status, body)
	}
	if status, _, _ := open(t, Config{Go: "off," + well.URL}).get("/go/m/@v/list"); status != 404 {
		t.Fatal(status)
	}
}

func TestSumsComeFromTheDatabaseByAProxyOrByItself(t *testing.T) {
	proxy, database := fake(t), fake(t)
	proxy.serves("/sumdb/sum.example/latest", "text/plain", "by the proxy")
	database.serves("/lookup/example.com/mod@v1.0.0", "text/plain", "by itself")
	config := Config{Go: proxy.URL}
	config.SumDB.Name, config.SumDB.URL = "sum.example", database.URL
	o := open(t, config)
	for path, wanted := range map[string]string{"supported": "", "latest": "by the proxy", "lookup/example.com/mod@v1.0.0": "by itself"} {
		if status, body, _ := o.get("/go/sumdb/sum.example/" + path); status != 200 || body != wanted {
			t.Fatal(path, status, body)
		}
	}
	if status, _, _ := o.get("/go/sumdb/other.example/latest"); status != 404 {
		t.Fatal(status)
	}
}
