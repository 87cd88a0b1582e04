"""`vibed up`: from nothing to a live URL, one line a step.

It installs what answers the first deploys (the agent, Caddy), starts the watchdog with Caddy, the controller and the
API, deploys an example and says what there is. Everything slower (templates, warm pools) goes on in the background and
is seen with `vibed templates`.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from vibed.apps.errors import VibedError
from vibed.cli import certificate, installation, setting, stopping, watchdog
from vibed.cli.plan import plan
from vibed.cli.readiness import OwnLogs, client, wait_ready, wait_replaced
from vibed.cli.steps import AGAIN, Steps, UpFailed
from vibed.cli.templates import limitations
from vibed.config import Config, load
from vibed.layout import Layout
from vibed.runtimes.shipped import shipped
from vibed.runtimes.tools import Tools

WELCOME = "welcome"
ROOM = 2 << 30
"""Bytes of disk that a first start needs: programs, templates and their downloads. deploy/bootstrap.py asks before."""
ROOM_FOR = "0.2 GB for Python packages, 0.5 GB for programs and downloads, 1.3 GB for templates"


def up(*, detach: bool = False, as_json: bool = False, domain: str | None = None) -> int:
    """Bring vibeD up; in the foreground it stays until interrupted. `domain` is kept in the configuration file.
    Returns the exit status.
    """
    # Tools and images are used by other uids; a hardened root has 077. What is secret has a mode of its own.
    os.umask(0o022)
    config = load() if domain is None else load({**os.environ, "VIBED_DOMAIN": domain})
    layout = Layout.of(config.home, uid_base=config.uid_base)
    steps = Steps(quiet=as_json)
    tools = Tools(config.home)
    try:
        with steps.step("configuration") as say:
            if domain is not None:
                _take_domain(config)
            short = _check(config, layout, tools)
            ended = _change_uids(layout) if installation.is_of_other_uids(layout) else None
            installation.lay_out(config, layout)
            who = "as root, each part under a uid of its own" if os.geteuid() == 0 else "without root (vibed doctor)"
            say(f"{config.home}, {who}")
        if short:
            steps.note("disk", short)
        if ended is not None:
            steps.note("uids", f"they were changed: {ended} sandboxes ended, and what was kept was handed over")
        for name in _programs(config):
            with steps.step(name) as say:
                path = asyncio.run(tools.install(name, _heard(say)))
                say(f"{tools.version(name)}, {path.stat().st_size >> 20} MB")
        caddy = config.caddy or tools.path(_programs(config)[-1])
        if config.https:
            _check_caddy(config, caddy)
        with steps.step("processes") as say:
            logs = OwnLogs(layout)
            started = _start(config, layout, tools, caddy, detach=detach)
            wait_replaced(layout)
            wait_ready(config, layout, logs, say)
            say(f"caddy, controller and API {'started' if started else 'were running'}")
        with steps.step("example") as say:
            live = _welcome(config, layout, say)
        if config.https:
            _certificate(config, layout, steps)
        _hand_over(config, layout)
        facts = _facts(config, layout, live)
    except (VibedError, httpx.HTTPError) as problem:
        error = problem if isinstance(problem, VibedError) else UpFailed(f"the API went away: {problem!r}", hint=AGAIN)
        sys.stderr.write(f"\nvibeD could not be brought up: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"{error.hint}\n")
        return 1
    if as_json:
        print(json.dumps(facts))
    else:
        _print(config, facts)
    if not detach and started is not None:
        return _stay(started)
    return 0


def _programs(config: Config) -> tuple[str, ...]:
    """What is installed before anything is started; Caddy comes last, unless the operator has one."""
    if config.caddy is not None:
        return ("vibed-agent",)
    return ("vibed-agent", "caddy-dns" if config.https else "caddy")


def _take_domain(config: Config) -> None:
    """Keep the domain that was asked for. Raises UpFailed where something is missing for it."""
    if not config.https:
        raise UpFailed(
            f"https://<app>.{config.domain} takes a certificate for all names below {config.domain}, and that takes "
            "records in its DNS: vibeD does not know whose DNS it is in",
            hint=f"in {config.home}/vibed.toml:\n"
            '  dns_provider = "cloudflare"               # or route53, rfc2136, or one that your own `caddy` has\n'
            '  dns_credentials = "/etc/vibed/dns.toml"   # api_token = "…"; chmod 600\n'
            f"and *.{config.domain} and {config.domain} must lead to this machine (docs/how-to/use-a-domain.md)",
        )
    if os.environ.get("VIBED_DOMAIN", config.domain) != config.domain:
        raise UpFailed(f"VIBED_DOMAIN says {os.environ['VIBED_DOMAIN']}", hint="unset it, or leave --domain out")
    setting.keep("domain", config.domain)


def _check_caddy(config: Config, caddy: Path) -> None:
    """Whether Caddy knows the DNS provider. Raises UpFailed."""
    try:
        modules = subprocess.run([str(caddy), "list-modules"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UpFailed(f"{caddy} does not run: {error}", hint="caddy must be the path of a Caddy") from error
    prefix = "dns.providers."
    known = [line.strip().removeprefix(prefix) for line in modules.splitlines() if line.strip().startswith(prefix)]
    if config.dns_provider not in known:
        raise UpFailed(
            f"{'your Caddy' if config.caddy else 'the Caddy that vibeD brings'} knows no DNS provider "
            f"{config.dns_provider!r}; it has {', '.join(known) or 'none'}",
            hint=f"xcaddy build --with github.com/caddy-dns/{config.dns_provider} makes one; `caddy` is where it is",
        )


def _certificate(config: Config, layout: Layout, steps: Steps) -> None:
    """Wait for the certificate, and say how it stands: without one vibeD is up, and the domain is not yet."""
    with steps.step("certificate") as say:
        there = certificate.wait_for_first(config, layout, say)
        say(str(there) if there else "none yet")
    if there is None:
        steps.note(
            "certificate",
            f"*.{config.domain} has none yet: {certificate.trouble(layout) or f'{config.acme_ca} has not answered'}. "
            "It is tried again by itself; until then browsers cannot connect, and nothing is served in plain HTTP. "
            "`vibed doctor` says how it stands.",
        )
    elif there.distrusted:
        steps.note("certificate", f"this machine does not trust it: {there.distrusted}")


def _heard(say: Callable[[str], None]) -> Callable[[str, float | None], None]:
    return lambda text, fraction: say(text)


def _check(config: Config, layout: Layout, tools: Tools) -> str:
    """Whether vibeD can be started here; returns a note when the disk has little room. Raises UpFailed.

    Only a first start needs the room: what was installed before must come back after a reboot all the same.
    """
    free = shutil.disk_usage(_existing(config.home)).free
    if free < ROOM and not all(tools.installed(name) for name in _programs(config)):
        raise UpFailed(
            f"a first start needs 2 GB ({ROOM_FOR}), and the disk of {config.home} has {free / 1e9:.1f} GB free",
            hint="free some space, or set VIBED_HOME to a folder on another disk",
        )
    if watchdog.holder(layout.runtime / "watchdog.lock") is None and not watchdog.running(stopping.state(layout)):
        _check_port("listen", config.listen)
        if config.https:
            _check_port("listen_https", f"{config.https_host}:{config.https_port}")
    return "" if free >= ROOM else f"only {free >> 20} MB free at {config.home}: deploys and builds may fail"


def _check_port(name: str, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            cure = f"another program (or another vibeD) has it: set VIBED_{name.upper()}, e.g. 127.0.0.1:18081"
            if error.errno == errno.EACCES:
                cure = (
                    f"a port below 1024 takes root, or sudo sysctl net.ipv4.ip_unprivileged_port_start={port}; "
                    f"or set VIBED_{name.upper()} to another"
                )
            raise UpFailed(f"{listen} cannot be used: {error.strerror}", hint=cure) from error


def _change_uids(layout: Layout) -> int:
    """Leave the uids of before, such as after a change of `uid_base`; returns how many sandboxes were ended for it.

    A sandbox that lives cannot change: its supervisor gives its sockets and logs to those of before, for good.
    """
    stopping.stop_watchdog(layout)
    ended, left = stopping.end_sandboxes(layout)
    if left:
        raise UpFailed(f"what runs as the uids of before cannot be ended: {'; '.join(left)}", hint=AGAIN)
    installation.hand_over(layout)
    return ended


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _start(
    config: Config, layout: Layout, tools: Tools, caddy: Path, *, detach: bool
) -> subprocess.Popen[bytes] | None:
    """Start the watchdog, or leave the one that runs the same; returns its process when it was started."""
    wanted = json.dumps(plan(config, layout, agent=tools.path("vibed-agent"), caddy=caddy))
    path = layout.runtime / "plan.json"
    before = ""
    with suppress(OSError):
        before = path.read_text()
    running = watchdog.holder(layout.runtime / "watchdog.lock")
    if running is not None and before == wanted:
        return None
    # on the disk before the watchdog is ended: where there is no room for it, that one goes on
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(wanted)
    if running is not None:
        # It leaves its processes to the next one, which replaces those that should run differently: Caddy, and with it
        # every app, goes on through an upgrade of vibeD.
        stopping.end_watchdog(layout, running, watchdog.HAND_OVER)
    fresh.replace(path)
    log = (layout.own_logs / "watchdog.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "vibed.cli.watchdog", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        start_new_session=detach,
    )


def _welcome(config: Config, layout: Layout, say: Callable[[str], None]) -> str:
    """Deploy the example site unless an app of that name is there; returns its URL once it answers.

    By now that app may be anybody's, and do what it likes: that its name leads to it is enough.
    """
    from vibed.sources.pack import pack_directory

    url = config.app_url(WELCOME)
    with client(config, layout) as api:
        there = api.get(f"/v1/apps/{WELCOME}")
        if there.status_code == 404:
            say("deploying")
            source = io.BytesIO()
            pack_directory(shipped("examples") / "static-site", source)
            answer = api.post(
                "/v1/deploy",
                files={"source": ("source.tar.gz", source.getvalue())},
                data={"metadata": json.dumps({"name": WELCOME})},
            )
            if answer.status_code >= 400:
                raise UpFailed(f"the example could not be deployed: {answer.text[:300]}")
        with _apps(config, layout) as apps:
            page = apps.get("/", headers={"Host": f"{WELCOME}.{config.place}"})
        if there.status_code == 404:
            answers = page.status_code == 200
        else:
            answers = page.status_code < 500 or there.json().get("phase") != "Ready"
        if not answers:
            raise UpFailed(f"the example does not answer at {url}: {page.status_code} {page.text[:200]}")
    say(f"live at {url}")
    return url


def _apps(config: Config, layout: Layout) -> httpx.Client:
    """Who asks apps by their names. With certificates, of which there may be none yet, by vibeD's own door."""
    if not config.https:
        return httpx.Client(base_url=f"http://{config.local_address}", timeout=30.0, trust_env=False)
    door = httpx.HTTPTransport(uds=str(layout.front_socket))
    return httpx.Client(base_url=f"http://{config.domain}", transport=door, timeout=30.0, trust_env=False)


