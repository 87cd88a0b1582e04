"""The packages in a layer one by one: which files are whose, so that the next layer can take a package over as it is,
compiled, instead of having it installed again (`agent/unpack`, image).

Only of a layer in which nothing but ready-made wheels was unpacked, each verified by its hash, and no code of theirs was
run; and only where no wheel brings anything that could be another's: then the files of a package are what its own wheel
makes them, whatever else was in that layer. `found` is strict, since what it says is believed for everybody.
"""

# It is handed over as it is, without vibeD around it.
# ruff: noqa: PTH110, PTH114, PTH118, PTH120, PTH123, PTH208

import configparser
import json
import os
import re
import sys

LIST = ".packages.json"
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;]+)")
_INFO = re.compile(r"([^-/]+)-([^-/]+)\.dist-info")


def found(layer, cache, pins):
    """Of a layer that was just installed from wheels alone, and not compiled: the files of each pin, by its line; {}
    where it cannot be said of every file whose it is. `cache`: uv's, which nothing but this installation and the
    resolution before it has used.
    """
    wanted = {}
    for pin in pins:
        name, version = _PIN.match(pin).groups()
        wanted[_canonical(name), version] = pin
    installed = set(wanted)
    owners, infos = {LIST: None}, {}
    archives = os.path.join(cache, "archive-v0")
    for archive in sorted(os.listdir(archives)):
        unpacked = os.path.join(archives, archive)
        info = [name for name in os.listdir(unpacked) if name.endswith(".dist-info")]
        match = _INFO.fullmatch(info[0]) if len(info) == 1 else None
        if match and (_canonical(match[1]), match[2]) not in installed:
            continue  # it was only looked at
        pin = wanted.pop((_canonical(match[1]), match[2]), None) if match else None
        if pin is None:
            return {}
        infos[os.path.join(SITE, info[0])] = pin
        places = [*_places(unpacked, info[0]), *_scripts(os.path.join(unpacked, info[0], "entry_points.txt"))]
        for place in places:
            # bytecode that a wheel brings could be another's module
            if place in owners or "__pycache__" in place.split("/") or place.startswith("../"):
                return {}
            owners[place] = pin
    if wanted:
        return {}
    whose = {pin: [] for pin in pins}
    for path in _files(layer):
        pin = owners.get(path) or infos.get(os.path.dirname(path))
        if pin is None or os.path.islink(os.path.join(layer, path)):
            return {}
        whose[pin].append(path)
    return whose


def keep(layer, whose):
    """Write down the files of each package, bytecode included, where the next one finds it (`agent/unpack`, image)."""
    tag = sys.implementation.cache_tag
    for paths in whose.values():
        modules = [os.path.split(path) for path in paths if path.endswith(".py")]
        compiled = [os.path.join(folder, "__pycache__", f"{name[:-3]}.{tag}.pyc") for folder, name in modules]
        paths += [path for path in compiled if os.path.exists(os.path.join(layer, path))]
    with open(os.path.join(layer, LIST), "w") as file:
        json.dump(whose, file, sort_keys=True)


def _places(unpacked, info):
    """Where a wheel's files are installed (PyPA, binary distribution format: "Spreading")."""
    data = info.removesuffix(".dist-info") + ".data"
    name = _INFO.fullmatch(info)[1]
    schemes = {
        "purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "",
        "headers": f"include/site/python{sys.version_info.major}.{sys.version_info.minor}/{name}",
    }  # fmt: skip
    for path in _files(unpacked):
        top, _, rest = path.partition("/")
        scheme, _, inner = rest.partition("/")
        if top == data and scheme in schemes:
            yield os.path.normpath(os.path.join(schemes[scheme], inner))
        else:
            yield os.path.normpath(os.path.join(SITE, path))


def _scripts(entry_points):
    """The programs that an installer writes for a wheel."""
    parser = configparser.ConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str
    try:
        parser.read(entry_points, "utf-8")
    except configparser.Error:
        yield "../"  # whatever that makes: not to be told
        return
    for section in ("console_scripts", "gui_scripts"):
        if parser.has_section(section):
            for name in parser.options(section):
                yield os.path.normpath(os.path.join("bin", name.strip()))


def _files(folder):
    for at, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(at, name), folder)


def _canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()
