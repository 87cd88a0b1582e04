#!/usr/bin/env bash
# pyarrow 26.0.0 has no requirement in its metadata and does not load where NumPy is older than 2; 25.0.0 does. So a list that
# pins what wants NumPy 1 and leaves pyarrow open (streamlit 1.29.0: `numpy<2`, `pyarrow>=6.0`) installs without a word today
# and fails at `import pyarrow`. For vibeD: an earlier pyarrow there (runtimes/layers/numpy_one.py). Needs Python 3.11.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3.11 -m venv v && v/bin/pip install --quiet pyarrow==26.0.0 numpy==1.26.4
wants=$(v/bin/python -c 'from importlib.metadata import requires; print(requires("pyarrow"))')
said=$(v/bin/python -c 'import pyarrow' 2>&1 | tail -1) || true
echo "pyarrow 26.0.0 requires: $wants; import: $said; expected: a requirement of NumPy, or a module that loads"
v/bin/pip install --quiet pyarrow==25.0.0
v/bin/python -c 'import pyarrow; print("pyarrow", pyarrow.__version__, "loads")'
[[ $wants == None && $said == *"requires NumPy 2.0 or newer"* ]]
