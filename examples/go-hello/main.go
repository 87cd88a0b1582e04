// A guest list: net/http, html/template and embed, nothing from outside.
package main

import (
	"embed"
	"encoding/json"
	"html/template"
	"io/fs"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
)

//go:embed templates/*.html
var pages embed.FS

//go:embed static
var files embed.FS

type guestList struct {
	mu     sync.RWMutex
	guests []string
}

func (l *guestList) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guests = append(l.guests, name)
}

func (l *guestList) all() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return append([]string{}, l.guests...)
}

func main() {
	list := &guestList{guests: []string{"Rob", "Ken"}}
	views := template.Must(template.ParseFS(pages, "templates/*.html"))
	static, err := fs.Sub(files, "static")
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if err := views.ExecuteTemplate(w, "index.html", map[string]any{"Guests": list.all(), "Host": r.Host}); err != nil {
			log.Print(err)
		}
	})
	mux.HandleFunc("POST /guests", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSpace(r.FormValue("name"))
		if name == "" || len(name) > 80 {
			http.Error(w, "a name, please", http.StatusBadRequest)
			return
		}
		list.add(name)
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /api/guests", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(list.all()); err != nil {
			log.Print(err)
		}
	})

	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	log.Printf("guest list on port %s", port)
	log.Fatal(http.ListenAndServe(":"+port, mux))
}
