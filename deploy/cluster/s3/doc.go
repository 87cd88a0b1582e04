// Package s3 only holds the tools of go.mod.
package s3
