"""Resolves or installs an app's Python packages; runs in a builder sandbox, with uv.

    python3 -I python.py        orders in /layers/out/request.json, what comes of it to the socket beside it

What is sent: eight bytes (big-endian) with the length of a JSON object, the object, and then, of an installation, a
tarball of the layer. All that uv prints is in the log; its end is in the object where it failed.
"""

# It is handed over as it is, without vibeD around it.
# ruff: noqa: PTH100, PTH109, PTH110, PTH113, PTH118, PTH120, PTH123, PTH103

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request

OUT = "/layers/out"
sys.path.insert(0, OUT)
import pieces  # noqa: E402  beside this file, where an isolated Python does not look

UV = "/layers/tools/uv"
PYTHON = "/usr/bin/python3"
LAYER = "/tmp/layer"
CACHE = "/tmp/cache"
COMPILERS = "/layers/compilers"
UNSOLVED = "No solution found"
OLD_SETUPTOOLS = re.compile(
    r"cannot import name '\w+' from 'setuptools|No module named '(?:pkg_resources|setuptools\.\w+)'"
    r"|module 'setuptools(?:\.\w+)*' has no attribute"
)
WITH_SETUPTOOLS = "setuptools<81"
UNBUILT = "has no usable wheels"
MOST_LOOKED_FOR = 300
TOLD_BYTES = 48 << 10
SENT_BYTES = 1 << 20


def main():
    with open(os.path.join(OUT, "request.json")) as file:
        request = json.load(file)
    prepare()
    if request.get("compilers"):
        say("a package has no ready-made file for this machine: it is compiled")
        compilers()
    if request["step"] == "resolve":
        return resolve(request)
    return install(request)


def prepare():
    os.environ.update(
        HOME="/tmp/home",
        UV_CACHE_DIR=CACHE,
        UV_LINK_MODE="hardlink",
        UV_NO_CONFIG="1",
        UV_NO_PROGRESS="1",
        UV_PYTHON_DOWNLOADS="never",
        # git asks nobody for a password
        GIT_TERMINAL_PROMPT="0",
    )
    os.makedirs("/tmp/home", exist_ok=True)


def compilers():
    """Have gcc and what belongs to it be found, with the headers of this Python."""
    os.environ["PATH"] = f"{COMPILERS}/bin:{os.environ.get('PATH', os.defpath)}"
    headers = sysconfig.get_path("include")
    places = (headers, f"/layers/headers/include/{os.path.basename(headers)}", f"{COMPILERS}/root{headers}")
    os.environ["CPATH"] = next((place for place in places if os.path.exists(place)), headers)


def resolve(request):
    """Everything that is wanted, pinned. What the template has is preferred wherever it fits."""
    # in the source's folder: paths in it are relative to that
    wanted, limits, pinned = "/app/.vibed-requirements.txt", "/tmp/constraints.txt", "/tmp/pinned.txt"
    write(wanted, request["wanted"])
    write(limits, request["constraints"])
    # uv takes over the versions of an output file that is there, as far as the requirements allow
    write(pinned, [f"{name}=={version}" for name, version in sorted(request["have"].items())])
    argv = ["pip", "compile", "--quiet", "--no-header", "--generate-hashes", "--python", PYTHON]
    argv += ["--output-file", pinned, "--constraints", limits, wanted]
    say(f"resolving {len(request['wanted'])} requirements")
    status, told = run([UV, *argv], quiet=True, cwd="/app")
    if status != 0:
        # uv names one that does not exist at a time, and says of some that a version of it does not
        return failed(told, unknown=unknown(request["wanted"]) if UNSOLVED in told else [])
    with open(pinned) as file:
        send({"resolution": file.read()}).close()
    return 0


def install(request):
    """What is pinned, nothing else, laid out as Python's user base is."""
    os.mkdir(LAYER)
    whose = {}
    if request["pins"]:
        fault = build(request) if request["builds"] else unpack(request)
        if fault is not None:
            return failed(**fault)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(LAYER, ".lock"))
        if not request["builds"]:
            whose = pieces.found(LAYER, CACHE, request["pins"])
    compile_modules()
    if whose:
        pieces.keep(LAYER, whose)
    told = {"installed": True, "packages": sorted(whose), "lacking": lacking() if request.get("compilers") else {}}
    connection = send(told)
    # its own tar: as quick as a copy
    packed = subprocess.run(["tar", "-C", LAYER, "-cf", "-", "."], stdout=connection.fileno())
    connection.close()
    shutil.rmtree(LAYER, ignore_errors=True)
    return packed.returncode


