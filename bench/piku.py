"""The peer: piku, a self-hosted platform that is pushed to by git and installs on the host, without sandboxes.

It is had as its own installer has it: one file of a pinned commit, with what that asks of Python in an environment of
its own, and a home that is a temporary folder. There is no nginx in front: an app is asked at the port that its
settings name, so piku has nothing to write for one and its requests go one hop less.

`VIBED_BENCH_PIKU` names a clone of its repository for machines that do not reach GitHub.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench import memory, web
from bench.proxy import free_port
from vibed.processes import start_time

REPOSITORY = "https://github.com/piku/piku"
COMMIT = "ca90545d87159b004d9c736d48ac5ed19fca3757"
"""Of 2026-07-09; its last release is of 2024, and its installer takes what the branch has."""
SHA256 = "4d82bf383f3d2ae71bf56948c1af15492bd488aab850c5ba867922bb1f1b4ce1"
"""Of piku.py."""
WANTED = ("click==8.1.8", "uwsgi==2.0.31", "virtualenv==20.35.4")
_PROGRAMS = ("git", "git-shell", "node", "npm")
_PREPARE_S = 900.0
"""uwsgi is compiled, once: pip keeps what came of it."""
_PUSH_S = 300.0
_END_S = 10.0
_SETTINGS = (
    "PIP_",
    "NPM_CONFIG_",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
_CLIENTS = {
    "PIP_CONFIG_FILE": ("PIP_CONFIG_FILE", ".config/pip/pip.conf", ".pip/pip.conf"),
    "NPM_CONFIG_USERCONFIG": ("NPM_CONFIG_USERCONFIG", ".npmrc"),
}
"""Which registries are asked is the business of who runs this: the files of a home that piku's apps do not have."""


class NoPeer(Exception):
    """It cannot be had here; says why."""


