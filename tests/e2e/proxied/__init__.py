"""What the conformance table needs: an app and a worker that do what a path names, and clients that see every byte."""
