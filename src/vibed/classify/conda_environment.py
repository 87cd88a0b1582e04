"""Conda's environment.yml: its packages as the Python registry names them, and its pip part.

What of Conda is no Python package (compilers, C libraries, programs) is passed over; whether an app needs one shows
when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vibed.classify.tree import Tree
from vibed.classify.yaml_lines import scalars

NAMES = ("environment.yml", "environment.yaml")

_MATCH = re.compile(r"(?:[\w./-]+::)?([\w.-]+)(?:\[[^\]]*\])?\s*(.*)")
_PYTHON = re.compile(r"python\s*(?:=+\s*(3\.\d+)\S*|([<>]=?.*))")
_RENAMED: Mapping[str, str] = {
    "dash-core": "dash",
    "importlib_metadata": "importlib-metadata",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "psycopg2": "psycopg2-binary",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pymysql": "PyMySQL",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "python-kaleido": "kaleido",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "ruamel_yaml": "ruamel.yaml",
    "uvicorn-standard": "uvicorn[standard]",
}
"""Where Conda's name is not the registry's."""
_NO_PYTHON = re.compile(
    r"_|lib(?!rosa|sass|tmux)|python(?:$|_abi)|(?:pip|setuptools|wheel|conda|mamba|nodejs|git|make|cmake|ninja|pkg-config"
    r"|compilers|openssl|ca-certificates|zlib|xz|sqlite|tk|readline|ncurses|bzip2|zstd|lz4-c|yaml|expat|icu|krb5|mkl|blas"
    r"|openblas|intel-openmp|llvm-openmp|tbb|vc|vs20\d\d_runtime|ucrt|cudatoolkit|cudnn|cuda|ld_impl_linux-64|ffmpeg"
    r"|freetype|jpeg|libpng|giflib|lcms2|openjpeg|postgresql|mysql|redis|redis-server|nginx|gcc|gxx|go|rust|r-base|nomkl"
    r"|tzdata|pcre2?|glib|gettext|poppler|tesseract|pandoc|curl|wget|unzip)$|(?:gcc|gxx|gfortran|cuda|r)[_-]"
)
"""What of Conda is no package of Python, or none that an app is installed with."""

_VERSION = re.compile(r"\d[\d.!]*(?:\.?\*|[._-]?(?:a|b|c|rc|alpha|beta|dev|post|pre)[._-]?\d*)*(?:\+[\w.]+)?")
"""How Python's packages are counted; `9e`, `2022g` and `1.1.1s` are versions of what is none."""


def lines(tree: Tree, folder: str) -> tuple[str, list[tuple[str, str]]]:
    """The file's path and, each with where it stands, its requirements; ("", []) where there is none."""
    path = next((folder + name for name in NAMES if tree.has(folder + name)), "")
    found = []
    for keys, value in scalars(tree.text(path)) if path else ():
        if keys[:1] != ("dependencies",):
            continue
        if "pip" in keys:
            found.append((f"{path}: an entry of pip", value))
        elif len(keys) == 2 and (text := requirement(value)):
            found.append((f"{path}: an entry of dependencies", text))
    return path, found


def python(text: str) -> str:
    """The version of Python that the file asks for, as a specifier or a number; empty where it says none."""
    for keys, value in scalars(text):
        match = _PYTHON.fullmatch(value)
        if keys[:1] == ("dependencies",) and match is not None:
            return match[1] or match[2]
    return ""


def requirement(text: str) -> str:
    """What Conda writes (`numpy=1.26`, `conda-forge::flask >=3,<4`, `pandas=2.1.4=py311_0`) as PEP 508; empty where it
    is no package of Python.
    """
    match = _MATCH.fullmatch(text.strip())
    if match is None or _NO_PYTHON.match(match[1].lower()):
        return ""
    name = _RENAMED.get(match[1].lower(), match[1])
    # a build of Conda's (`py311_0`) says nothing elsewhere
    version = re.sub(r"^(={0,2}\s*\d[^=\s,|]*)(?:=|\s+)[\w.*]+$", r"\1", match[2].strip())
    if "|" in version:
        return name
    parts = [part.strip() for part in version.split(",") if part.strip()]
    if any(not _VERSION.fullmatch(part.lstrip("=<>!~ ")) for part in parts):
        return ""
    return name + ",".join(_bound(part) for part in parts)


def _bound(part: str) -> str:
    exact = re.fullmatch(r"(={0,2})\s*(\d[\w.]*?)(\.?\*)?", part)
    if exact is None:
        return part
    # one `=` is a prefix, as is a star; two and none are a version
    whole = exact[1] != "=" or exact[2].count(".") > 1 or not exact[2].replace(".", "").isdigit()
    return f"=={exact[2]}" if whole and not exact[3] else f"=={exact[2]}.*"
