"""`vibed down` stops vibeD and every sandbox; `vibed clean` also removes all that it made."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vibed.cli import installation
from vibed.cli.removing import remove_but_last
from vibed.cli.stopping import end_sandboxes, stop_watchdog
from vibed.config import Config, load
from vibed.layout import Layout
from vibed.runtimes import debian_packages


def down(*, keep_apps: bool = False) -> int:
    """Stop vibeD's processes and, unless `keep_apps`, the sandboxes; data stays. Returns the exit status."""
    config, layout = _where()
    was_up = stop_watchdog(layout)
    ended, left = (0, []) if keep_apps else end_sandboxes(layout)
    print(f"vibeD at {config.home} {'stopped' if was_up else 'was not running'}; {ended} sandboxes ended")
    return _told(left)


def clean(*, yes: bool = False) -> int:
    """Stop everything and remove all that vibeD made on this machine for this VIBED_HOME."""
    config, layout = _where()
    if not yes:
        print(f"This ends every app of {config.home} and removes all of its data, sources and templates.")
        if input("Type yes to go on: ").strip().lower() != "yes":
            print("nothing was changed")
            return 1
    stop_watchdog(layout)
    _, left = end_sandboxes(layout)
    left += installation.remove_runtime(layout)
    for folder in layout.above_runtime:
        with suppress(OSError):
            folder.rmdir()  # unless another vibeD is there
    link = Path("/usr/local/bin/vibed")
    if link.is_symlink() and str(link.readlink()).startswith(f"{config.home}/"):
        try:
            link.unlink()
        except OSError as error:
            left.append(f"{link}: {error.strerror}")
    _forget_client(config)
    if packages := debian_packages.remove(config.home) if os.geteuid() == 0 else "":
        print(packages)
    left += remove_but_last(config.home, "venv")
    gone = [path for path in (config.home, layout.runtime) if not os.path.lexists(path)]
    if gone:
        print(f"removed {' and '.join(map(str, gone))}")
    return _told(left)


def _told(left: Sequence[str]) -> int:
    """Say what could not be removed; returns the exit status."""
    for what in dict.fromkeys(left):
        sys.stderr.write(f"not removed: {what}\n")
    if left:
        sys.stderr.write("see to what is in the way (a file system that is read-only?), then run it again\n")
    return 1 if left else 0


def _where() -> tuple[Config, Layout]:
    config = load()
    return config, Layout.of(config.home, uid_base=config.uid_base)


def _forget_client(config: Config) -> None:
    name = os.environ.get("SUDO_USER")
    if name:
        file = Path(f"~{name}").expanduser() / ".config" / "vibed" / "client.toml"
        if file.exists() and f'"{config.local_url}"' in file.read_text():
            file.unlink()