def unpack(request):
    """Have ready-made files installed, without anything of a package being run. Returns what to say of a failure: that
    there is none of some package (`unbuilt`), and for which Pythons there is.
    """
    status, told = run(uv(request), cwd="/app", until=UNSOLVED)
    if status == 0:
        return None
    return {"told": told, "unbuilt": True, "wheels": wheels(request["pins"])} if UNBUILT in told else {"told": told}


def build(request):
    """The same, and have built what has to be. Returns what to say of a failure."""
    status, told = run(uv(request), cwd="/app")
    if status != 0 and OLD_SETUPTOOLS.search(told):
        say(f"a package is built with what setuptools has dropped: once more with {WITH_SETUPTOOLS}")
        constraints = "/tmp/build-constraints.txt"
        write(constraints, [WITH_SETUPTOOLS])
        status, told = run([*uv(request), "--build-constraints", constraints], cwd="/app")
    return None if status == 0 else {"told": told}


def uv(request):
    pins = "/tmp/pins.txt"
    write(pins, request["pins"])
    argv = [UV, "pip", "install", "--no-deps", "--prefix", LAYER, "--python", PYTHON, "--requirements", pins]
    if request["verified"]:
        argv.append("--require-hashes")
    return argv if request["builds"] else [*argv, "--no-build"]


def compile_modules():
    """Have what may be imported compiled: not the packages' own tests, which are more than half of some, and never what
    does not compile. A module without bytecode is compiled each time that it is imported.
    """
    began = time.monotonic()
    found = [
        os.path.join(at, name)
        for at, _, names in os.walk(LAYER)
        if "tests" not in os.path.relpath(at, LAYER).split(os.sep)
        for name in names
        if name.endswith(".py")
    ]
    found.sort(key=os.path.getsize, reverse=True)
    argv = [PYTHON, "-I", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash", "-i", "-"]
    workers = max(1, min(os.cpu_count() or 1, len(found)))
    processes = []
    for place in range(workers):
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        process.stdin.write("\n".join(found[place::workers]).encode())
        process.stdin.close()
        processes.append(process)
    for process in processes:
        process.wait()
    say(f"compiled {len(found)} modules in {time.monotonic() - began:.1f} s")


def lacking():
    """The libraries that what was compiled wants and that are not there."""
    argv = [PYTHON, "-I", os.path.join(OUT, "linked.py"), LAYER]
    return json.loads(subprocess.run(argv, capture_output=True, text=True).stdout or "{}")


def wheels(pins):
    """For which Pythons there are ready-made files of what this one has none of."""
    argv = [PYTHON, "-I", os.path.join(OUT, "wheels.py"), os.environ.get("UV_DEFAULT_INDEX", "")]
    told = subprocess.run(argv, input="\n".join(pins), capture_output=True, text=True).stdout
    return json.loads(told or "{}")


def unknown(wanted):
    """The names among the requirements that the registry does not have."""
    names = re.findall(r"^\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)", "\n".join(wanted), re.MULTILINE)
    index = os.environ.get("UV_DEFAULT_INDEX", "").rstrip("/")
    fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def absent(name):
        try:
            fetch(f"{index}/{re.sub('[-_.]+', '-', name).lower()}/", timeout=20).close()
        except urllib.error.HTTPError as error:
            return error.code == 404
        except OSError:
            pass
        return False

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        looked = names[:MOST_LOOKED_FOR]
        return [name for name, gone in zip(looked, pool.map(absent, looked)) if gone]


def run(argv, *, cwd, quiet=False, until=None):
    """Run a program, its words in the log (with `quiet`, only those of a failure; not from a line with `until` on);
    returns its status and their end.
    """
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd)
    told = b""
    for line in process.stdout:
        told = (told + line)[-TOLD_BYTES:]
        quiet = quiet or (until is not None and until.encode() in line)
        if not quiet:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    status = process.wait()
    if quiet and status != 0 and until is None:
        sys.stdout.buffer.write(told)
        sys.stdout.buffer.flush()
    return status, told.decode("utf-8", "replace")


def failed(told, **more):
    send({"failed": told, **more}).close()
    return 1


def send(answer):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.path.join(OUT, "out.sock"))
    body = json.dumps(answer).encode()
    connection.sendall(len(body).to_bytes(8, "big") + body)
    return connection


def write(path, lines):
    with open(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
