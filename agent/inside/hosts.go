package inside

import (
	"os"
	"slices"
)

// nameHosts writes the names by which programs find this machine: many look up its own. Best effort: there is a file to
// write only where /etc/hosts leads to one.
func (a *agent) nameHosts(names ...string) {
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	text := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for i, name := range names {
		if name != "" && name != "localhost" && !slices.Contains(names[:i], name) {
			text += "127.0.0.1 " + name + "\n"
		}
	}
	_ = os.WriteFile(a.hosts, []byte(text), 0o644)
}
