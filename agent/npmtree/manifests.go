package npmtree

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
)

// Said is what a package says of how it is installed, which locks of npm 6 do not have.
type Said struct {
	// Manifest is its package.json, as far as that matters here; nil where there is none that can be read.
	Manifest map[string]json.RawMessage `json:"manifest"`
	// Scripts says that it has some that an installation runs.
	Scripts bool `json:"scripts"`
	// Shrinkwrap says that it brings a lock of its own.
	Shrinkwrap bool `json:"shrinkwrap"`
	// Programs are the files below the folder that its package.json names for commands.
	Programs []string `json:"programs"`
}

var manifestKeys = []string{"name", "version", "dependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta",
	"bundleDependencies", "bundledDependencies", "engines", "os", "cpu", "libc", "bin", "funding", "license"}

// saidMax is for what all packages say together.
const saidMax = 48 << 20

// Manifests fetches packages and returns what each says, by its folder. Those that no registry has, or no tarball brings
// along, say nothing: it may be that nobody wants them.
func Manifests(ctx context.Context, o Orders, s *source, most Bounds) (map[string]*Said, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &reader{said: map[string]*Said{}, brought: map[string]bool{}, files: most.Files, kept: saidMax}
	r.unpacked.Store(most.Bytes)
	for _, p := range o.Packages {
		r.said[p.At] = &Said{}
		r.brought[p.At] = p.From == ""
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	for i, got := range s.all(ctx, o.Packages, most.Bytes) {
		if got == nil {
			continue
		}
		one := <-got
		if errors.Is(one.err, errAbsent) {
			continue
		}
		if one.err == nil {
			one.err = r.read(o.Packages[i].At, one.file)
			_ = one.file.Close()
		}
		if one.err != nil {
			return nil, fmt.Errorf("%s: %w", o.Packages[i].At, one.err)
		}
	}
	return r.said, nil
}

type reader struct {
	said     map[string]*Said
	brought  map[string]bool
	files    int
	unpacked atomic.Int64
	kept     int64
}

// read hears what one tarball says, of its own package and of those that it brings along.
func (r *reader) read(at string, tarball io.Reader) error {
	var names []string
	addons, folders := map[string]bool{}, map[string]string{}
	err := members(tarball, func(m member) error {
		if r.files--; r.files < 0 {
			return errLarge
		}
		name := path.Join(at, m.name)
		names = append(names, name)
		content := within{m.content, &r.unpacked}
		folder, base := path.Split(name)
		folder = strings.TrimSuffix(folder, "/")
		said := r.said[folder]
		if said == nil || folder != at && !r.brought[folder] {
			_, err := io.Copy(io.Discard, content)
			return err
		}
		switch base {
		case "binding.gyp":
			addons[folder] = true
		case "npm-shrinkwrap.json":
			said.Shrinkwrap = true
		case "package.json":
			var text beginning
			if _, err := io.Copy(&text, content); err != nil {
				return err
			}
			folders[folder] = said.hear(text)
			for _, value := range said.Manifest {
				if r.kept -= int64(len(value)); r.kept < 0 {
					return errLarge
				}
			}
			return nil
		}
		_, err := io.Copy(io.Discard, content)
		return err
	})
	if err != nil {
		return err
	}
	for folder := range addons {
		r.said[folder].Scripts = true
	}
	for folder, commands := range folders {
		if commands == "" {
			continue
		}
		below := path.Join(folder, path.Join("/", commands)) + "/"
		for _, name := range names {
			if strings.HasPrefix(name, below) {
				r.said[folder].Programs = append(r.said[folder].Programs, strings.TrimPrefix(name, folder+"/"))
			}
		}
	}
	return nil
}

// hear takes in a package.json, and returns the folder that it names for commands.
func (s *Said) hear(text []byte) string {
	*s = Said{Shrinkwrap: s.Shrinkwrap}
	var all map[string]json.RawMessage
	if json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &all) != nil || all == nil {
		return ""
	}
	s.Manifest = map[string]json.RawMessage{}
	for _, key := range manifestKeys {
		if value, there := all[key]; there {
			s.Manifest[key] = value
		}
	}
	s.Scripts = scripted(text)
	var where struct {
		Bin string `json:"bin"`
	}
	if all["bin"] != nil || json.Unmarshal(all["directories"], &where) != nil {
		return ""
	}
	return where.Bin
}
