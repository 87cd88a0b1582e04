"""The HTTP API's client: what the CLI and the MCP server on standard input share."""
