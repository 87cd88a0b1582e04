// What Go finds. A line for each thing that is not as on any Linux machine; then `done`.
package main

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"net"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"time"
)

func check(name string, err error) {
	if err != nil {
		fmt.Println("wrong: " + name + ": " + err.Error())
	}
}

func is(true bool) error {
	if true {
		return nil
	}
	return errors.New("it is not so")
}

func listens(network, address string) error {
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	c, err := net.Dial(network, l.Addr().String())
	if err == nil {
		c.Close()
	}
	return err
}

func main() {
	who, err := user.Current()
	check("user", err)
	if err == nil {
		check("the user's name", is(who.Username == "app" && who.HomeDir == os.Getenv("HOME")))
	}
	_, err = user.Lookup("app")
	check("the user by name", err)
	name, err := os.Hostname()
	check("hostname", err)
	_, err = net.LookupHost(name)
	check("the host's name resolves", err)
	_, err = net.LookupHost("localhost")
	check("localhost", err)
	_, err = net.LookupPort("tcp", "https")
	check("services", err)
	check("listen on 127.0.0.1", listens("tcp", "127.0.0.1:0"))
	check("listen on ::1", listens("tcp", "[::1]:0"))
	check("listen on localhost", listens("tcp", "localhost:0"))
	check("Unix sockets", listens("unix", "/tmp/go.sock"))
	_, err = time.LoadLocation("Europe/Berlin")
	check("time zones", err)
	check("MIME types", is(mime.TypeByExtension(".epub") == "application/epub+zip"))
	pool, err := x509.SystemCertPool()
	check("certificates", err)
	if err == nil {
		check("certificates are there", is(!pool.Equal(x509.NewCertPool())))
	}
	check("/data", os.MkdirAll("/data/sub", 0o755))
	check("/data/x", os.WriteFile("/data/x", nil, 0o644))
	folder, err := os.UserCacheDir()
	check("cache", err)
	check("cache is writable", os.MkdirAll(folder+"/x", 0o755))
	_, err = os.UserConfigDir()
	check("configuration", err)
	_, err = os.MkdirTemp("", "x")
	check("temporary files", err)
	_, err = rand.Read(make([]byte, 16))
	check("random", err)
	check("a shell", exec.Command("sh", "-c", "true").Run())
	check("processors", is(runtime.NumCPU() >= 1))
	fmt.Println("done")
}
