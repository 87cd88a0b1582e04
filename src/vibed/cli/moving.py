"""`vibed export` and `vibed import`: apps, versions, keys and sources from one vibeD to another."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vibed.apps.errors import VibedError
from vibed.cli import output
from vibed.cli.apps import Json
from vibed.client.api import Client

_ANSWER_S = 3600.0
"""An import answers when all of it is written."""


class ExportCutOff(VibedError):
    """An export ended before its end: nothing of it was kept."""

    code = "ExportCutOff"
    status = 502
    retryable = True


def export(
    to: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A folder: a file in it, named by the time")],
    as_json: Json = False,
) -> None:
    """Write all apps with their versions and sources, and the hashes of keys, to a file.

    It holds the values of the apps' variables; only you can read it.
    """
    path = to / f"vibed-{time.strftime('%Y-%m-%dT%H%M%S')}.tar" if to.is_dir() else to
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
            with Client().download("/v1/export") as pieces:
                for piece in pieces:
                    out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        end = _end(fresh)
        fresh.replace(path)
    except OSError as error:
        raise VibedError(f"{path} cannot be written: {error.strerror or error}", code="Usage") from error
    finally:
        fresh.unlink(missing_ok=True)
    if as_json:
        output.show_json({"file": str(path), "bytes": path.stat().st_size, **end})
        return
    for app in end["left_out"]:
        sys.stderr.write(f"left out: {output.printable(app['app_id'])}: {output.printable(app['message'])}\n")
    sys.stderr.write(
        f"{end['apps']} apps, {end['sources']} sources and {end['keys']} keys are in {path}"
        f" ({path.stat().st_size / 1e6:.1f} MB). On the other vibeD: vibed import {path.name}\n"
    )


def _end(path: Path) -> dict[str, Any]:
    """What the archive says that it holds. Raises `ExportCutOff`."""
    try:
        with tarfile.open(path, "r:") as archive:
            member = archive.extractfile("end.json")
            assert member is not None
            end: dict[str, Any] = json.load(member)
            return end
    except (tarfile.TarError, KeyError, ValueError, AssertionError) as error:
        raise ExportCutOff("the export was cut off", hint="try again; vibeD's log says what was in the way") from error


def take_in(
    file: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A folder: the newest export in it")],
    replace: Annotated[bool, typer.Option("--replace", help="Delete apps of the same name and owner first")] = False,
    as_json: Json = False,
) -> None:
    """Take in what `vibed export` wrote. What is there already is skipped, so that it can be repeated."""
    path = max(file.glob("vibed-*.tar"), default=file) if file.is_dir() else file
    try:
        with path.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            answer = Client(answer_s=_ANSWER_S).send("/v1/import", content, size, query={"replace": replace or None})
    except OSError as error:
        raise VibedError(f"{path} cannot be read: {error.strerror or error}", code="Usage") from error
    report = answer.body
    if as_json:
        output.show_json(report)
    else:
        _tell(report)
    refused = any(app["outcome"] == "refused" for app in report["apps"])
    raise typer.Exit(output.FAILED if refused or not report["complete"] else output.OK)


def _tell(report: dict[str, Any]) -> None:
    if report["apps"]:
        output.table(
            ("APP", "OWNER", "VERSION", "OUTCOME", "WHY"),
            (
                [app["app_id"], app["owner"], str(app["version"]), app["outcome"], app.get("message") or ""]
                for app in report["apps"]
            ),
        )
    keys = report["keys"]
    sys.stderr.write(f"{keys['imported']} keys imported, {keys['skipped']} were there\n")
    for app in report["left_out"]:
        sys.stderr.write(f"not in the export: {output.printable(app['app_id'])}: {output.printable(app['message'])}\n")
    if not report["complete"]:
        sys.stderr.write("the file is cut off: what was whole in it was imported. Export and import again\n")
