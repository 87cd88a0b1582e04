#!/usr/bin/env bash
# pandas 2.0.3: its metadata allow NumPy 2 (`numpy>=1.20.3`), and its wheels, compiled for NumPy 1, do not load with it. So
# a list that pins pandas alone, as most did in 2023, installs without a word and fails at `import pandas`. Of pandas
# 2.2.2 on it works. For vibeD: NumPy 1 where a list leaves it open (runtimes/layers/numpy_one.py). Needs Python 3.11.
set -euo pipefail
cd "$(mktemp -d)" && trap 'rm -rf "$PWD"' EXIT
python3.11 -m venv v && v/bin/pip install --quiet pandas==2.0.3
v/bin/pip list --format freeze | grep -iE '^(numpy|pandas)='
said=$(v/bin/python -c 'import pandas' 2>&1 | tail -1) || true
echo "import pandas: $said; expected: nothing"
v/bin/pip install --quiet 'numpy<2'
v/bin/python -c 'import pandas; print("with numpy<2:", pandas.__version__, "loads")'
[[ $said == *"numpy.dtype size changed"* ]]
