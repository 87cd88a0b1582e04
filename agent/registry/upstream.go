package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	maxPage      = 100 << 20
	maxFile      = 8 << 30
	maxRedirects = 8
	headPatience = 60 * time.Second
	// silence is how long a body may pause.
	silence = 60 * time.Second
)

// upstream asks registries. Addresses of private networks are refused unless the operator's own settings name the host: a
// page of a registry must not lead into the network of this machine.
type upstream struct {
	checked, unchecked *http.Client // by certificates
	named              map[string]bool
	insecure           []string
	authorization      []Authorization
}

func newUpstream(config Config) (*upstream, error) {
	u := &upstream{named: map[string]bool{}, insecure: config.Insecure, authorization: config.Authorization}
	addresses := append([]string{config.NPM, config.SumDB.URL, config.Proxy.HTTP, config.Proxy.HTTPS}, config.PyPI...)
	for _, address := range config.Scopes {
		addresses = append(addresses, address)
	}
	for _, source := range config.Binaries {
		addresses = append(addresses, source.URL)
	}
	for _, proxy := range goProxies(config.Go) {
		addresses = append(addresses, proxy.url)
	}
	for _, address := range addresses {
		if address == "" {
			continue
		}
		if !strings.Contains(address, "://") {
			address = "http://" + address // as proxies are often written
		}
		parsed, err := url.Parse(address)
		if err != nil || parsed.Host == "" {
			return nil, fmt.Errorf("%q is no address of a registry or proxy", redacted(address))
		}
		u.named[hostPort(parsed)] = true
	}
	// The longest prefix first.
	slices.SortStableFunc(u.authorization, func(a, b Authorization) int { return len(b.Prefix) - len(a.Prefix) })
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, pem := range config.Authorities {
		pool.AppendCertsFromPEM([]byte(pem))
	}
	// http.ProxyFromEnvironment knows NO_PROXY; it reads once, and this process has no other environment.
	for name, value := range map[string]string{"HTTP_PROXY": config.Proxy.HTTP, "HTTPS_PROXY": config.Proxy.HTTPS, "NO_PROXY": config.Proxy.None} {
		if value != "" {
			os.Setenv(name, value)
		}
	}
	u.checked = u.client(&tls.Config{RootCAs: pool})
	u.unchecked = u.client(&tls.Config{InsecureSkipVerify: true})
	return u, nil
}

func (u *upstream) client(secure *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: u.dial, TLSClientConfig: secure, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 20 * time.Second,
			ResponseHeaderTimeout: headPatience, MaxResponseHeaderBytes: 256 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var errPrivate = errors.New("it is an address of a private network")

func (u *upstream) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 20 * time.Second}
	if !u.named[strings.ToLower(address)] {
		dialer.Control = func(_, resolved string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(resolved)
			if err != nil || !public(to.Addr()) {
				return errPrivate
			}
			return nil
		}
	}
	return dialer.DialContext(ctx, network, address)
}

var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	return !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.ToLower(net.JoinHostPort(u.Hostname(), port))
}

// allowed says whether an address may be asked at all. Behind a proxy a name is the proxy's to resolve.
func (u *upstream) allowed(to *url.URL) error {
	if to.Scheme != "https" && to.Scheme != "http" || to.Host == "" {
		return fmt.Errorf("its scheme is %q", to.Scheme)
	}
	if u.named[hostPort(to)] {
		return nil
	}
	name := strings.TrimSuffix(strings.ToLower(to.Hostname()), ".")
	if a, err := netip.ParseAddr(name); err == nil && !public(a) || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return errPrivate
	}
	return nil
}

