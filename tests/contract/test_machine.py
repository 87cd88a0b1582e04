"""What an app expects of any Linux machine, it finds in a sandbox of each general template.

The programs in `machine/` look for it and print what is wrong; each is run as an app would be.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.driver_kit import SUBJECTS, Bench, Subject, bench
from vibed.apps.app import Start
from vibed.sandboxes.driver import RunFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

MACHINE = Path(__file__).parent / "machine"
PROGRAMS = {
    "base-debian": {"binary": "sh machine.sh"},
    "python-313": {"python": "sh machine.sh && python3 machine.py"},
    "node-24": {"node": "sh machine.sh && node machine.cjs"},
    "go-123": {"go": "sh machine.sh && go build -o /tmp/found machine.go && /tmp/found"},
}


@pytest.fixture
async def on(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as it:
        yield it


@pytest.mark.parametrize("driver", ["gvisor", "process"])
@pytest.mark.parametrize("template", PROGRAMS)
async def test_a_program_finds_what_every_linux_machine_has(on: Bench, template: str, driver: str) -> None:
    ((kind, command),) = PROGRAMS[template].items()
    general = SUBJECTS[driver]
    runtime = replace(general.runtime, template=template, kind=kind, start=Start(shell=f"{command}; exit 3"))
    subject = Subject(driver, general.make, template, runtime, {})
    files = {path.name: path.read_text() for path in MACHINE.iterdir()}
    run = subject.run(on, files, limits=replace(on.roots.limits, memory_mb=1024, disk_mb=512))
    log_dir = on.layout.run_log(run.app_id, run.number)
    # it may be taken for a server, as long as it tries whether it can listen
    with contextlib.suppress(RunFailed):
        await (await subject.start(on, subject.driver(on), run)).sandbox.wait()
    written = [json.loads(line)["text"] for line in (log_dir / "log.jsonl").read_text().splitlines()]
    wrong = [line for line in written if line.startswith("wrong: ")]
    assert not wrong, "\n".join(wrong)
    assert written.count("done") == command.count(" machine.")