def _hand_over(config: Config, layout: Layout) -> None:
    """Let the user who called sudo (or any shell) use `vibed` at once: on the PATH, with URL and key."""
    program = Path(sys.prefix) / "bin" / "vibed"
    if os.geteuid() == 0 and program.exists() and "VIBED_HOME" not in os.environ:
        link = Path("/usr/local/bin/vibed")
        if link.is_symlink() and not link.exists():
            link.unlink()
        if not link.exists():
            with suppress(OSError):
                link.symlink_to(program)
    name = os.environ.get("SUDO_USER")
    if not name or os.geteuid() != 0:
        return
    user = pwd.getpwnam(name)
    folder = Path(user.pw_dir) / ".config" / "vibed"
    for path in (folder.parent, folder):
        if not path.exists():
            path.mkdir(mode=0o700)
            os.chown(path, user.pw_uid, user.pw_gid)
    file = folder / "client.toml"
    fresh = folder / ".client.new"
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(f'url = "{config.local_url}"\ntoken = "{installation.admin_key(layout)}"\n')
        os.fchown(out.fileno(), user.pw_uid, user.pw_gid)
    fresh.replace(file)


def _facts(config: Config, layout: Layout, live: str) -> dict[str, Any]:
    with client(config, layout) as api:
        answer = api.get("/v1/templates")
    templates = answer.json()["items"] if answer.status_code == 200 else []
    return {"api_url": config.api_url, "example_url": live, "home": str(config.home), "templates": templates}


