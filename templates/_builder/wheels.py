"""Prints for which Pythons some releases have ready-made files, by what the index lists: no file is fetched.

    python3 -I wheels.py INDEX        `name==version` lines on standard input; prints a JSON object

Only of releases that have none for this Python; what no Python has ready-made is left out, since it is built anywhere.
"""

# It is handed over as it is, without vibeD around it.

import concurrent.futures
import json
import os
import re
import sys
import urllib.request

MINORS = range(6, 21)
MOST_VERSIONS = 400
FILE = re.compile(
    r"(?<![\w.-])([A-Za-z0-9_.]+)-([A-Za-z0-9_.!+]+)(?:-\d\w*)?-([a-z0-9_.]+)-([a-z0-9_.]+)-([a-z0-9_.]+)\.whl(?![\w.])"
)


def lacking(pins, index):
    """Of `name==version` lines: name -> its version, `fits` (minors of Python 3 that it has files for), and `made` (the
    versions that have one for this Python).
    """
    named = [match.groups() for pin in pins if (match := re.match(r"([A-Za-z0-9._-]+)\s*==\s*([^\s;]+)", pin))]
    fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def look(name):
        address = f"{index.rstrip('/')}/{canonical(name)}/"
        asked = urllib.request.Request(address, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        try:
            with fetch(asked, timeout=20) as page:
                return page.read().decode("utf-8", "replace")
        except OSError:
            return ""

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(look, [name for name, _ in named]))
    found = {}
    for (name, version), page in zip(named, pages):
        files = releases(page, name)
        fits = sorted(files.get(comparable(version), ()))
        if fits and sys.version_info[1] not in fits:
            made = [text for text, minors in files.items() if sys.version_info[1] in minors]
            found[canonical(name)] = {"version": version, "fits": fits, "made": made[:MOST_VERSIONS]}
    return found


def releases(page, name):
    """Version -> the minors of Python 3 that it has files for, on this kind of machine."""
    found = {}
    for file, version, python, abi, platform in FILE.findall(page):
        if canonical(file) == canonical(name) and runs_here(platform):
            found.setdefault(comparable(version), set()).update(minors(python, abi))
    return found


def minors(python, abi):
    tags = python.split(".")
    found = set()
    for minor in MINORS:
        exact = f"cp3{minor}" in tags and f"cp3{minor}" in abi.split(".")
        stable = "abi3" in abi.split(".") and any(f"cp3{n}" in tags for n in range(2, minor + 1))
        plain = "none" in abi.split(".") and ({"py3", f"py3{minor}", f"cp3{minor}"} & set(tags))
        if exact or stable or plain:
            found.add(minor)
    return found


def runs_here(platform):
    machine = os.uname().machine
    return any(
        tag == "any" or (tag.endswith(machine) and "linux" in tag and "musl" not in tag) for tag in platform.split(".")
    )


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def comparable(version):
    """`2.0` and `2.0.0` are one."""
    return re.sub(r"(?:\.0)+$", "", version.lower()) or version


if __name__ == "__main__":
    print(json.dumps(lacking(sys.stdin.read().splitlines(), sys.argv[1])))
