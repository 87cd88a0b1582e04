package registry

import (
	"encoding/json"
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

// distFile is one of its files, as PEP 691 and those after it have it: what we do not know stays.
type distFile map[string]json.RawMessage

func newFile(name, address string) distFile {
	f := distFile{}
	f.set("filename", name)
	f.set("url", address)
	f.set("hashes", map[string]string{})
	return f
}

func (f distFile) set(key string, value any) {
	raw, _ := json.Marshal(value)
	f[key] = raw
}

func (f distFile) text(key string) string {
	var s string
	_ = json.Unmarshal(f[key], &s)
	return s
}

func (f distFile) hash(key string) string {
	var hashes map[string]string
	_ = json.Unmarshal(f[key], &hashes)
	if value := strings.ToLower(hashes["sha256"]); digestForm.MatchString(value) {
		return value
	}
	return ""
}

// name is a segment of a path, escaped.
func (f distFile) name() string { return url.PathEscape(f.text("filename")) }

func (f distFile) metadataHash() string {
	if h := f.hash("core-metadata"); h != "" {
		return h
	}
	return f.hash("dist-info-metadata")
}

func (f distFile) given() given {
	return given{URL: f.text("url"), SHA256: f.hash("hashes"), Metadata: f.metadataHash()}
}

// add merges the page of another index. A file that is there already wins.
func (p *project) add(other *project) {
	have := map[string]bool{}
	for _, f := range p.Files {
		have[f.text("filename")] = true
	}
	for _, f := range other.Files {
		if !have[f.text("filename")] {
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
	to, err := at.Parse(f.text("url"))
	if err != nil || to.Scheme != "https" && to.Scheme != "http" {
		return
	}
	if fragment := to.Fragment; fragment != "" {
		to.Fragment, to.RawFragment = "", ""
		if algorithm, value, ok := strings.Cut(fragment, "="); ok && f.hash("hashes") == "" {
			value, _, _ = strings.Cut(value, "&")
			f.set("hashes", map[string]string{algorithm: value})
		}
	}
	name := f.text("filename")
	if name == "" {
		name = path.Base(to.Path)
	}
	if name == "." || name == "/" || strings.ContainsAny(name, "/\\\n\r\x00") {
		return
	}
	f.set("filename", name)
	f.set("url", to.String())
	p.Files = append(p.Files, f)
}

func fromJSON(body []byte, at *url.URL) (*project, error) {
	var said struct {
		Versions []string   `json:"versions"`
		Files    []distFile `json:"files"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, err
	}
	p := &project{Versions: said.Versions}
	for _, f := range said.Files {
		if f != nil {
			p.keep(f, at)
		}
	}
	return p, nil
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
		f := newFile(strings.TrimSpace(html.UnescapeString(anyTag.ReplaceAllString(link[2], ""))), values["href"])
		if !strings.Contains(f.text("filename"), ".") {
			f.set("filename", "")
		}
		if needs, ok := values["data-requires-python"]; ok {
			f.set("requires-python", needs)
		}
		if why, ok := values["data-yanked"]; ok {
			if f.set("yanked", why); why == "" {
				f.set("yanked", true)
			}
		}
		for html, json := range map[string]string{"data-core-metadata": "core-metadata", "data-dist-info-metadata": "dist-info-metadata"} {
			if value, ok := values[html]; ok {
				f.set(json, true)
				if algorithm, digest, ok := strings.Cut(value, "="); ok {
					f.set(json, map[string]string{algorithm: digest})
				}
			}
		}
		p.keep(f, at)
	}
	return p
}

func (p *project) writeJSON(w io.Writer) error {
	said := map[string]any{"meta": map[string]string{"api-version": "1.1"}, "name": p.Name, "files": p.Files}
	if p.Files == nil {
		said["files"] = []distFile{}
	}
	if p.Versions != nil {
		said["versions"] = p.Versions
	} else {
		said["meta"] = map[string]string{"api-version": "1.0"} // from 1.1 on, versions are part of it
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(said) // the client has gone
	return nil
}

func (p *project) writeHTML(w io.Writer) error {
	_, _ = fmt.Fprintf(w, "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>%s</title></head><body>\n", p.Name)
	for _, f := range p.Files {
		address := f.text("url")
		var hashes map[string]string
		_ = json.Unmarshal(f["hashes"], &hashes)
		for _, algorithm := range []string{"sha256", "sha512", "sha384", "md5"} {
			if value := hashes[algorithm]; value != "" {
				address += "#" + algorithm + "=" + value
				break
			}
		}
		attributes := ""
		if needs := f.text("requires-python"); needs != "" {
			attributes += fmt.Sprintf(` data-requires-python="%s"`, html.EscapeString(needs))
		}
		if yanked := string(f["yanked"]); yanked != "" && yanked != "false" && yanked != "null" {
			attributes += fmt.Sprintf(` data-yanked="%s"`, html.EscapeString(f.text("yanked")))
		}
		if digest := f.metadataHash(); digest != "" {
			attributes += fmt.Sprintf(` data-core-metadata="sha256=%s" data-dist-info-metadata="sha256=%s"`, digest, digest)
		}
		_, _ = fmt.Fprintf(w, "<a href=\"%s\"%s>%s</a><br>\n", html.EscapeString(address), attributes, html.EscapeString(f.text("filename")))
	}
	_, _ = io.WriteString(w, "</body></html>\n")
	return nil
}
