// caddy is Caddy with the DNS providers by which it proves that a wildcard name is ours (ACME's DNS-01). A binary with
// others does as well: `caddy = "/path"` in vibed.toml.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
