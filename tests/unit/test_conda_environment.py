"""Conda's requirements as the Python registry's, and what of Conda is no package of Python."""

from __future__ import annotations

import pytest

from vibed.classify.conda_environment import requirement


@pytest.mark.parametrize(
    ("conda", "python"),
    [
        ("flask", "flask"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy=1.26.4", "numpy==1.26.4"),
        ("numpy==1.26", "numpy==1.26"),
        ("pandas=2.1.4=py311_0", "pandas==2.1.4"),
        ("pandas 2.1.* py311*", "pandas==2.1.*"),
        ("conda-forge::scipy >=1.10,<2", "scipy>=1.10,<2"),
        ("pytorch::pytorch=2.4", "torch==2.4.*"),
        ("psycopg2", "psycopg2-binary"),
        ("dask[complete]", "dask"),
        ("scipy 1.10|1.11", "scipy"),
        ("librosa", "librosa"),
        ("uvicorn=0.27.0.post1", "uvicorn==0.27.0.post1"),
        ("black=24.1a1", "black==24.1a1"),
    ],
)
def test_a_package_is_asked_for_as_the_registry_names_it(conda: str, python: str) -> None:
    assert requirement(conda) == python


@pytest.mark.parametrize(
    "conda",
    ["python=3.11", "pip", "openssl=3.0", "_openmp_mutex", "libgcc-ng", "gcc_linux-64", "r-base", "mkl=2023", "nodejs",
     "tzcode=2022g", "libjpeg=9e", "hdf5=1.14.3_4"],
)  # fmt: skip
def test_what_is_no_package_of_python_is_passed_over(conda: str) -> None:
    assert requirement(conda) == ""
