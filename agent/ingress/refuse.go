package ingress

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// unreachable is the answer when the app gave none. mayHaveRun tells a client whether the app can have acted on the
// request: if not, sending it again is safe.
func unreachable(w http.ResponseWriter, err error, mayHaveRun bool) {
	message := "The app does not accept connections: " + err.Error()
	if mayHaveRun {
		message = "The app took the request and gave no valid answer: " + err.Error()
	}
	refuse(w, http.StatusBadGateway, "AppUnreachable", message, !mayHaveRun)
}

func refuse(w http.ResponseWriter, status int, code, message string, retryable bool) {
	body, _ := json.Marshal(map[string]any{
		"code": code, "message": message, "details": map[string]any{"retryable": retryable},
	})
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Vibed-Error", code)
	w.WriteHeader(status)
	w.Write(body)
}
