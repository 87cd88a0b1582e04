package main

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/route53"
)

// Route53 sets records in Amazon's. Without keys it finds those of the machine or the pod it runs on.
type Route53 struct{ *route53.Provider }

func init() { caddy.RegisterModule(Route53{}) }

func (Route53) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns.providers.route53",
		New: func() caddy.Module { return &Route53{new(route53.Provider)} },
	}
}

func (p *Route53) fields() fields {
	return fields{
		"region": &p.Region, "profile": &p.Profile, "access_key_id": &p.AccessKeyId,
		"secret_access_key": &p.SecretAccessKey, "session_token": &p.SessionToken, "hosted_zone_id": &p.HostedZoneID,
	}
}

// Provision implements caddy.Provisioner.
func (p *Route53) Provision(caddy.Context) error {
	p.fields().resolve()
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (p *Route53) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return p.fields().read(d) }