// get asks and follows redirections; the answer is whatever it is, also a 404. The body pauses for a while at most.
func (u *upstream) get(ctx context.Context, method, address string, header http.Header) (*http.Response, error) {
	to, err := url.Parse(address)
	if err != nil {
		return nil, refuse(http.StatusBadGateway, "%q is no address", redacted(address))
	}
	first := to
	ctx, cancel := context.WithCancelCause(ctx)
	for range maxRedirects {
		if err := u.allowed(to); err != nil {
			cancel(nil)
			return nil, refuse(http.StatusForbidden, "%s is not asked: %v", hostPort(to), err)
		}
		request, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
		if err != nil {
			cancel(nil)
			return nil, refuse(http.StatusBadGateway, "%q is no address", redacted(address))
		}
		for name, values := range header {
			request.Header[name] = values
		}
		u.authorize(request)
		answer, err := u.clientFor(to).Do(request)
		if err != nil {
			cancel(nil)
			return nil, unreachable(first, to, err)
		}
		if next := answer.Header.Get("Location"); next != "" && answer.StatusCode >= 301 && answer.StatusCode <= 308 {
			answer.Body.Close()
			if to, err = to.Parse(next); err != nil {
				break
			}
			continue
		}
		answer.Body = &watched{body: answer.Body, timer: time.AfterFunc(silence, func() { cancel(errSilent) }), cancel: cancel}
		return answer, nil
	}
	cancel(nil)
	return nil, refuse(http.StatusBadGateway, "the registry %s redirects in a way that leads nowhere", first.Host)
}

func (u *upstream) clientFor(to *url.URL) *http.Client {
	if slices.Contains(u.insecure, to.Hostname()) || slices.Contains(u.insecure, to.Host) {
		return u.unchecked
	}
	return u.checked
}

func (u *upstream) authorize(r *http.Request) {
	address := r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()
	for _, a := range u.authorization {
		if strings.HasPrefix(address, a.Prefix) {
			r.Header.Set("Authorization", a.Header)
			return
		}
	}
}

// unreachable is what a registry that does not answer is told as. A retry may help: it is not the build's fault.
func unreachable(first, to *url.URL, err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, errPrivate) {
		return refuse(http.StatusForbidden, "%s is not asked: %v", hostPort(to), errPrivate)
	}
	name := first.Host
	if to.Host != first.Host {
		name = to.Host + ", where " + first.Host + " leads,"
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return refuse(http.StatusGatewayTimeout, "the registry %s does not answer in time (%v); trying again may help", name, err)
	}
	return refuse(http.StatusBadGateway, "the registry %s cannot be reached (%v); trying again may help", name, err)
}

// failed tells of an answer that is neither a success nor "there is no such thing".
func failed(answer *http.Response) error {
	host := answer.Request.URL.Host
	switch status := answer.StatusCode; {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		why := refuse(http.StatusForbidden, "the registry %s answers %d: the operator's credentials for it are missing or do not fit", host, status)
		why.theirs = true
		return why
	case status == http.StatusTooManyRequests:
		return refuse(http.StatusServiceUnavailable, "the registry %s answers 429, too many requests; trying again later may help", host)
	case status == http.StatusBadRequest:
		// module proxies say so of a path that leads to no repository
		return refuse(http.StatusNotFound, "the registry %s answers 400: it cannot have %s", host, answer.Request.URL.Path)
	default:
		return refuse(http.StatusBadGateway, "the registry %s answers %d; trying again may help", host, status)
	}
}

func absent(status int) bool { return status == http.StatusNotFound || status == http.StatusGone }

// page reads a whole answer that is to be rewritten.
func page(answer *http.Response) ([]byte, error) {
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxPage+1))
	switch {
	case err != nil:
		return nil, broken(answer, err)
	case len(body) > maxPage:
		return nil, refuse(http.StatusBadGateway, "the registry %s answers with more than %d MB", answer.Request.URL.Host, maxPage>>20)
	}
	return body, nil
}

func broken(answer *http.Response, err error) error {
	if errors.Is(err, context.Canceled) && !errors.Is(context.Cause(answer.Request.Context()), errSilent) {
		return err
	}
	return refuse(http.StatusBadGateway, "the registry %s broke off its answer (%v); trying again may help", answer.Request.URL.Host, err)
}

var errSilent = errors.New("it sent nothing for a minute")

// watched is a body that ends when nothing comes any more.
type watched struct {
	body   io.ReadCloser
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (w *watched) Read(into []byte) (int, error) {
	n, err := w.body.Read(into)
	w.timer.Reset(silence)
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.body.Close()
	w.cancel(nil)
	return err
}

func redacted(address string) string {
	if parsed, err := url.Parse(address); err == nil {
		return parsed.Redacted()
	}
	return "(not shown)"
}
