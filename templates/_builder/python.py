"""Resolves or installs an app's Python packages; runs in a builder sandbox, with uv.

    python3 -I python.py        orders in /layers/out/request.json, what comes of it to the socket beside it

What is sent: eight bytes (big-endian) with the length of a JSON object, the object, and then, of an installation, a
tarball of the layer. All that uv prints is in the log; its end is in the object where it failed. As long as nothing of
a package can have been run, another order may follow, in the same form, by the connection of an answer that `waits`.
"""

# It is handed over as it is, without vibeD around it.
# ruff: noqa: PTH100, PTH109, PTH110, PTH113, PTH118, PTH120, PTH123, PTH103

import compileall
import concurrent.futures
import contextlib
import json
import os
import py_compile
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import warnings

OUT = "/layers/out"
sys.path.insert(0, OUT)
import alone  # noqa: E402  beside this file, where an isolated Python does not look
import pieces  # noqa: E402

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
FEW = 64  # modules: they are compiled in the time that programs take to start
TOLD_BYTES = 48 << 10
SENT_BYTES = 1 << 20


def main():
    with open(os.path.join(OUT, "request.json")) as file:
        request = json.load(file)
    prepare()
    if request.get("compilers"):
        say("a package has no ready-made file for this machine: it is compiled")
        compilers()
    while True:
        answer = resolve(request) if request["step"] == "resolve" else install(request)
        waits = not request["builds"] and ("resolution" in answer or "barred" in answer or "unbuilt" in answer)
        connection = send({**answer, "waits": waits})
        if answer.get("installed"):
            # its own tar: as quick as a copy
            return subprocess.run(["tar", "-C", LAYER, "-cf", "-", "."], stdout=connection.fileno()).returncode
        request = ordered(connection) if waits else None
        connection.close()
        if request is None:
            return 1 if "failed" in answer else 0


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
    argv = [UV, "pip", "compile", "--quiet", "--no-header", "--generate-hashes", "--python", PYTHON]
    argv += ["--output-file", pinned, "--constraints", limits, wanted]
    if request["overrides"]:
        overrides = "/tmp/overrides.txt"
        write(overrides, request["overrides"])
        argv += ["--overrides", overrides]
    say(f"resolving {len(request['wanted'])} requirements")
    if request["builds"]:
        status, told = run(argv, silent=True, cwd="/app")
    else:
        # uv asks the interpreter what it is, and remembers that
        run([UV, "python", "find", PYTHON], silent=True, cwd="/app")
        status, told = run(argv, silent=True, cwd="/app", start=alone.start)
        if status != 0 and (alone.REFUSED in told or not told):
            say("a package has to be built to tell what it needs")
            return {"failed": told, "barred": True}
    if status != 0:
        say(told.rstrip())
        # uv names one that does not exist at a time, and says of some that a version of it does not
        return {"failed": told, "unknown": unknown(request["wanted"]) if UNSOLVED in told else []}
    with open(pinned) as file:
        return {"resolution": file.read()}


def install(request):
    """What is pinned, nothing else, laid out as Python's user base is."""
    shutil.rmtree(LAYER, ignore_errors=True)
    os.mkdir(LAYER)
    whose = {}
    if request["pins"]:
        fault = build(request) if request["builds"] else unpack(request)
        if fault is not None:
            return fault
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(LAYER, ".lock"))
        if not request["builds"]:
            whose = pieces.found(LAYER, CACHE, request["pins"])
    compile_modules()
    if whose:
        pieces.keep(LAYER, whose)
    return {"installed": True, "packages": sorted(whose), "lacking": lacking() if request.get("compilers") else {}}


def unpack(request):
    """Have ready-made files installed, without anything of a package being run. Returns what to say of a failure: that
    there is none of some package (`unbuilt`), and for which Pythons there is.
    """
    status, told = run(uv(request), cwd="/app", until=UNSOLVED)
    if status == 0:
        return None
    return {"failed": told, **({"unbuilt": True, "wheels": wheels(request["pins"])} if UNBUILT in told else {})}


def build(request):
    """The same, and have built what has to be. Returns what to say of a failure."""
    status, told = run(uv(request), cwd="/app")
    if status != 0 and OLD_SETUPTOOLS.search(told):
        say(f"a package is built with what setuptools has dropped: once more with {WITH_SETUPTOOLS}")
        constraints = "/tmp/build-constraints.txt"
        write(constraints, [WITH_SETUPTOOLS])
        status, told = run([*uv(request), "--build-constraints", constraints], cwd="/app")
    return None if status == 0 else {"failed": told}


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
    if len(found) <= FEW:
        warnings.simplefilter("ignore")
        for path in found:
            compileall.compile_file(path, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        return say(f"compiled {len(found)} modules in {time.monotonic() - began:.1f} s")
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


def run(argv, *, cwd, silent=False, until=None, start=subprocess.Popen):
    """Run a program, its words in the log (not with `silent`, nor from a line with `until` on); returns its status and
    their end.
    """
    process = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd)
    told = b""
    for line in process.stdout:
        told = (told + line)[-TOLD_BYTES:]
        silent = silent or (until is not None and until.encode() in line)
        if not silent:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    status = process.wait()
    return status, told.decode("utf-8", "replace")


def send(answer):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.path.join(OUT, "out.sock"))
    body = json.dumps(answer).encode()
    connection.sendall(len(body).to_bytes(8, "big") + body)
    return connection


def ordered(connection):
    """The next order; None where none comes."""
    with connection.makefile("rb") as told:
        length = told.read(8)
        return json.loads(told.read(int.from_bytes(length, "big"))) if length else None


def write(path, lines):
    with open(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