def _print(config: Config, facts: dict[str, Any]) -> None:
    print(
        f"\nvibeD is up.\n\n  API and MCP   {facts['api_url']}  (MCP at /mcp)\n  live example  {facts['example_url']}\n"
    )
    print(f"  {'template':<14} {'isolation':<12} state")
    for item in facts["templates"]:
        if item["available"]:
            warm = f", {item['ready']} of {item['warm_pool_size']} warm" if item["warm_pool_size"] else ""
            state = f"ready{warm}"
        elif item["building"]:
            state = f"being prepared: {item['reason']}"
        elif item.get("on_need"):
            state = item["reason"]
        else:
            state = f"not available: {item['reason']}"
        print(f"  {item['name']:<14} {item['isolation'] or '-':<12} {state[:90]}")
    if notes := limitations(facts["templates"]):
        print("\n" + "\n".join(f"  note: {text}" for text in notes))
    waiting = [item["name"] for item in facts["templates"] if item["building"] and not item["available"]]
    if waiting:
        print(f"\n  {', '.join(waiting)} will be ready by themselves; see `vibed templates`.")
    program = "vibed" if shutil.which("vibed") else str(Path(sys.prefix) / "bin" / "vibed")
    print(f"\n  next          cd <your app> && {program} deploy\n")
    if "SSH_CONNECTION" in os.environ and not config.https:
        server = os.environ["SSH_CONNECTION"].split()[2]
        user = os.environ.get("SUDO_USER") or os.environ.get("USER") or "you"
        print(f"  from your own computer: ssh -L {config.port}:{config.listen} {user}@{server}\n")


def _stay(process: subprocess.Popen[bytes]) -> int:
    """In the foreground: until Ctrl-C, which the watchdog gets too."""
    print("  Ctrl-C stops vibeD; apps are brought back by the next `vibed up`.")
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
