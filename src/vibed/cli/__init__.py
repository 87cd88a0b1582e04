"""The `vibed` command."""
