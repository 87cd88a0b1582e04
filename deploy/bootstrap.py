"""What `make` runs: an environment for vibeD, from hashes, without touching the checkout.

    python3 deploy/bootstrap.py up|test|dev [arguments]

`up` installs vibeD into <VIBED_HOME>/venv and calls `vibed up --detach`; `test` and `dev` use an environment with the
development tools in the user's cache. Each is made once and then only when a lock or the code has changed. Standard
library only: it runs under any Python that a machine has, to say what is wrong with it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LOCKS = CHECKOUT / "locks" / "vibed"
MIN_PYTHON = (3, 11)
ROOM = 2 << 30
"""Bytes of disk that a first start needs, as `vibed.cli.up.ROOM`."""
ROOM_FOR = "0.2 GB for Python packages, 0.5 GB for programs and downloads, 1.3 GB for templates"


def main(arguments):
    """Returns the exit status of what was run."""
    if sys.version_info < MIN_PYTHON:
        return fail(
            "vibeD needs Python 3.11 or newer; this is %s at %s" % (sys.version.split()[0], sys.executable),
            "install it (Debian: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.11",
        )
    # what is installed is run by other uids, each of a part of vibeD; a hardened root has 077
    os.umask(0o022)
    what = arguments[0] if arguments else "up"
    if what == "up":
        home = vibed_home()
        # before a minute was spent on packages that are then of no use
        if not (home / "venv" / "vibed.stamp").exists() and (free := room(home)) < ROOM:
            return fail(
                "a first start needs 2 GB (%s), and the disk of %s has %.1f GB free" % (ROOM_FOR, home, free / 1e9),
                "free some space, or set VIBED_HOME to a folder on another disk",
            )
        python = environment(home / "venv", ["runtime.txt"], install=True)
        return subprocess.call([str(python.parent / "vibed"), "up", "--detach", *arguments[1:]], cwd="/")
    if what in ("down", "clean", "doctor"):
        program = vibed_home() / "venv" / "bin" / "vibed"
        if not program.exists():
            if what == "clean" and any((vibed_home() / name).exists() for name in ("state", "templates", "tools")):
                return fail(
                    "vibeD is not installed below %s any more, but the folder is there" % vibed_home(),
                    "see what is in it; to remove it: rm -r %s" % vibed_home(),
                )
            print("vibeD is not installed below %s: nothing to do" % vibed_home())
            return 0
        return subprocess.call([str(program), what, *arguments[1:]], cwd="/")
    if what == "dev":
        with contextlib.redirect_stdout(sys.stderr):
            python = environment(cache() / "dev", ["runtime.txt", "dev.txt"], install=False)
        print(python)
        return 0
    return fail("unknown command %r" % what, "use up, down, clean, doctor or dev")


def room(place):
    """Bytes that are free where `place` is, or will be."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def vibed_home():
    """As `vibed.config.default_home`."""
    if os.environ.get("VIBED_HOME"):
        return Path(os.environ["VIBED_HOME"]).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/vibed")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "vibed"


def cache():
    """Where development environments are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    return Path(base) / "vibed" / name


def environment(place, locks, install):
    """A virtual environment at `place` with `locks` (and vibeD itself) in it; returns its Python."""
    python = place / "bin" / "python"
    stamp = place / "vibed.stamp"
    wanted = fingerprint([LOCKS / name for name in locks] + (sources() if install else []))
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    began = time.monotonic()
    say("environment", "making %s" % place)
    place.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    if not is_ours(python):
        shutil.rmtree(place, ignore_errors=True)
        make_venv(place)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    env = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    for name in locks:
        say("packages", "installing %s by hash" % name)
        run(pip + ["--require-hashes", "--only-binary=:all:", "-r", str(LOCKS / name)], env)
    if install:
        say("vibed", "installing from %s" % CHECKOUT)
        run(pip + ["--no-deps", "--no-build-isolation", "--force-reinstall", str(CHECKOUT)], env)
    stamp.write_text(wanted)
    say("environment", "ready in %.1f s" % (time.monotonic() - began))
    return python


def is_ours(python):
    """Whether an environment is whole and of the Python that runs this: another may have been named since."""
    show = [str(python), "-c", "import pip, sys; print(repr((sys.version, sys.base_prefix)))"]
    try:
        shown = subprocess.run(show, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return shown.strip() == repr((sys.version, sys.base_prefix))


def make_venv(place):
    """Make the environment; where Debian's python3 lacks ensurepip, say or (as root) do what helps."""
    package = "python%d.%d-venv" % sys.version_info[:2]
    cure = "sudo apt-get install %s" % package
    if not can_make_venv() and os.geteuid() == 0 and shutil.which("apt-get"):
        say("packages", "installing %s (Debian), which making an environment needs" % package)
        apt_install(package, place.parent)
    if not can_make_venv():
        sys.exit(fail("%s cannot make a virtual environment: it lacks the module ensurepip" % sys.executable, cure))
    run([sys.executable, "-m", "venv", str(place)], dict(os.environ))


def can_make_venv():
    """Whether this Python has ensurepip: in Debian that is a package of its own."""
    return subprocess.call([sys.executable, "-c", "import ensurepip"], stderr=subprocess.DEVNULL) == 0


def apt_install(package, home):
    """Have apt install `package`, in silence unless that fails; what it brought is remembered for `vibed clean`, as in
    `vibed.runtimes.debian_packages`."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=240", "install", "--yes", "--no-install-recommends", package]
    before = debian_packages()
    # package lists that are absent or too old are the usual cause of a failure
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if command is install and done.returncode == 0:
            break
    else:
        sys.stderr.write(done.stdout)
    brought = debian_packages() - before
    if brought:
        record = home / "debian-packages.json"
        known = set(json.loads(record.read_text())) if record.exists() else set()
        record.write_text(json.dumps(sorted(known | brought)))


def debian_packages():
    """The names of the packages that are installed."""
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"]
    lines = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return {line.split()[1] for line in lines if line.startswith("ii")}


def sources():
    """Every file that goes into the installed vibeD."""
    found = [CHECKOUT / "pyproject.toml"]
    for folder in ("src", "agent", "templates", "locks", "examples", "deploy/caddy"):
        found += [p for p in (CHECKOUT / folder).rglob("*") if p.is_file() and not made(p)]
    return sorted(found)


def made(path):
    """Whether a file is no source: caches, and what `vibed deploy` notes in the folder of an example."""
    return any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(CHECKOUT).parts[:-1])


def fingerprint(paths):
    digest = hashlib.sha256(repr((sys.version, sys.base_prefix)).encode())
    for path in paths:
        digest.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run(command, env):
    status = subprocess.call(command, env=env, cwd="/")
    if status:
        sys.exit(fail("%s ended with status %d" % (" ".join(command[:6]), status), "its own words are above"))


def say(step, text):
    print("  ..  %-14s %s" % (step, text), flush=True)


def fail(what, cure):
    sys.stderr.write("%s\n%s\n" % (what, cure))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
