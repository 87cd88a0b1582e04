package npmtree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"vibed.dev/agent/erofs"
	"vibed.dev/agent/launch"
)

const usage = "usage: vibed-agent npmtree [--manifests] FILE ORDERS SOCKET --max-bytes N --max-files N"

// made is what is told of an image.
type made struct {
	// Scripts are the folders of packages that have install scripts.
	Scripts []string `json:"scripts"`
}

// Main is the mode "npmtree": of orders (a file with JSON) it writes an EROFS image into FILE, which must not be there, with
// tarballs from the gate at SOCKET, and on standard output what is told of it. With --manifests it writes what the packages
// say instead (JSON: their folders, and a Said of each). Exit codes of its own: 122 where it is too large or the disk is
// full, 123 for whatever else npm has to do instead.
func Main(args []string) int {
	asked := len(args) > 0 && args[0] == "--manifests"
	if asked {
		args = args[1:]
	}
	if len(args) != 7 || args[3] != "--max-bytes" || args[5] != "--max-files" {
		return fail(launch.Failed, usage)
	}
	var o Orders
	bytes, err := strconv.ParseInt(args[4], 10, 64)
	files, failed := strconv.Atoi(args[6])
	if err = errors.Join(err, failed); err != nil {
		return fail(launch.Failed, err)
	}
	text, err := os.ReadFile(args[1])
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		return fail(launch.Failed, err)
	}
	out, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fail(launch.Failed, err)
	}
	s := newSource(args[2], filepath.Dir(args[0]))
	if asked {
		err = manifests(o, s, out, Bounds{bytes, files})
	} else {
		err = image(o, s, out, Bounds{bytes, files})
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fail(122, "no space left")
	case errors.Is(err, errLarge):
		return fail(122, err)
	}
	return fail(123, err)
}

func image(o Orders, s *source, out *os.File, most Bounds) error {
	scripts, err := Make(context.Background(), o, s, out, erofs.LayerUUID, most)
	if err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(made{scripts})
}

func manifests(o Orders, s *source, out *os.File, most Bounds) error {
	said, err := Manifests(context.Background(), o, s, most)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(said); err != nil {
		return err
	}
	return out.Close()
}

func fail(code int, err any) int {
	fmt.Fprintf(os.Stderr, "vibed-agent npmtree: %v\n", err)
	return code
}
