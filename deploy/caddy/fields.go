package main

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// fields are a provider's settings by their names in a Caddyfile's block, which are those of its JSON.
type fields map[string]*string

// read sets them from the tokens of a block; d stands before the provider's name.
func (f fields) read(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		field, known := f[d.Val()]
		if !known {
			return d.Errf("unrecognized subdirective '%s'", d.Val())
		}
		if !d.AllArgs(field) {
			return d.ArgErr()
		}
	}
	return nil
}

// resolve replaces placeholders, so that what is secret can stay in a file of its own: {file./path}.
func (f fields) resolve() {
	replacer := caddy.NewReplacer()
	for _, field := range f {
		*field = replacer.ReplaceAll(*field, "")
	}
}
