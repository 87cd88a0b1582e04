"""vibeD measured against the floor, in the same run: `python -m bench` (docs/reference/benchmarks.md)."""
