package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// cache keeps downloads by what is in them: files/<sha256>, and urls/<sha256 of an address> with the digest of what was
// there. What is taken out of it is read through first, so whoever wrote into it can change nothing of another build.
// Without a folder it keeps nothing; where it fails, a download goes on without it.
type cache struct {
	dir      string
	arriving string       // where downloads are on their way
	room     atomic.Int64 // how much this gate may still keep: its build must not push out what all others use
}

// block is what the smallest file takes on a disk; each that is kept has one beside it, with its address.
const block = 4096

// spare is what has to stay free on the disk: the cache is a convenience, sources and logs are not.
const spare = 1 << 30

// newCache makes one in a folder; arriving names a folder of its own in it for what is on its way, or is empty.
func newCache(dir, arriving string, limit int64) *cache {
	c := &cache{dir: dir, arriving: filepath.Join(dir, "tmp", arriving)}
	if limit <= 0 {
		limit = math.MaxInt64
	}
	c.room.Store(limit / 2)
	return c
}

func (c *cache) full() bool {
	var fs syscall.Statfs_t
	return syscall.Statfs(c.dir, &fs) != nil || int64(fs.Bavail)*int64(fs.Bsize) < spare
}

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (c *cache) file(digest string) string {
	return filepath.Join(c.dir, "files", digest[:2], digest)
}

func (c *cache) pointer(address string) string {
	sum := sha256.Sum256([]byte(address))
	name := hex.EncodeToString(sum[:])
	return filepath.Join(c.dir, "urls", name[:2], name)
}

// open returns the file of a digest when it is there and whole.
func (c *cache) open(digest string) *os.File {
	if c.dir == "" || !digestForm.MatchString(digest) {
		return nil
	}
	f, err := os.Open(c.file(digest))
	if err != nil {
		return nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil || hex.EncodeToString(sum.Sum(nil)) != digest {
		f.Close()
		_ = os.Remove(c.file(digest))
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(c.file(digest), now, now) // when it was last of use: see trim
	return f
}

// at returns the digest of what an address had, empty when that is not known.
func (c *cache) at(address string) string {
	if c.dir == "" {
		return ""
	}
	text, err := os.ReadFile(c.pointer(address))
	if digest := strings.TrimSpace(string(text)); err == nil && digestForm.MatchString(digest) {
		return digest
	}
	return ""
}

// entry is a file on its way into the cache.
type entry struct {
	cache *cache
	sum   hash.Hash
	file  *os.File // nil once it cannot be kept
}

func (c *cache) begin() *entry {
	e := &entry{cache: c, sum: sha256.New()}
	if c.dir == "" || c.full() || os.MkdirAll(c.arriving, 0o700) != nil || c.room.Add(-2*block) < 0 {
		return e
	}
	e.file, _ = os.CreateTemp(c.arriving, "")
	return e
}

// Write never fails: what cannot be kept is passed on all the same.
func (e *entry) Write(b []byte) (int, error) {
	e.sum.Write(b)
	if e.file != nil {
		if _, err := e.file.Write(b); err != nil || e.cache.room.Add(-int64(len(b))) < 0 {
			e.drop()
		}
	}
	return len(b), nil
}

func (e *entry) digest() string { return hex.EncodeToString(e.sum.Sum(nil)) }

func (e *entry) drop() {
	if e.file != nil {
		_ = os.Remove(e.file.Name())
		e.file.Close()
		e.file = nil
	}
}

// keep puts it where it is found, by its digest and, with an address, by that.
func (e *entry) keep(address string) {
	defer e.drop()
	if e.file == nil {
		return
	}
	digest := e.digest()
	to := e.cache.file(digest)
	if os.MkdirAll(filepath.Dir(to), 0o700) != nil || os.Rename(e.file.Name(), to) != nil || address == "" {
		return
	}
	at := e.cache.pointer(address)
	if os.MkdirAll(filepath.Dir(at), 0o700) != nil {
		return
	}
	next, err := os.CreateTemp(e.cache.arriving, "")
	if err != nil {
		return
	}
	_, err = next.WriteString(digest + "\n")
	if next.Close() != nil || err != nil || os.Rename(next.Name(), at) != nil {
		_ = os.Remove(next.Name())
	}
}

const (
	// halfDone is how old a file on its way is when nobody writes it any more.
	halfDone = 2 * time.Hour
	// unused is how long a pointer lasts, whether its file is still there or not.
	unused = 60 * 24 * time.Hour
)

// trim removes what was not used for longest until no more than limit is left; 0 means no limit.
func (c *cache) trim(limit int64) {
	if c.dir == "" {
		return
	}
	type kept struct {
		path string
		used time.Time
		size int64
	}
	var files []kept
	var total int64
	_ = filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		switch age := time.Since(info.ModTime()); filepath.Base(filepath.Dir(filepath.Dir(path))) {
		case "files":
			size := (info.Size()+block-1)/block*block + block
			files = append(files, kept{path, info.ModTime(), size})
			total += size
		case "urls":
			if age > unused {
				_ = os.Remove(path)
			}
		default:
			if age > halfDone {
				_ = os.Remove(path)
			}
		}
		return nil
	})
	if limit <= 0 || total <= limit {
		return
	}
	slices.SortFunc(files, func(a, b kept) int { return a.used.Compare(b.used) })
	for _, f := range files {
		// With some room, so that not every gate has to.
		if total <= limit/10*9 {
			return
		}
		if os.Remove(f.path) == nil {
			total -= f.size
		}
	}
}
