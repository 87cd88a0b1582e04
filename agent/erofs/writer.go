// Package erofs writes EROFS images, uncompressed, in one pass over what is in them, and finds files in those it wrote.
//
// The format is the kernel's (fs/erofs/erofs_fs.h; Documentation/filesystems/erofs.rst). Blocks have 4096 bytes. Block 0
// holds the superblock, then come the contents in the order in which they were written, then directories and targets of
// links, and last the inodes: 32 bytes each, an inode's number being its place among them. All data lies in blocks of its
// own (FLAT_PLAIN): gVisor cannot map files whose tail lies in their inode. Everything belongs to root, at time 0.
package erofs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"
	"syscall"
)

const (
	// BlockSize is the size of a block in bytes.
	BlockSize = 4096

	blockBits       = 12
	superblockAt    = 1024
	superblockBytes = 128
	magic           = 0xE0F5E1E2
	inodeBytes      = 32
	direntBytes     = 12
	maxName         = 255
	maxFileBytes    = math.MaxUint32
	rootNumber      = 1 // readdir(3) leaves out entries whose inode number is 0
)

const (
	formatDirectory = 0o040755
	formatFile      = 0o100644
	formatProgram   = 0o100755
	formatLink      = 0o120777

	typeFile      = 1
	typeDirectory = 2
	typeLink      = 7
)

// LayerUUID marks the layers that vibeD writes: it is fixed, so that the same content is the same image.
var LayerUUID = [16]byte{'v', 'i', 'b', 'e', 'D', 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 2}

var (
	// ErrExists: the name is there already.
	ErrExists = errors.New("the name occurs twice")
	// ErrNotDirectory: something above the name is no directory.
	ErrNotDirectory = errors.New("is a link or a file, not a directory")
	// ErrNotThere: what is to get another name is no earlier file.
	ErrNotThere = errors.New("no such earlier file")
)

// Writer writes one image. Names are slash-separated paths without a leading slash or dots; "" is the root.
type Writer struct {
	out      io.WriteSeeker
	buffered *bufio.Writer
	blocks   uint32 // that are written, or begun and to be padded
	nodes    map[string]*node
	uuid     [16]byte
	buf      []byte
}

// node is what a name leads to; several names of one file share it.
type node struct {
	mode     uint16
	links    uint16
	number   uint32
	size     uint32
	block    uint32
	target   string
	parent   *node // the last one, of a file with several names
	children map[string]*node
}

// NewWriter begins an image with a directory at its root. The image is deterministic: what is written in the same order
// under the same uuid gives the same bytes.
func NewWriter(out io.WriteSeeker, uuid [16]byte) (*Writer, error) {
	w := &Writer{out: out, buffered: bufio.NewWriterSize(out, 1<<20), uuid: uuid, buf: make([]byte, 128<<10)}
	root := &node{mode: formatDirectory, children: map[string]*node{}}
	root.parent = root
	w.nodes = map[string]*node{"": root}
	_, err := w.buffered.Write(make([]byte, BlockSize))
	w.blocks = 1
	return w, err
}

// Directory makes a directory, and those above it. One that is there already stays.
func (w *Writer) Directory(name string) error {
	_, err := w.directory(name)
	return err
}

// File writes a file from all of content; executable decides between the modes 0755 and 0644. What content fails with is
// returned as it is.
func (w *Writer) File(name string, content io.Reader, executable bool) error {
	mode := uint16(formatFile)
	if executable {
		mode = formatProgram
	}
	n := &node{mode: mode, block: w.blocks}
	if err := w.place(name, n); err != nil {
		return err
	}
	size, err := w.data(content)
	n.size = size
	return err
}

// Link makes a symbolic link.
func (w *Writer) Link(name, target string) error {
	if target == "" || len(target) > BlockSize-1 {
		return fmt.Errorf("a link's target has %d bytes", len(target))
	}
	return w.place(name, &node{mode: formatLink, target: target, size: uint32(len(target))})
}

// Again gives an earlier file another name.
func (w *Writer) Again(name, earlier string) error {
	n, ok := w.nodes[earlier]
	if !ok || n.children != nil || n.target != "" {
		return ErrNotThere
	}
	return w.place(name, n)
}

// Has says whether a name is there.
func (w *Writer) Has(name string) bool { return w.nodes[name] != nil }

// Remove takes a file's or link's name away; what was written of it stays in the image.
func (w *Writer) Remove(name string) error {
	n, ok := w.nodes[name]
	if !ok || n.children != nil {
		return ErrNotThere
	}
	delete(w.nodes, name)
	delete(w.nodes[dir(name)].children, path.Base(name))
	return nil
}

// Close writes what is left of the image; out is not closed.
func (w *Writer) Close() error {
	order := []*node{}
	number(w.nodes[""], &order)
	for _, n := range order {
		var err error
		switch {
		case n.children != nil:
			n.block = w.blocks
			n.size, err = w.data(strings.NewReader(entries(n)))
		case n.target != "":
			n.block = w.blocks
			_, err = w.data(strings.NewReader(n.target))
		}
		if err != nil {
			return err
		}
	}
	inodes := w.blocks
	table := make([]byte, rootNumber*inodeBytes, (len(order)+rootNumber)*inodeBytes)
	for _, n := range order {
		table = n.append(table)
	}
	if _, err := w.data(bytes.NewReader(table)); err != nil {
		return err
	}
	if err := w.buffered.Flush(); err != nil {
		return err
	}
	if _, err := w.out.Seek(superblockAt, io.SeekStart); err != nil {
		return err
	}
	_, err := w.out.Write(w.superblock(inodes, uint64(len(order))))
	return err
}

