"""A layer with a Go toolchain: the newest release of the version of Go that an app asks for, its standard library
compiled.

It comes from the module proxy, as the go command would get it for itself, and is checked with the checksum database.
Nothing of an app decides what is in it but that version, and so all apps share it.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial

from vibed.runtimes.layers.ask import Ask, failure
from vibed.runtimes.layers.keys import layer_key
from vibed.runtimes.layers.layer import Layer
from vibed.runtimes.layers.making import Making
from vibed.runtimes.layers.steps import StepFailed
from vibed.runtimes.layers.trouble import Trouble

_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,4}))?")
_WANTED = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,4})|(?:rc|beta)\d{1,3})?")


async def make(ask: Ask, making: Making, installer: str) -> tuple[Layer, tuple[str, ...]]:
    """The layer that `ask` leads to, and notes for its owner. Raises RunFailed, VibedError, OSError."""
    wanted = ask.install.wanted[0]
    try:
        ask.say(f"looking for Go {wanted}")
        listed = await making.resolve(ask, {})
        version = newest(wanted, listed)
        if version is None:
            raise StepFailed(f"there is no Go {wanted} in the module proxy", said=listed[-2000:])
        key = layer_key("go", ask.base, installer, [f"go {version}"], None)
        if (found := await asyncio.to_thread(making.store.find, key)) is not None:
            return found, ()
        ask.say(f"fetching Go {version}, and compiling its standard library")
        install = partial(making.install, ask, {"toolchain": version})
        return await making.layer(ask, key, {"go": version}, install), ()
    except StepFailed as error:
        raise failure(error, _trouble(wanted, error)) from error


def newest(wanted: str, listed: str) -> str | None:
    """The newest release of the version that is wanted (`1.25`, `1.25.3`, `1.26rc1`), out of a list with spaces; None
    where there is none that is not older.
    """
    match = _WANTED.fullmatch(wanted)
    if match is None:
        return None
    line, least = (int(match[1]), int(match[2])), int(match[3] or 0)
    released = [found for word in listed.split() if (found := _RELEASE.fullmatch(word))]
    fitting = {
        int(one[3] or 0): word
        for one in released
        if (int(one[1]), int(one[2])) == line and int(one[3] or 0) >= least and (word := one[0])
    }
    if fitting:
        return fitting[max(fitting)]
    return wanted if wanted in listed.split() else None


def _trouble(wanted: str, error: StepFailed) -> Trouble | None:
    if error.unreachable:
        return None
    words = error.said.strip().splitlines()
    said = next((line for line in reversed(words) if line.startswith("go: ")), "").removeprefix("go: ")
    if not said or error.exit is None:
        return Trouble(
            f"go.mod asks for Go {wanted}, which the module proxy does not have",
            "lower the `go` line of go.mod to a version that is released",
        )
    return Trouble(
        f"go.mod asks for Go {wanted}, which could not be fetched: {said[:300]}",
        "lower the `go` line of go.mod, or ask the operator: toolchains come from the module proxy, and are checked"
        " with the checksum database",
    )
