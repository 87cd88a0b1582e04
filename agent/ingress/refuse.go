package ingress

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"

	"vibed.dev/agent/unread"
)

// unreachable is the answer when the app gave none. mayHaveRun tells a client whether the app can have acted on the
// request: if not, sending it again is safe.
func unreachable(w http.ResponseWriter, err error, mayHaveRun bool) {
	message := "The app does not accept connections: " + plainly(err)
	if mayHaveRun {
		message = "The app took the request and gave no valid answer: " + plainly(err)
	}
	refuse(w, http.StatusBadGateway, "AppUnreachable", message, !mayHaveRun)
}

// plainly is an error without where it happened: a visitor has no use for our paths.
func plainly(err error) string {
	if op := new(net.OpError); errors.As(err, &op) {
		err = op.Err
	}
	if path := new(os.PathError); errors.As(err, &path) {
		err = path.Err
	}
	if call := new(os.SyscallError); errors.As(err, &call) {
		err = call.Err
	}
	return err.Error()
}

// tooSlow is the answer to a client whose body has stopped coming.
func tooSlow(w http.ResponseWriter) {
	unread.Announce(w.Header()) // the rest may still come
	refuse(w, http.StatusRequestTimeout, "RequestTimeout", "The body of the request did not come in time.", true)
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
