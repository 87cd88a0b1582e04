"""`python -m bench [row…] [--against DIR] [--json FILE] [--quick] [--wait-quiet S]`: measure vibeD against the
floor, or against the vibeD of another checkout, in the same run.

The report goes to standard output, progress to standard error. The exit status is 0 when every row could be measured,
whatever the figures are: a timing is an observation, not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import machine
from bench.against import SOURCES, Against, Checkout
from bench.harness import Bench
from bench.instance import TEMPLATES, TOOLS, prepared
from bench.report import Report, Row, as_text, row_lines
from bench.rows.registry import ROWS
from bench.rows.serving import SERVED
from vibed.runtimes.builder import TemplateBuilder
from vibed.runtimes.templates import load_templates
from vibed.runtimes.tools import Tools


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure vibeD against the floor.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"default: all of {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it works")
    parser.add_argument(
        "--wait-quiet", type=float, default=0.0, metavar="S", help="wait up to S seconds for a load below 1 at each row"
    )
    parser.add_argument(
        "--against", type=Path, metavar="DIR",
        help=f"compare with the vibeD of another checkout instead, in turn: {', '.join((*SOURCES, *SERVED))}",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    known = list(ROWS if given.against is None else (*SOURCES, *SERVED))
    if unknown := [name for name in given.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        checkout = Checkout(given.against) if given.against is not None else None
    except ValueError as error:
        parser.error(str(error))
    if os.geteuid() != 0:
        parser.error("the floors boot sandboxes under uids of their own: run it as root")
    # ended by a signal it still takes away what it brought up
    machine.go_first()  # its clients stand for other machines, which have processors of their own
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    report = Report(quick=given.quick)
    shared = prepared(lambda text: print(f"  ..  {text}", file=sys.stderr, flush=True))
    report.machine = machine.facts(_versions(shared))
    failed = 0
    with ExitStack() as stack:
        bench = stack.enter_context(Bench(shared, quick=given.quick, wait_quiet_s=given.wait_quiet))
        report.disk["before"] = machine.disk(bench.folder, bench.count(100, 30))
        measure = _floor(bench)
        if checkout is not None:
            report.machine["against"] = f"{checkout.commit} in {checkout.folder}"
            measure = stack.enter_context(Against(bench, checkout)).measure
        for name in [name for name in known if name in given.rows or not given.rows]:
            bench.say(f"row {name}")
            row = _measured(bench, name, measure)
            failed += "failed" in row.figures
            report.rows.append(row)
            print("\n".join(row_lines(row)), file=sys.stderr, flush=True)
            if given.json is not None:
                _write(given.json, report)
        report.disk["after"] = machine.disk(bench.folder, bench.count(100, 30))
    report.machine["load at the end"] = f"{machine.load():.2f}"
    print(as_text(report))
    if given.json is not None:
        _write(given.json, report)
    return 1 if failed else 0


def _floor(bench: Bench) -> Callable[[str], Row]:
    return lambda name: ROWS[name](bench)


def _measured(bench: Bench, name: str, measure: Callable[[str], Row]) -> Row:
    began = time.monotonic()
    try:
        row = measure(name)
    except Exception as error:
        # one row that cannot be measured must not cost the others
        traceback.print_exc()
        row = Row(name, "could not be measured", load=machine.load())
        row.figures["failed"] = f"{type(error).__name__}: {error}"[:2000]
        bench.drop()
    row.seconds = time.monotonic() - began
    return row


def _versions(shared: Path) -> dict[str, str]:
    tools = Tools(shared)
    builder = TemplateBuilder(shared, load_templates(), tools)
    versions = {name: tools.version(name) for name in TOOLS}
    for name in TEMPLATES:
        built = builder.ready(name)
        versions[name] = built.digest[:12] if built is not None else "not built"
    return versions


def _write(path: Path, report: Report) -> None:
    path.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
