package ingress

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func (h *hop) ask(run, body string) (int, string) {
	h.t.Helper()
	r, _ := http.NewRequest("POST", "http://todo/", strings.NewReader(body))
	if run != "" {
		r.Header.Set(RunField, run)
	}
	answer, err := h.client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

func TestAnAddressThatIsAnothersByNowAnswersNobodyElse(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, there := r.Header[RunField]; there {
			t.Error("the app sees which run was meant")
		}
		io.Copy(w, r.Body)
	}))
	if status, _ := h.ask("", "anybody"); status != 200 {
		t.Errorf("where nobody has to say: %d", status)
	}
	h.Only("todo/7")
	if status, body := h.ask("todo/7", "mine"); status != 200 || body != "mine" {
		t.Errorf("%d %q", status, body)
	}
	total := h.Stats().Total
	for _, run := range []string{"", "todo/8", "other/7", "TODO/7"} {
		if status, body := h.ask(run, "a secret"); status != 421 || strings.Contains(body, "a secret") {
			t.Errorf("%q: %d %q", run, status, body)
		}
	}
	h.Only("")
	if status, _ := h.ask("", "x"); status != 421 {
		t.Errorf("after the run, without saying: %d", status)
	}
	if h.Stats().Total != total {
		t.Error("requests that are others' count as the app's")
	}
}

func TestAnAddressOfManyRunsAnswersForThoseThatAreThereAndTellsWhichIsMeant(t *testing.T) {
	h := newHop(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get(RunField)) }))
	h.Only("pod/1")
	h.Also("todo/7", true)
	h.Also("other/3", true)
	for _, run := range []string{"todo/7", "other/3"} {
		if status, body := h.ask(run, "x"); status != 200 || body != run {
			t.Errorf("%s: %d %q", run, status, body)
		}
	}
	h.Also("todo/7", false)
	for _, run := range []string{"todo/7", "todo/8", ""} {
		if status, _ := h.ask(run, "x"); status != 421 {
			t.Errorf("%q: %d", run, status)
		}
	}
	if status, _ := h.ask("other/3", "x"); status != 200 {
		t.Errorf("the other one: %d", status)
	}
}