func (w *Writer) directory(name string) (*node, error) {
	if n, ok := w.nodes[name]; ok {
		if n.children == nil {
			return nil, fmt.Errorf("%q %w", name, ErrNotDirectory)
		}
		return n, nil
	}
	n := &node{mode: formatDirectory, children: map[string]*node{}}
	return n, w.place(name, n)
}

// place enters a node under a name of its own.
func (w *Writer) place(name string, n *node) error {
	if _, ok := w.nodes[name]; ok {
		return ErrExists
	}
	above, base := dir(name), path.Base(name)
	if len(base) > maxName {
		return syscall.ENAMETOOLONG
	}
	parent, err := w.directory(above)
	if err != nil {
		return err
	}
	w.nodes[name] = n
	n.parent = parent
	parent.children[base] = n
	return nil
}

// data writes content and pads its last block.
func (w *Writer) data(content io.Reader) (uint32, error) {
	var size uint64
	for {
		n, err := content.Read(w.buf)
		if _, failed := w.buffered.Write(w.buf[:n]); failed != nil {
			return 0, failed
		}
		if size += uint64(n); size > maxFileBytes {
			return 0, fmt.Errorf("a file has more than %d bytes", uint64(maxFileBytes))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	blocks := (size + BlockSize - 1) / BlockSize
	if uint64(w.blocks)+blocks > math.MaxUint32 {
		return 0, errors.New("the image has too many blocks")
	}
	w.blocks += uint32(blocks)
	if rest := size % BlockSize; rest != 0 {
		if _, err := w.buffered.Write(make([]byte, BlockSize-rest)); err != nil {
			return 0, err
		}
	}
	return uint32(size), nil
}

// number counts the names of every node below a directory and gives each its number, parents first.
func number(directory *node, order *[]*node) {
	if directory.number == 0 {
		directory.number = rootNumber
		*order = append(*order, directory)
	}
	directory.links += 2
	for _, name := range sorted(directory.children) {
		child := directory.children[name]
		if child.number == 0 {
			child.number = uint32(len(*order)) + rootNumber
			*order = append(*order, child)
		}
		if child.children == nil {
			child.links = saturated(child.links)
			continue
		}
		directory.links = saturated(directory.links)
		number(child, order)
	}
}

func saturated(links uint16) uint16 {
	if links == math.MaxUint16 {
		return links
	}
	return links + 1
}

func sorted(children map[string]*node) []string {
	names := make([]string, 0, len(children))
	for name := range children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// entries returns the blocks of a directory: in each, its entries in the order of their names, and then those names.
func entries(directory *node) string {
	named := map[string]*node{".": directory, "..": directory.parent}
	for name, child := range directory.children {
		named[name] = child
	}
	var out strings.Builder
	names := sorted(named)
	for len(names) > 0 {
		count, used := 0, 0
		for count < len(names) && used+direntBytes+len(names[count]) <= BlockSize {
			used += direntBytes + len(names[count])
			count++
		}
		at := count * direntBytes
		head := make([]byte, 0, at)
		for _, name := range names[:count] {
			head = binary.LittleEndian.AppendUint64(head, uint64(named[name].number))
			head = binary.LittleEndian.AppendUint16(head, uint16(at))
			head = append(head, named[name].kind(), 0)
			at += len(name)
		}
		out.Write(head)
		for _, name := range names[:count] {
			out.WriteString(name)
		}
		if names = names[count:]; len(names) > 0 {
			out.Write(make([]byte, BlockSize-used))
		}
	}
	return out.String()
}

func (n *node) kind() byte {
	switch {
	case n.children != nil:
		return typeDirectory
	case n.target != "":
		return typeLink
	}
	return typeFile
}

// append adds the inode in its compact form: struct erofs_inode_compact, data layout FLAT_PLAIN.
func (n *node) append(table []byte) []byte {
	e := binary.LittleEndian
	table = e.AppendUint16(table, 0) // i_format
	table = e.AppendUint16(table, 0) // i_xattr_icount
	table = e.AppendUint16(table, n.mode)
	table = e.AppendUint16(table, n.links)
	table = e.AppendUint32(table, n.size)
	table = e.AppendUint32(table, 0) // i_reserved
	table = e.AppendUint32(table, n.block)
	table = e.AppendUint32(table, n.number)
	return append(table, make([]byte, 8)...) // i_uid, i_gid, i_reserved2
}

// superblock is struct erofs_super_block; no feature is used.
func (w *Writer) superblock(inodes uint32, count uint64) []byte {
	s := make([]byte, superblockBytes)
	e := binary.LittleEndian
	e.PutUint32(s[0:], magic)
	s[12] = blockBits
	e.PutUint16(s[14:], rootNumber)
	e.PutUint64(s[16:], count)
	e.PutUint32(s[36:], w.blocks)
	e.PutUint32(s[40:], inodes)
	copy(s[48:64], w.uuid[:])
	return s
}
