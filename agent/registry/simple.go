package registry

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// project is a page of a simple index.
type project struct {
	Name     string
	Versions []string
	Files    []distFile
}

// distFile is one of its files: the object that PEP 691 and those after it describe, and what we need of it.
type distFile struct {
	raw      []byte
	name     string
	url      string
	sha256   string // empty where it is not known
	metadata string // sha256 of its metadata
}

// fileSaid are members of such an object.
type fileSaid struct {
	Name     string            `json:"filename"`
	URL      string            `json:"url"`
	Hashes   map[string]string `json:"hashes"`
	Python   *string           `json:"requires-python,omitempty"`
	Yanked   any               `json:"yanked,omitempty"`
	Core     any               `json:"core-metadata,omitempty"`
	DistInfo any               `json:"dist-info-metadata,omitempty"`
}

// readFile takes an object apart.
func readFile(raw []byte) (distFile, error) {
	f := distFile{raw: raw}
	var core, distInfo string
	err := members(raw, span{0, len(raw)}, func(key []byte, value span) {
		switch string(key) {
		case "filename":
			f.name = text(value.of(raw))
		case "url":
			f.url = text(value.of(raw))
		case "hashes":
			f.sha256 = sha256In(raw, value)
		case "core-metadata":
			core = sha256In(raw, value)
		case "dist-info-metadata":
			distInfo = sha256In(raw, value)
		}
	})
	if f.metadata = core; core == "" {
		f.metadata = distInfo
	}
	return f, err
}

// sha256In is that digest of an object of digests; there is none where it is a boolean.
func sha256In(raw []byte, at span) (found string) {
	_ = members(raw, at, func(key []byte, value span) {
		if digest := strings.ToLower(text(value.of(raw))); string(key) == "sha256" && digestForm.MatchString(digest) {
			found = digest
		}
	})
	return found
}

func newFile(said fileSaid) distFile {
	if said.Hashes == nil {
		said.Hashes = map[string]string{}
	}
	raw, _ := json.Marshal(said)
	f, _ := readFile(raw)
	return f
}

// movedTo is the object with another address.
func (f distFile) movedTo(address string) []byte {
	var at span
	_ = members(f.raw, span{0, len(f.raw)}, func(key []byte, value span) {
		if string(key) == "url" {
			at = value
		}
	})
	return edited(f.raw, []edit{{at, address}})
}

func (f distFile) given() given {
	return given{URL: f.url, SHA256: f.sha256, Metadata: f.metadata}
}

// add merges the page of another index. A file that is there already wins.
func (p *project) add(other *project) {
	have := map[string]bool{}
	for _, f := range p.Files {
		have[f.name] = true
	}
	for _, f := range other.Files {
		if !have[f.name] {
			p.Files = append(p.Files, f)
		}
	}
	for _, v := range other.Versions {
		if !slices.Contains(p.Versions, v) {
			p.Versions = append(p.Versions, v)
		}
	}
}

// keep adds a file whose address and name can be used.
func (p *project) keep(f distFile, at *url.URL) {
	to, err := at.Parse(f.url)
	if err != nil || to.Scheme != "https" && to.Scheme != "http" {
		return
	}
	name := f.name
	if name == "" {
		name = path.Base(to.Path)
	}
	if name == "." || name == "/" || strings.ContainsAny(name, "/\\\n\r\x00") {
		return
	}
	algorithm, digest, hashed := strings.Cut(to.Fragment, "=")
	to.Fragment, to.RawFragment = "", ""
	if hashed = hashed && f.sha256 == ""; hashed || f.name == "" {
		var said fileSaid
		_ = json.Unmarshal(f.raw, &said)
		if said.Name = name; hashed {
			digest, _, _ = strings.Cut(digest, "&")
			said.Hashes = map[string]string{algorithm: digest}
		}
		f = newFile(said)
	}
	f.url = to.String()
	p.Files = append(p.Files, f)
}

func fromJSON(body []byte, at *url.URL) (*project, error) {
	p := &project{}
	var inner error
	err := members(body, span{0, len(body)}, func(key []byte, value span) {
		switch string(key) {
		case "versions":
			_ = json.Unmarshal(value.of(body), &p.Versions)
		case "files":
			inner = elements(body, value, func(one span) {
				if f, err := readFile(one.of(body)); err == nil {
					p.keep(f, at)
				}
			})
		}
	})
	return p, errors.Join(err, inner)
}

