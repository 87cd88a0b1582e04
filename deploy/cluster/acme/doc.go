// Package acme pins the certificate authority of the tests: Pebble, the test server of Let's Encrypt.
package acme
