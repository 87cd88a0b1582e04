"""The rows, each a module with one function `measure(bench) -> Row`."""
