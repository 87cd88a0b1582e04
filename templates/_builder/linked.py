"""Prints which shared libraries are wanted by compiled files below a folder and are neither there nor in this root.

    python3 -I linked.py FOLDER        a JSON object: library -> files that want it, below FOLDER
"""

# It is handed over as it is, without vibeD around it.
# ruff: noqa: PTH100, PTH118, PTH207

import glob
import json
import os
import re
import subprocess
import sys

PLACES = ("/lib/*", "/lib64/*", "/usr/lib/*", "/usr/lib/*-linux-gnu/*", "/lib/*-linux-gnu/*", "/usr/local/lib/*")
AT_ONCE = 500


def main(folder):
    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    compiled = [path for path in files if re.search(r"\.(?:so|node)(?:\.[0-9.]+)?$", path) and not os.path.islink(path)]
    there = {os.path.basename(path) for place in PLACES for path in glob.glob(place)}
    there |= {os.path.basename(path) for path in files}
    wants = {}
    for begin in range(0, len(compiled), AT_ONCE):
        # of one file alone it does not say which
        argv = ["/layers/compilers/bin/readelf", "--dynamic", "--wide", *compiled[begin : begin + AT_ONCE], "/dev/null"]
        for line in subprocess.run(argv, capture_output=True, text=True, errors="replace").stdout.splitlines():
            if line.startswith("File: "):
                libraries = wants.setdefault(line.removeprefix("File: "), [])
            elif match := re.search(r"\(NEEDED\).*\[(.+)\]", line):
                libraries.append(match[1])
    lacking = {}
    for file, libraries in wants.items():
        absent = [library for library in libraries if library not in there]
        # packages bring files for other machines and C libraries beside the one that is used
        if not any(library.startswith(("ld-linux", "ld-musl", "libc.")) for library in absent):
            for library in absent:
                lacking.setdefault(library, []).append(os.path.relpath(file, folder))
    print(json.dumps(lacking))


if __name__ == "__main__":
    main(sys.argv[1])
