"""MCP: the tools with which an AI agent deploys, over HTTP and over standard input and output."""
