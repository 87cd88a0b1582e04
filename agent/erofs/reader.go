package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// ErrFormat says that something is no image of this package's own making.
var ErrFormat = errors.New("no image that vibeD made")

// Reader finds the files of an image that a Writer wrote. What else the format knows it refuses.
type Reader struct {
	image       io.ReaderAt
	size        int64
	inodes      int64
	directories map[string]map[string]uint64
}

// NewReader reads the superblock of an image of so many bytes.
func NewReader(image io.ReaderAt, size int64) (*Reader, error) {
	s := make([]byte, superblockBytes)
	if _, err := image.ReadAt(s, superblockAt); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	e := binary.LittleEndian
	if e.Uint32(s) != magic || s[12] != blockBits || e.Uint32(s[80:]) != 0 {
		return nil, ErrFormat
	}
	r := &Reader{image: image, size: size, inodes: int64(e.Uint32(s[40:])) * BlockSize}
	root, err := r.entries(uint64(e.Uint16(s[14:])))
	r.directories = map[string]map[string]uint64{"": root}
	return r, err
}

// Open returns the content of a regular file, and whether it is a program. Links are not followed.
func (r *Reader) Open(name string) (*io.SectionReader, bool, error) {
	above, err := r.directory(dir(name))
	if err != nil {
		return nil, false, err
	}
	number, ok := above[path.Base(name)]
	if !ok {
		return nil, false, fmt.Errorf("%q: %w", name, ErrNotThere)
	}
	mode, content, err := r.inode(number)
	if err != nil {
		return nil, false, err
	}
	if mode != formatFile && mode != formatProgram {
		return nil, false, fmt.Errorf("%q: %w", name, ErrNotThere)
	}
	return content, mode == formatProgram, nil
}

func (r *Reader) directory(name string) (map[string]uint64, error) {
	if found, ok := r.directories[name]; ok {
		return found, nil
	}
	above, err := r.directory(dir(name))
	if err != nil {
		return nil, err
	}
	number, ok := above[path.Base(name)]
	if !ok {
		return nil, fmt.Errorf("%q: %w", name, ErrNotThere)
	}
	found, err := r.entries(number)
	r.directories[name] = found
	return found, err
}

func (r *Reader) inode(number uint64) (mode uint16, content *io.SectionReader, err error) {
	raw := make([]byte, inodeBytes)
	at := r.inodes + int64(number)*inodeBytes
	if number > uint64(r.size) || at+inodeBytes > r.size {
		return 0, nil, ErrFormat
	}
	if _, err := r.image.ReadAt(raw, at); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	e := binary.LittleEndian
	size, begins := int64(e.Uint32(raw[8:])), int64(e.Uint32(raw[16:]))*BlockSize
	if e.Uint16(raw) != 0 || (size > 0 && begins+size > r.size) {
		return 0, nil, ErrFormat
	}
	return e.Uint16(raw[4:]), io.NewSectionReader(r.image, begins, size), nil
}

func (r *Reader) entries(number uint64) (map[string]uint64, error) {
	mode, content, err := r.inode(number)
	if err != nil {
		return nil, err
	}
	if mode != formatDirectory {
		return nil, ErrNotDirectory
	}
	data, err := io.ReadAll(content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	found := map[string]uint64{}
	e := binary.LittleEndian
	for len(data) > 0 {
		block := data[:min(len(data), BlockSize)]
		data = data[len(block):]
		if len(block) < direntBytes {
			return nil, ErrFormat
		}
		names := int(e.Uint16(block[8:]))
		for at := 0; at < names; at += direntBytes {
			if names > len(block) || at+direntBytes > names {
				return nil, ErrFormat
			}
			begins, ends := int(e.Uint16(block[at+8:])), len(block)
			if at+2*direntBytes <= names {
				ends = int(e.Uint16(block[at+direntBytes+8:]))
			}
			if begins > ends || ends > len(block) {
				return nil, ErrFormat
			}
			name, _, _ := strings.Cut(string(block[begins:ends]), "\x00")
			found[name] = e.Uint64(block[at:])
		}
	}
	delete(found, ".")
	delete(found, "..")
	return found, nil
}

// dir is the directory above a name, "" for the root.
func dir(name string) string {
	if above := path.Dir(name); above != "." {
		return above
	}
	return ""
}