class Piku:
    """One piku; use it as a context manager. Raises `NoPeer`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder / "home"
        self._python = folder / "env"
        self._env: dict[str, str] = {}
        self._emperor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Piku:
        try:
            self._install()
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def app(self, files: Mapping[str, str]) -> PikuApp:
        """A new app's work tree, not pushed yet."""
        folder = self._folder / f"app-{free_port()}"
        folder.mkdir()
        app = PikuApp(self, folder, free_port())
        app.git("init", "--quiet", "--initial-branch", "main")
        # of its own environment it passes npm hardly anything: what it has to know goes where an app's settings are
        told = {
            "PORT": str(app.port),
            "BIND_ADDRESS": "127.0.0.1",
            "NPM_CONFIG_CACHE": str(self._home / ".npm"),
            **{name: value for name, value in _client_settings().items() if not name.startswith("PIP_")},
        }
        app.commit({**files, "ENV": "".join(f"{name}={value}\n" for name, value in told.items())})
        return app

    def run(self, *arguments: str, cwd: Path | None = None) -> None:
        """A command in its environment. Raises CalledProcessError, with what was said in its `output`."""
        subprocess.run(
            arguments, cwd=cwd or self._home, env=self._env, check=True, timeout=_PUSH_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def command(self, *arguments: str) -> None:
        """One of piku's own."""
        self.run(str(self._python / "bin" / "python"), str(self._script), *arguments)

    @property
    def _script(self) -> Path:
        return self._home / "piku.py"

    def _install(self) -> None:
        if missing := [name for name in _PROGRAMS if not any((Path(p) / name).exists() for p in os.get_exec_path())]:
            raise NoPeer(f"piku needs {', '.join(missing)}")
        self._home.mkdir(parents=True)
        content = _program(self._folder / "repository")
        # as piku's installer leaves it: a program that the environment with its packages runs
        self._script.write_bytes(content.replace(b"/usr/bin/env python3", bytes(self._python / "bin" / "python"), 1))
        self._script.chmod(0o755)
        try:
            for argv in (
                [sys.executable, "-m", "venv", self._python],
                [self._python / "bin" / "python", "-m", "pip", "install", "--quiet", *WANTED],
            ):
                subprocess.run(argv, check=True, timeout=_PREPARE_S, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            last = (error.stderr or "").strip().splitlines()
            raise NoPeer(f"its Python packages could not be had: {last[-1] if last else error}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoPeer(f"its Python packages could not be had: {error}") from error

    def _begin(self) -> None:
        transport = self._home / "transport"
        # what ssh runs at the other end, without the way there: `ssh piku@host "git-receive-pack 'app'"`
        transport.write_text(
            '#!/bin/sh\nfor last; do :; done\ncd "$HOME"\neval "exec $HOME/piku.py $last"\n'.replace(
                "$HOME/piku.py", shlex.quote(str(self._script))
            )
        )
        transport.chmod(0o755)
        self._env = {
            "HOME": str(self._home),
            "USER": "root",
            "PATH": f"{self._python / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "GIT_SSH_COMMAND": str(transport),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            **_client_settings(),
        }
        self.command("setup")
        settings = self._home / ".piku" / "uwsgi" / "uwsgi.ini"
        self._emperor = subprocess.Popen(
            [self._python / "bin" / "uwsgi", "--ini", settings],
            env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        time.sleep(1.0)
        if self._emperor.poll() is not None:
            log = self._home / ".piku" / "uwsgi" / "uwsgi.log"
            raise NoPeer(f"uwsgi did not start: {log.read_text()[-300:] if log.exists() else 'it said nothing'}")

    def _end(self) -> None:
        """End what it started, each by its pid."""
        if self._emperor is None:
            return
        family = {pid: start_time(pid) for pid in memory.family(self._emperor.pid)}
        self._emperor.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._emperor.wait(_END_S)
        for pid, began in family.items():
            if began is not None and start_time(pid) == began:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._emperor.wait()
        self._emperor = None


class PikuApp:
    """One app of it, in a work tree."""

    def __init__(self, piku: Piku, folder: Path, port: int) -> None:
        self._piku = piku
        self._folder = folder
        self.port = port

    def commit(self, files: Mapping[str, str]) -> None:
        """Write files and commit them."""
        for name, text in files.items():
            (self._folder / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")

    def push(self, mark: str) -> float:
        """Milliseconds from `git push` to the app's own page with the mark. Raises NoPeer."""
        began = time.perf_counter()
        try:
            self.git("push", "--quiet", f"piku@localhost:{self._folder.name}", "main:master")
        except subprocess.CalledProcessError as error:
            raise NoPeer(f"git push failed: {error.output[-300:].decode(errors='replace')}") from error
        request = web.get("/", "localhost")
        while time.perf_counter() - began < _PUSH_S:
            with suppress(OSError, web.Broken, ValueError), web.Connection(("127.0.0.1", self.port)) as visitor:
                page = visitor.send(request)
                if page.status == 200 and mark.encode() in page.body:
                    return (time.perf_counter() - began) * 1000
            time.sleep(0.01)
        raise NoPeer(f"what was pushed did not answer within {_PUSH_S:g} s")

    def destroy(self) -> None:
        """Have piku remove it."""
        self._piku.command("destroy", self._folder.name)

    def git(self, *arguments: str) -> None:
        """In its work tree."""
        self._piku.run("git", *arguments, cwd=self._folder)


def _program(clone: Path) -> bytes:
    source = os.environ.get("VIBED_BENCH_PIKU", "")
    try:
        if not source:
            for argv in (
                ["git", "init", "--quiet", "--bare", clone],
                ["git", "-C", clone, "fetch", "--quiet", "--depth", "1", REPOSITORY, COMMIT],
            ):
                subprocess.run(argv, check=True, timeout=60, capture_output=True)
        shown = ["git", "--git-dir", source or clone, "show", f"{COMMIT}:piku.py"]
        content = subprocess.run(shown, check=True, timeout=60, capture_output=True).stdout
    except subprocess.CalledProcessError as error:
        raise NoPeer(f"piku could not be fetched: {error.stderr.decode(errors='replace').strip()[-200:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPeer(f"piku could not be fetched: {error}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise NoPeer("what was fetched is not the piku.py that is pinned")
    return content


def _client_settings() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name.upper().startswith(_SETTINGS)}
    for name, (variable, *files) in _CLIENTS.items():
        places = [Path.home() / file for file in files]
        if variable not in os.environ and (there := [place for place in places if place.is_file()]):
            found[name] = str(there[0])
    return found
