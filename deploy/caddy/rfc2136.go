package main

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/rfc2136"
)

// RFC2136 sets records by dynamic updates that are signed with a TSIG key: BIND, Knot, PowerDNS and most others.
type RFC2136 struct{ *rfc2136.Provider }

func init() { caddy.RegisterModule(RFC2136{}) }

func (RFC2136) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns.providers.rfc2136",
		New: func() caddy.Module { return &RFC2136{new(rfc2136.Provider)} },
	}
}

func (p *RFC2136) fields() fields {
	return fields{"key_name": &p.KeyName, "key_alg": &p.KeyAlg, "key": &p.Key, "server": &p.Server}
}

// Provision implements caddy.Provisioner.
func (p *RFC2136) Provision(caddy.Context) error {
	p.fields().resolve()
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (p *RFC2136) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return p.fields().read(d) }
