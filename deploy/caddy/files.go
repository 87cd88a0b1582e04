package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
)

// lookEvery is how often the files are looked at, while somebody visits.
const lookEvery = time.Second

// Files is a certificate that somebody else renews in two files, such as those of a mounted Secret. Caddy itself reads
// such files once; here they are read again when they have changed, and what was right before stays until they are
// right again: a key is not yet its certificate's while the two are being written.
type Files struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`

	log *zap.Logger

	mutex  sync.Mutex
	looked time.Time
	seen   [2]state
	served *tls.Certificate
}

type state struct {
	changed time.Time
	size    int64
}

func init() { caddy.RegisterModule(&Files{}) }

// CaddyModule implements caddy.Module.
func (*Files) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.get_certificate.files",
		New: func() caddy.Module { return new(Files) },
	}
}

// Provision implements caddy.Provisioner. What cannot be served at all is said at once.
func (f *Files) Provision(ctx caddy.Context) error {
	f.log = ctx.Logger()
	if err := f.look(); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler: get_certificate files CERTIFICATE KEY
func (f *Files) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&f.Certificate, &f.Key) {
		return d.ArgErr()
	}
	return nil
}

// GetCertificate implements certmagic.Manager.
func (f *Files) GetCertificate(context.Context, *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if time.Since(f.looked) >= lookEvery {
		if err := f.look(); err != nil {
			f.log.Error("the certificate that was there before is served on", zap.Error(err))
		}
	}
	return f.served, nil
}

// look reads the files where they are not what was read last.
func (f *Files) look() error {
	f.looked = time.Now()
	var found [2]state
	for i, path := range []string{f.Certificate, f.Key} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		found[i] = state{info.ModTime(), info.Size()}
	}
	if f.served != nil && found == f.seen {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return err
	}
	f.served, f.seen = &pair, found
	return nil
}
