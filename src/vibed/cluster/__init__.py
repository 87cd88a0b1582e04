"""Kubernetes as vibeD uses it: a client, informers, a work queue, leader election, and the store on the CRD."""
