"""What only tests of the cluster ask for: Helm, and vibeD as it installs it."""

from __future__ import annotations

from tests.cluster.releases import helm, own_release, release

__all__ = ["helm", "own_release", "release"]
