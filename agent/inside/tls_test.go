package inside

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// certified is a key and its certificate, in one file.
func certified(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}

func TestAnAppThatSpeaksTLSIsReachedAndToldThatPlainHTTPIsEnough(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"key.pem": certified(t), "app.py": strings.Replace(strings.Replace(server(`"over TLS"`, "127.0.0.1", 8443),
		"S((", "import ssl\ns = S((", 1), ".serve_forever()", "\nc = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('key.pem')\ns.socket = c.wrap_socket(s.socket, server_side=True)\ns.serve_forever()", 1)})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	var got string
	for range 100 {
		if got = b.get(); got == "over TLS" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if got != "over TLS" {
		t.Errorf("%q", got)
	}
	b.must("POST", "/stop", nil)
	if logs := b.logs(); strings.Count(logs, "the app speaks TLS on its port") != 1 {
		t.Error(logs)
	}
}

func TestAnAppThatClosesWithoutAnAnswerIsNotTakenForOneThatSpeaksTLS(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": `import socket
s = socket.create_server(("127.0.0.1", 8080))
n = 0
while True:
    c, _ = s.accept()
    data = c.recv(4096)
    n += 1
    if n > 2: c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + data[:3])
    c.close()
`})
	if status, out := b.start(nil); status != 200 {
		t.Fatal(out)
	}
	var got string
	for range 20 {
		if got = b.get(); got == "GET" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if got != "GET" {
		t.Errorf("%q", got)
	}
}
