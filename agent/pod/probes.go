package pod

import (
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"vibed.dev/agent/supervise"
)

// serveProbes answers the kubelet: alive as long as it answers, ready from when the sandbox can be claimed until its run
// has ended. Whether the app serves is not for the pod to say: a claim is Ready before it has one.
func serveProbes(l net.Listener, owned *supervise.Owned) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !owned.Serves() {
			http.Error(w, "it cannot be claimed yet, or not any more", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	server := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server.SetKeepAlivesEnabled(false)
	if err := server.Serve(l); err != nil {
		log.Printf("probes: %v", err)
	}
}
