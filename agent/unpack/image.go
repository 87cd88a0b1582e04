package unpack

import (
	"errors"
	"io"
	"time"

	"vibed.dev/agent/erofs"
)

// image is an EROFS image that an archive becomes. It has no times.
type image struct{ *erofs.Writer }

func (i image) directory(name string) error { return notTaken(i.Directory(name)) }

func (i image) file(name string, content io.Reader, executable bool, _ time.Time) error {
	return notTaken(i.File(name, content, executable))
}

func (i image) symlink(name, target string) error { return notTaken(i.Link(name, target)) }

// hardlink shares: nothing in an image changes.
func (i image) hardlink(name, earlier string, _ func(io.Reader) io.Reader) error {
	return notTaken(i.Again(name, earlier))
}

func notTaken(err error) error {
	if errors.Is(err, erofs.ErrExists) || errors.Is(err, erofs.ErrNotDirectory) {
		return refuse("%v", err)
	}
	return err
}
