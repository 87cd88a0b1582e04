"""What an app says and what happens to it, read as it comes and resumed without a gap or a repeat."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import samples
from tests.e2e.client import Client
from tests.e2e.conftest import Apps
from tests.e2e.instance import Instance
from tests.e2e.waiting import eventually

_CHATTY = """
import itertools, os, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer

def chat():
    for number in itertools.count():
        print(f"line {number}", flush=True)
        time.sleep(0.01)

class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args):
        pass

server = HTTPServer(("", int(os.environ["PORT"])), H)
threading.Thread(target=chat, daemon=True).start()
server.serve_forever()
"""


@pytest.fixture(autouse=True)
def _python(vibed: Instance) -> None:
    vibed.client.wait_for_template("python-313")


def _read(client: Client, app: str, count: int, last_id: str | None) -> tuple[list[tuple[int, int, str]], str | None]:
    seen: list[tuple[int, int, str]] = []
    with client.following(app, last_id=last_id) as stream:
        for event in stream:
            if event.event == "log":
                seen.append((event.json["run"], event.json["seq"], event.json["text"]))
                last_id = event.id
            if len(seen) == count:
                break
    return seen, last_id


def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"app.py": _CHATTY})
    seen: list[tuple[int, int, str]] = []
    place: str | None = None
    for count in (7, 1, 30, 2, 60):
        more, place = _read(vibed.client, app, count, place)
        seen += more
    assert [seq for _, seq, _ in seen] == list(range(1, 101))
    chat = [text for _, _, text in seen if text.startswith("line ")]
    assert chat == [f"line {number}" for number in range(len(chat))]
    assert len(chat) > 90


def test_a_reader_survives_a_restart_of_the_api(second: Instance, second_apps: Apps) -> None:
    second.client.wait_for_template("python-313")
    app = second_apps.ready({"app.py": _CHATTY})
    first, place = _read(second.client, app, 20, None)
    second.kill("serve")
    second.wait_until_ready()
    more, _ = _read(second.client, app, 50, place)
    assert [seq for _, seq, _ in first + more] == list(range(1, 71))


def test_a_new_version_goes_on_in_the_same_stream(vibed: Instance, apps: Apps) -> None:
    app = apps.ready({"app.py": _CHATTY})
    _, place = _read(vibed.client, app, 5, None)
    vibed.client.deploy_ready(app, {"app.py": _CHATTY})
    seen = _until_second_run(vibed.client, app, place)
    by_run: dict[int, list[int]] = {}
    for run, seq, _ in seen:
        by_run.setdefault(run, []).append(seq)
    assert len(by_run) == 2
    for seqs in by_run.values():
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert by_run[max(by_run)][0] == 1


def _until_second_run(client: Client, app: str, last_id: str | None) -> list[tuple[int, int, str]]:
    seen: list[tuple[int, int, str]] = []
    with client.following(app, last_id=last_id) as stream:
        for event in stream:
            if event.event == "log":
                seen.append((event.json["run"], event.json["seq"], event.json["text"]))
                newest = max(run for run, _, _ in seen)
                if newest != seen[0][0] and sum(run == newest for run, _, _ in seen) >= 20:
                    break
    return seen


def test_the_tail_is_the_last_lines(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.python_after("for n in range(50): print('line', n)"))
    eventually(lambda: "line 49" in [line["text"] for line in vibed.client.logs(app)], "all lines are there")
    every = vibed.client.logs(app)
    assert vibed.client.logs(app, tail=5) == every[-5:]
    assert vibed.client.logs(app, tail=0) == []
    assert vibed.client.logs(app, tail=1000) == every


def test_a_crashed_app_has_its_last_words(vibed: Instance, apps: Apps) -> None:
    deployed = apps.deploy(
        {
            "app.py": "import sys\nfor n in range(200): print('out', n)\n"
            "sys.stderr.write('the last words')\nsys.stderr.flush()\nsys.exit(3)\n"
        },
        runtime={"template": "python-313", "entrypoint": "app.py"},
    )
    assert deployed.phase == "Failed"
    lines = vibed.client.logs(deployed.app_id)
    assert [line["text"] for line in lines if line["stream"] == "stdout"] == [f"out {n}" for n in range(200)]
    assert any(line["stream"] == "stderr" and line["text"] == "the last words" for line in lines)
    assert any(line["stream"] == "system" and "3" in line["text"] for line in lines)


def test_a_worker_logs_too(vibed: Instance, apps: Apps) -> None:
    vibed.client.wait_for_template("workerd")
    app = apps.ready(
        {
            "worker.js": """
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    console.log("asked for", pathname);
    if (pathname === "/boom") throw new Error("as asked");
    return new Response("ok");
  },
};
"""
        }
    )
    vibed.client.visit(app, "/here")
    assert vibed.client.visit(app, "/boom").status_code == 500
    eventually(
        lambda: "asked for /here" in vibed.client.log_text(app) and "as asked" in vibed.client.log_text(app),
        "the worker's log has both",
    )


def test_events_tell_an_apps_life_and_resume(vibed: Instance, apps: Apps) -> None:
    name = apps.name()
    vibed.client.deploy_ready(name, samples.static(1))
    vibed.client.deploy_ready(name, samples.static(2))

    def both() -> list[dict[str, Any]] | None:
        found = vibed.client.events(name)
        return found if {1, 2} <= {event["version"] for event in found} else None

    events = eventually(both, "both versions have events")
    assert events
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    assert all(event["reason"] and event["message"] and event["at"] for event in events)
    half = seqs[len(seqs) // 2]
    with vibed.client.following(name, "events", last_id=str(half)) as stream:
        rest = []
        for event in stream:
            rest.append(int(event.id or 0))
            if event.id == str(seqs[-1]):
                break
    assert rest == [seq for seq in seqs if seq > half]


def test_a_stream_of_a_deleted_app_ends(vibed: Instance, apps: Apps) -> None:
    app = apps.ready(samples.static(1))
    with vibed.client.following(app, "events") as stream:
        first = next(stream)
        assert first.event == "event"
        other = vibed.client_with(vibed.admin_key)
        other.delete(app)
        other.close()
        last = [event.event for event in stream][-1]
    assert last == "end"
