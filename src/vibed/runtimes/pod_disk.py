"""Whose what is of the controller's volume on a cluster, beside copies of sources and logs, which are settings.

Who writes there keeps to its part, and the chart makes the volume as large as all of them together
(tests/cluster/test_chart.py): a node evicts a pod whose volume has outgrown its size, with all that is made in it.
"""

from __future__ import annotations

MIB = 1 << 20

CACHE_BYTES = 512 * MIB
"""Of downloads: so much is kept when a gate opens. Each may add half as much."""
GATES = 5
"""That are open at a time: one for each builder, and one that is about to end."""
DOWNLOADS = CACHE_BYTES + GATES * CACHE_BYTES // 2

LAYERS_BYTES = 3072 * MIB
"""Of copies of layers on their way into pods: one of the largest, and what others get meanwhile."""
BUILT_BYTES = 1024 * MIB
"""So too of what builds made, which is no larger than a source."""

MAKING_BYTES = 2304 * MIB
"""Of one thing in the making: the largest layer, and some."""
BESIDE_BYTES = 2048 * MIB
"""Of all that is in the making beside the first of it."""

ALL_BYTES = DOWNLOADS + LAYERS_BYTES + BUILT_BYTES + MAKING_BYTES + BESIDE_BYTES
