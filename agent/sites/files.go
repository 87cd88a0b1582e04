package sites

import (
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// files are those of one site, as paths find them.
type files struct {
	root    *os.Root
	config  Config
	encoded []string
}

var encodings = []struct{ name, extension string }{{"br", ".br"}, {"gzip", ".gz"}}

// is says whether there is a file that may be shown at a clean path.
func (f files) is(name string) bool {
	if len(name) > longestPath || hidden(name) {
		return false
	}
	info, err := f.root.Stat(strings.TrimPrefix(name, "/"))
	refuseShortage(err)
	return err == nil && info.Mode().IsRegular()
}

func hidden(name string) bool {
	return strings.Contains(name, "/.") && !strings.HasPrefix(name, "/.well-known/")
}

// resolve finds the file that a path means, or the path that it should have been.
func (f files) resolve(asked string) (name, to string) {
	if bare, ok := strings.CutSuffix(asked, "/"); ok {
		if name := asked + "index.html"; f.is(name) {
			return name, ""
		}
		if bare != "" && (f.is(bare) || f.is(bare+".html")) {
			return "", bare
		}
		return "", ""
	}
	if f.is(asked) {
		return asked, ""
	}
	if f.is(asked + ".html") {
		return asked + ".html", ""
	}
	if f.is(asked + "/index.html") {
		return "", asked + "/"
	}
	return "", ""
}

// page finds the file that a rule names, with or without its extension or slash.
func (f files) page(target string) string {
	for _, name := range []string{target, target + ".html", path.Join(target, "index.html")} {
		if f.is(name) {
			return name
		}
	}
	return ""
}

// send answers with a file; `dress` adds what the site's rules say, when everything else is said.
func (f files) send(w http.ResponseWriter, r *http.Request, name string, status int, dress func()) {
	header := w.Header()
	stored, kind := name, name
	if encoding, inner := f.encodedAs(name); encoding != "" {
		header.Set("Content-Encoding", encoding)
		kind = inner
	} else if encoding, extension := f.negotiated(w, r, name); encoding != "" {
		header.Set("Content-Encoding", encoding)
		stored = name + extension
	}
	file, err := f.root.Open(strings.TrimPrefix(stored, "/"))
	refuseShortage(err)
	if err != nil {
		say(w, http.StatusNotFound, noSuch)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		say(w, http.StatusNotFound, noSuch)
		return
	}
	header.Set("Content-Type", f.typeOf(kind))
	if status == http.StatusOK {
		header.Set("ETag", etag(info, stored != name))
		dress()
		// with a modification time, a range and a condition, as they are asked for
		http.ServeContent(w, r, name, info.ModTime(), file)
		return
	}
	header.Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	dress()
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		io.Copy(w, file)
	}
}

// encodedAs is the encoding of a file that pages ask for by its compressed name, as Unity's loader does, and the name of
// what is inside: both are said, so that the browser unpacks it. Elsewhere such a file is data.
func (f files) encodedAs(name string) (encoding, inner string) {
	extension := path.Ext(name)
	if extension == ".svgz" {
		return "gzip", name
	}
	for _, known := range encodings {
		if extension == known.extension && slices.Contains(f.encoded, path.Dir(name)) {
			return known.name, strings.TrimSuffix(name, extension)
		}
	}
	return "", ""
}

// negotiated chooses a file that lies compressed beside the one asked for, where the client takes it.
func (f files) negotiated(w http.ResponseWriter, r *http.Request, name string) (encoding, extension string) {
	for _, known := range encodings {
		if !f.is(name + known.extension) {
			continue
		}
		w.Header().Set("Vary", "Accept-Encoding")
		if encoding == "" && accepts(r.Header.Values("Accept-Encoding"), known.name) {
			encoding, extension = known.name, known.extension
		}
	}
	return encoding, extension
}

func accepts(values []string, encoding string) bool {
	named, any := false, false
	for value := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, parameters, _ := strings.Cut(value, ";")
		quality := 1.0
		if _, q, ok := strings.Cut(strings.ReplaceAll(parameters, " ", ""), "q="); ok {
			quality, _ = strconv.ParseFloat(q, 64)
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case encoding:
			return quality > 0
		case "*":
			named, any = true, quality > 0
		}
	}
	return named && any
}

func (f files) typeOf(name string) string {
	extension := strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))
	if kind, ok := f.config.Types[extension]; ok {
		return kind
	}
	return f.config.Unknown
}

func etag(info os.FileInfo, encoded bool) string {
	// in nanoseconds: two versions may have a file of one size within a second
	text := strconv.FormatInt(info.ModTime().UnixNano(), 36) + strconv.FormatInt(info.Size(), 36)
	if encoded {
		text += "-encoded"
	}
	return `"` + text + `"`
}
