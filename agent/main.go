// Command vibed-agent is vibeD's one static binary beside Python: supervisor of a sandbox, agent inside it,
// the launcher that confines a process, the unpacker of sources, the maker of images (npmtree: of node_modules), and the server of sites with rules.
// docs/reference/supervisor.md is its contract.
package main

import (
	"fmt"
	"os"

	"vibed.dev/agent/confine"
	"vibed.dev/agent/gobuild"
	"vibed.dev/agent/inside"
	"vibed.dev/agent/npmtree"
	"vibed.dev/agent/pod"
	"vibed.dev/agent/registry"
	"vibed.dev/agent/sites"
	"vibed.dev/agent/supervise"
	"vibed.dev/agent/unpack"
)

// Version is set at build time to the release that the binary belongs to.
var Version = "dev"

var modes = map[string]func(args []string) int{
	"agent":     inside.Main,
	"confine":   confine.Main,
	"gobuild":   gobuild.Main,
	"image":     unpack.ImageMain,
	"npmtree":   npmtree.Main,
	"pod":       pod.Main,
	"registry":  registry.Main,
	"site":      sites.OneMain,
	"sites":     sites.Main,
	"supervise": supervise.Main,
	"unpack":    unpack.Main,
	"version":   func([]string) int { fmt.Println(Version); return 0 },
}

func main() {
	if len(os.Args) > 1 {
		if mode, ok := modes[os.Args[1]]; ok {
			os.Exit(mode(os.Args[2:]))
		}
	}
	fmt.Fprintln(os.Stderr, "usage: vibed-agent agent|confine|gobuild|image|npmtree|pod|registry|site|sites|supervise|unpack|version …  (docs/reference/supervisor.md)")
	os.Exit(2)
}
