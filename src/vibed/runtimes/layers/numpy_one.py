"""Releases that go with NumPy 1 alone, or with 2 alone, and say nothing of it: what their metadata allow does not load.

A list that pins one of them and leaves the rest open worked when it was written. It is resolved again: with `numpy<2`
for what was compiled for NumPy 1, and with earlier releases of what wants 2 where the list comes to NumPy 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.version import InvalidVersion, Version

from vibed.runtimes.layers.pins import Pin

CONSTRAINT = "numpy<2"
_FIRST = {
    "astropy": "6.1", "bottleneck": "1.4", "contourpy": "1.2.1", "h5py": "3.11", "matplotlib": "3.8.4",
    "numba": "0.60", "numexpr": "2.10", "onnxruntime": "1.19", "opencv-contrib-python": "4.10",
    "opencv-python": "4.10", "opencv-python-headless": "4.10", "pandas": "2.2.2", "pyarrow": "16", "pywavelets": "1.6",
    "scikit-image": "0.23.1", "scikit-learn": "1.4.2", "scipy": "1.13", "shapely": "2.0.4", "statsmodels": "0.14.2",
    "tensorflow": "2.18", "thinc": "8.3", "torch": "2.3",
}  # fmt: skip
"""The first release of a package that was compiled for NumPy 2."""

_TWO_ALONE = {"pyarrow": "26"}
"""The first release of a package that does not load with NumPy 1."""


def made_for(pins: Iterable[Pin]) -> Sequence[Pin]:
    """Those of a resolution that want NumPy 1, where it has NumPy 2."""
    pins = tuple(pins)
    numpy = next((pin for pin in pins if pin.name == "numpy"), None)
    if numpy is None or not _older("1.99", numpy.version):
        return ()
    return tuple(pin for pin in pins if pin.name in _FIRST and _older(pin.version, _FIRST[pin.name]))


def too_new(pins: Iterable[Pin]) -> Sequence[str]:
    """Constraints for what wants NumPy 2 in a resolution that has NumPy 1."""
    versions = {pin.name: pin.version for pin in pins}
    if not _older(versions.get("numpy", "2"), "2"):
        return ()
    return tuple(
        f"{name}<{first}"
        for name, first in _TWO_ALONE.items()
        if name in versions and not _older(versions[name], first)
    )


def _older(version: str, first: str) -> bool:
    try:
        return Version(version) < Version(first)
    except InvalidVersion:
        return False
