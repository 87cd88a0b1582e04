"""Tables: as wide as the terminal at most, and one line a row where there is none."""

from __future__ import annotations

import io

import pytest

from vibed.cli import output

HEAD = ("NAME", "STATE", "ABOUT")
LONG = (
    "Amazon Linux 2023 is published only as container images and RPM repositories of its vendor, and vibeD builds "
    "templates from Debian packages; use base-debian (a static binary runs in both)"
)
ROWS = (("base-al2023", "not available", LONG), ("workerd", "ready", "A worker"), ("node-24", "ready", ""))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, columns: int | None, *rows: tuple[str, ...]) -> list[str]:
    """The lines of the table in a terminal of that width, or in a file."""
    out = io.StringIO() if columns is None else Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    output.table(HEAD, rows or ROWS)
    return out.getvalue().splitlines()


def test_without_a_terminal_a_row_is_a_line_and_a_long_cell_widens_no_other_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert shown(monkeypatch, None) == [
        "NAME         STATE          ABOUT",
        f"base-al2023  not available  {LONG}",
        "workerd      ready          A worker",
        "node-24      ready",
    ]


def test_what_fits_is_the_same_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 300) == shown(monkeypatch, None)


@pytest.mark.parametrize("columns", [52, 60, 80, 120, 170])
def test_a_long_cell_is_wrapped_below_its_title(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    head, *lines = shown(monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    indent = head.index("ABOUT")
    of_first = lines[: len(lines) - 2]
    assert " ".join(line[indent:] for line in of_first) == LONG, "nothing of it is lost"
    assert all(not line[:indent].strip() for line in of_first[1:])
    assert lines[-2:] == ["workerd      ready          A worker", "node-24      ready"]


@pytest.mark.parametrize("columns", [30, 40, 51])
def test_where_the_others_leave_too_little_room_it_is_wrapped_under_its_row(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    lines = shown(monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    assert lines[:3] == ["NAME         STATE", "    ABOUT", "base-al2023  not available"]
    until = lines.index("workerd      ready")
    assert " ".join(line.removeprefix("    ") for line in lines[3:until]) == LONG
    assert lines[until + 1] == "    A worker"


def test_a_url_stays_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"https://{'a' * 60}.example.com"
    for columns in (20, 60, 100, 200):
        assert any(url in line for line in shown(monkeypatch, columns, ("a", "Ready", url)))
