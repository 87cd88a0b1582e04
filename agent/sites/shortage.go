package sites

import (
	"errors"
	"net/http"
	"syscall"
)

// shortage is panicked with when a file could not be looked for: whoever looks asks whether there is one, at a dozen
// places, and none of them may take "cannot be known now" for "no".
type shortage struct{ error }

// refuseShortage ends a request that met an error of the machine's, such as having no descriptor left.
func refuseShortage(err error) {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO} {
		if errors.Is(err, short) {
			panic(shortage{err})
		}
	}
}

// answerShortage is deferred by whoever answers. Nothing was written when a file is looked for.
func answerShortage(w http.ResponseWriter, r *http.Request) {
	switch met := recover().(type) {
	case nil:
	case shortage:
		own.Error("a request cannot be answered now", "site", r.Header.Get(siteHeader), "error", met.Error())
		clear(w.Header()) // what was said of the file
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Retry-After", retryIn)
		say(w, http.StatusServiceUnavailable, notNow)
	default:
		panic(met)
	}
}
