package main

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/cloudflare"
)

// Cloudflare sets records in Cloudflare's. The module of Caddy's project writes a token that it takes for malformed
// into the log; this one leaves it to Cloudflare to refuse it.
type Cloudflare struct{ *cloudflare.Provider }

func init() { caddy.RegisterModule(Cloudflare{}) }

func (Cloudflare) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns.providers.cloudflare",
		New: func() caddy.Module { return &Cloudflare{new(cloudflare.Provider)} },
	}
}

func (p *Cloudflare) fields() fields {
	return fields{"api_token": &p.APIToken, "zone_token": &p.ZoneToken}
}

// Provision implements caddy.Provisioner.
func (p *Cloudflare) Provision(caddy.Context) error {
	p.fields().resolve()
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (p *Cloudflare) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return p.fields().read(d) }