var (
	anchor    = regexp.MustCompile(`(?is)<a\s((?:[^>"']|"[^"]*"|'[^']*')*)>(.*?)</a\s*>`)
	attribute = regexp.MustCompile(`(?s)([A-Za-z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?`)
	baseTag   = regexp.MustCompile(`(?is)<base\s[^>]*?href\s*=\s*["']([^"']*)["']`)
	anyTag    = regexp.MustCompile(`<[^>]*>`)
)

func fromHTML(body []byte, at *url.URL) *project {
	text := string(body)
	if m := baseTag.FindStringSubmatch(text); m != nil {
		if base, err := at.Parse(html.UnescapeString(m[1])); err == nil {
			at = base
		}
	}
	p := &project{}
	for _, link := range anchor.FindAllStringSubmatch(text, -1) {
		values := map[string]string{}
		for _, a := range attribute.FindAllStringSubmatch(link[1], -1) {
			values[strings.ToLower(a[1])] = html.UnescapeString(a[2] + a[3] + a[4])
		}
		if values["href"] == "" {
			continue
		}
		said := fileSaid{Name: strings.TrimSpace(html.UnescapeString(anyTag.ReplaceAllString(link[2], ""))), URL: values["href"]}
		if !strings.Contains(said.Name, ".") {
			said.Name = ""
		}
		if needs, ok := values["data-requires-python"]; ok {
			said.Python = &needs
		}
		if why, ok := values["data-yanked"]; ok {
			if said.Yanked = why; why == "" {
				said.Yanked = true
			}
		}
		said.Core, said.DistInfo = digests(values, "data-core-metadata"), digests(values, "data-dist-info-metadata")
		p.keep(newFile(said), at)
	}
	return p
}

// digests is an attribute such as "sha256=…" or "true", as JSON has it; nil where there is none.
func digests(values map[string]string, name string) any {
	value, ok := values[name]
	if !ok {
		return nil
	}
	if algorithm, digest, ok := strings.Cut(value, "="); ok {
		return map[string]string{algorithm: digest}
	}
	return true
}

// writeJSON gives the page; address says where a file is.
func (p *project) writeJSON(w io.Writer, address func(distFile) string) {
	out := bufio.NewWriterSize(w, 64<<10)
	version, versions := "1.0", []byte("null")
	if p.Versions != nil {
		version = "1.1" // from which on they are part of it
		versions, _ = json.Marshal(p.Versions)
	}
	_, _ = fmt.Fprintf(out, `{"meta":{"api-version":%q},"name":%q,`, version, p.Name)
	if p.Versions != nil {
		_, _ = fmt.Fprintf(out, `"versions":%s,`, versions)
	}
	_, _ = out.WriteString(`"files":[`)
	for i, f := range p.Files {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		_, _ = out.Write(f.movedTo(address(f)))
	}
	_, _ = out.WriteString("]}\n")
	_ = out.Flush() // if it fails, the client has gone
}

func (p *project) writeHTML(w io.Writer, address func(distFile) string) {
	out := bufio.NewWriterSize(w, 64<<10)
	_, _ = fmt.Fprintf(out, "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>%s</title></head><body>\n", p.Name)
	for _, f := range p.Files {
		var said fileSaid
		_ = json.Unmarshal(f.raw, &said)
		at := address(f)
		for _, algorithm := range []string{"sha256", "sha512", "sha384", "md5"} {
			if digest := said.Hashes[algorithm]; digest != "" {
				at += "#" + algorithm + "=" + digest
				break
			}
		}
		attributes := ""
		if said.Python != nil && *said.Python != "" {
			attributes += fmt.Sprintf(` data-requires-python="%s"`, html.EscapeString(*said.Python))
		}
		if why, ok := said.Yanked.(string); ok || said.Yanked == true {
			attributes += fmt.Sprintf(` data-yanked="%s"`, html.EscapeString(why))
		}
		if f.metadata != "" {
			attributes += fmt.Sprintf(` data-core-metadata="sha256=%s" data-dist-info-metadata="sha256=%s"`, f.metadata, f.metadata)
		}
		_, _ = fmt.Fprintf(out, "<a href=\"%s\"%s>%s</a><br>\n", html.EscapeString(at), attributes, html.EscapeString(f.name))
	}
	_, _ = out.WriteString("</body></html>\n")
	_ = out.Flush()
}
