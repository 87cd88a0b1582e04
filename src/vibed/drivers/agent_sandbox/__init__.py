"""Driver `agent-sandbox`: sandboxes that are pods of Kubernetes, kept warm and given out by agent-sandbox.

A run is a SandboxClaim (`claims`). The pod that it gets is told by a signed document whose it is (`signing`), and its
agent is spoken to over TLS (`line`), as a supervisor is on one machine (`sandbox`). What pods are made of, `templates`
says.
"""
