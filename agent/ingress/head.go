package ingress

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
)

// writeRequestHead writes the request line and headers for the app: what the client sent, in HTTP/1.1, without what only
// concerned the hop before. The framing headers are ours, from what net/http has understood the body to be, so that the
// app cannot understand it differently.
func writeRequestHead(w *bufio.Writer, r *http.Request, upgrade string) {
	w.WriteString(r.Method)
	w.WriteByte(' ')
	w.WriteString(requestTarget(r))
	w.WriteString(" HTTP/1.1\r\nHost: ")
	w.WriteString(r.Host)
	w.WriteString("\r\n")
	named := connectionNamed(r.Header)
	for name, values := range r.Header {
		if hopByHop(name) || name == "Content-Length" || contains(named, name) {
			continue
		}
		for _, v := range values {
			writeField(w, name, v)
		}
	}
	if acceptsTrailers(r.Header) {
		writeField(w, "Te", "trailers")
	}
	switch {
	case r.ContentLength > 0:
		w.WriteString("Content-Length: ")
		var digits [20]byte
		w.Write(strconv.AppendInt(digits[:0], r.ContentLength, 10))
		w.WriteString("\r\n")
	case r.ContentLength < 0:
		w.WriteString("Transfer-Encoding: chunked\r\n")
		for name := range r.Trailer {
			writeField(w, "Trailer", name)
		}
	case r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		w.WriteString("Content-Length: 0\r\n")
	}
	if upgrade != "" {
		writeField(w, "Connection", "Upgrade")
		writeField(w, "Upgrade", upgrade)
	}
	w.WriteString("\r\n")
}

func writeField(w *bufio.Writer, name, value string) {
	w.WriteString(name)
	w.WriteString(": ")
	w.WriteString(value)
	w.WriteString("\r\n")
}

// requestTarget is the target as the client wrote it where that is a path: an app may tell "%2F" from "/".
func requestTarget(r *http.Request) string {
	if t := r.RequestURI; t == "*" || strings.HasPrefix(t, "/") && plain(t) {
		return t
	}
	return r.URL.RequestURI()
}

// plain tells that s cannot end a field of the request line early. HTTP/2 lets a client put a space into a path.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// copyResponseHead copies the app's headers to the client. Where the app names no type, net/http would guess one, and so
// would the proxy before us, in the visitor's face: a style sheet that is called text/plain is not applied. An empty one is
// no type to a browser, and is guessed at by nobody on the way.
func copyResponseHead(dst http.Header, resp *http.Response) {
	named := connectionNamed(resp.Header)
	for name, values := range resp.Header {
		if !hopByHop(name) && !contains(named, name) {
			dst[name] = values
		}
	}
	if _, ok := dst["Content-Type"]; !ok {
		dst["Content-Type"] = nil
		if resp.ContentLength != 0 && resp.StatusCode >= 200 && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotModified {
			dst["Content-Type"] = []string{""}
		}
	}
	for name := range resp.Trailer {
		dst["Trailer"] = append(dst["Trailer"], name)
	}
}

func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// connectionNamed lists the headers that a Connection header declares to be hop-by-hop. The ordinary values name none.
func connectionNamed(h http.Header) (names []string) {
	for _, line := range h["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			switch token = strings.TrimSpace(token); strings.ToLower(token) {
			case "", "keep-alive", "close", "upgrade":
			default:
				names = append(names, http.CanonicalHeaderKey(token))
			}
		}
	}
	return names
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func acceptsTrailers(h http.Header) bool { return hasToken(h["Te"], "trailers") }

// upgradeProtocol is what an HTTP/1.1 request asks its connection to become, "" for an ordinary request. h2c is not passed
// on: it would carry requests past everything that stands before the app.
func upgradeProtocol(r *http.Request) string {
	values := r.Header["Upgrade"]
	if len(values) != 1 || r.ProtoMajor != 1 || r.ContentLength != 0 || !hasToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	if strings.Contains(strings.ToLower(values[0]), "h2c") {
		return ""
	}
	return values[0]
}

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
