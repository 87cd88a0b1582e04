"""`vibed down` stops vibeD and every sandbox; `vibed clean` also removes all that it made."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from vibed.cli import installation
from vibed.cli.stopping import end_sandboxes, stop_watchdog
from vibed.config import Config, load
from vibed.layout import Layout
from vibed.runtimes import debian_packages


def down(*, keep_apps: bool = False) -> int:
    """Stop vibeD's processes and, unless `keep_apps`, the sandboxes; data stays. Returns the exit status."""
    config, layout = _where()
    was_up = stop_watchdog(layout)
    ended = 0 if keep_apps else end_sandboxes(layout)
    print(f"vibeD at {config.home} {'stopped' if was_up else 'was not running'}; {ended} sandboxes ended")
    return 0


def clean(*, yes: bool = False) -> int:
    """Stop everything and remove all that vibeD made on this machine for this VIBED_HOME."""
    config, layout = _where()
    if not yes:
        print(f"This ends every app of {config.home} and removes all of its data, sources and templates.")
        if input("Type yes to go on: ").strip().lower() != "yes":
            print("nothing was changed")
            return 1
    stop_watchdog(layout)
    end_sandboxes(layout)
    installation.remove_runtime(layout)
    for folder in layout.above_runtime:
        with suppress(OSError):
            folder.rmdir()  # unless another vibeD is there
    link = Path("/usr/local/bin/vibed")
    if link.is_symlink() and str(link.readlink()).startswith(f"{config.home}/"):
        link.unlink()
    _forget_client(config)
    if packages := debian_packages.remove(config.home) if os.geteuid() == 0 else "":
        print(packages)
    shutil.rmtree(config.home, ignore_errors=True)
    print(f"removed {config.home} and {layout.runtime}")
    return 0


def _where() -> tuple[Config, Layout]:
    config = load()
    return config, Layout.of(config.home, uid_base=config.uid_base)


def _forget_client(config: Config) -> None:
    name = os.environ.get("SUDO_USER")
    if name:
        file = Path(f"~{name}").expanduser() / ".config" / "vibed" / "client.toml"
        if file.exists() and f'"{config.api_url}"' in file.read_text():
            file.unlink()
