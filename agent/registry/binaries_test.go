package registry

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func from(address string) Config {
	return Config{Binaries: []Binaries{{Name: "tool", URL: address, Digests: ".sha256"}}}
}

func TestProgramsComeFromTheirSourceOnce(t *testing.T) {
	r := fake(t)
	r.serves("/v1/engine.gz", "", "a program")
	r.serves("/v1/engine.gz.sha256", "", sha("a program")+"  engine.gz\n")
	config := from(r.URL + "/")
	config.Cache = t.TempDir()
	for range 2 {
		o := open(t, config)
		for path, wanted := range map[string]string{"v1/engine.gz": "a program", "v1/engine.gz.sha256": sha("a program") + "  engine.gz\n"} {
			if status, body, _ := o.get("/binaries/tool/" + path); status != 200 || body != wanted {
				t.Fatal(path, status, body)
			}
		}
		if said := o.events.text(); said != "" {
			t.Fatal(said)
		}
	}
	if n := strings.Count(strings.Join(r.paths(), " ")+" ", "engine.gz "); n != 1 {
		t.Fatal("a program is downloaded once", r.paths())
	}
}

func TestAProgramThatIsNotWhatItsSourcePublishesIsNotPassedOn(t *testing.T) {
	r := fake(t)
	r.serves("/engine", "", "another program")
	r.serves("/engine.sha256", "", sha("a program"))
	r.serves("/page", "", "a program")
	r.serves("/page.sha256", "", "<html>")
	o := open(t, from(r.URL))
	for path, said := range map[string]string{"engine": "its digest is another", "page": "is no SHA-256"} {
		if status, body, _ := o.get("/binaries/tool/" + path); status != 502 || !strings.Contains(body, said) {
			t.Fatal(status, body)
		}
	}
}

func TestAProgramWithoutADigestIsItsClientsToJudge(t *testing.T) {
	r := fake(t)
	r.serves("/engine", "", "a program")
	o := open(t, from(r.URL))
	if status, body, _ := o.get("/binaries/tool/engine"); status != 200 || body != "a program" {
		t.Fatal(status, body)
	}
	if status, _, _ := o.get("/binaries/tool/engine.sha256"); status != 404 {
		t.Fatal(status)
	}
}

func TestASourceThatIsOffOrOutOfReachIsToldAsLacking(t *testing.T) {
	gone := fake(t)
	gone.Close()
	ill := fake(t)
	ill.answers["/ill.sha256"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	ill.answers["/"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	for address, why := range map[string]string{"": "switched it off", gone.URL: "cannot be reached", ill.URL: "answers 503"} {
		for _, path := range []string{"", "v1/engine"} {
			if address == ill.URL && path != "" {
				path = "ill"
			}
			o := open(t, from(address))
			status, body, _ := o.get("/binaries/tool/" + path)
			if status == 200 || !strings.Contains(body, why) {
				t.Fatal(address, path, status, body)
			}
			if said := o.events.text(); path == "" && said != "" || path != "" && !strings.HasPrefix(said, `{"lacking":{"source":"tool","why":"`) {
				t.Fatal(said)
			}
		}
	}
}

func TestASourceThatAnswersWhateverItAnswersCanBeReached(t *testing.T) {
	r := fake(t) // 404
	o := open(t, from(r.URL))
	if status, body, _ := o.get("/binaries/tool/"); status != 204 || o.events.text() != "" {
		t.Fatal(status, body, o.events.text())
	}
	if status, _, _ := o.get("/binaries/other/x"); status != 404 {
		t.Fatal(status)
	}
	if status, body, _ := o.get(fmt.Sprintf("/binaries/tool/%s/x", "..")); status == 200 {
		t.Fatal(status, body)
	}
}
