"""Things in the making share a volume of a bounded size, and one of them always comes to its end."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from vibed.runtimes.layers.imaging import ImageFailed
from vibed.runtimes.layers.in_pod import OfPod
from vibed.runtimes.workroom import Workroom


def test_the_first_may_become_as_large_as_one_may_be_and_others_share_what_is_beside_it(tmp_path: Path) -> None:
    workroom = Workroom(most=10, beside=6)
    with workroom.making(tmp_path) as first, workroom.making(tmp_path) as second, workroom.making(tmp_path) as third:
        workroom.write(first, 1)
        workroom.write(second, 4)
        workroom.write(third / "part", 2)
        for other in (second, third):
            with pytest.raises(OSError, match="made for others") as full:
                workroom.write(other, 1)
            assert full.value.errno == errno.ENOSPC
        workroom.write(first, 9)
        with pytest.raises(OSError, match="takes more than"):
            workroom.write(first, 1)


def test_when_the_first_has_ended_the_next_one_is_the_first(tmp_path: Path) -> None:
    workroom = Workroom(most=10, beside=6)
    with workroom.making(tmp_path) as idle, workroom.making(tmp_path) as second:
        with workroom.making(tmp_path) as first:
            workroom.write(first, 10)
            workroom.write(second, 6)
        workroom.write(second, 4)
        workroom.write(idle, 6)
        with pytest.raises(OSError, match="made for others"):
            workroom.write(idle, 1)


def test_who_goes_on_writing_when_its_place_is_gone_is_stopped_and_takes_nothing(tmp_path: Path) -> None:
    workroom = Workroom(most=10, beside=0)
    with workroom.making(tmp_path) as place:
        workroom.write(place, 1)
    with pytest.raises(OSError, match="any more"):
        workroom.write(place, 1)
    with workroom.making(tmp_path) as next_one:
        workroom.write(next_one, 10)


async def test_a_layer_that_outgrows_its_room_is_not_written_on(tmp_path: Path) -> None:
    workroom = Workroom(most=4 << 20, beside=0)
    equipment = OfPod(tmp_path, tmp_path, tmp_path, workroom)

    async def made(place: Path, size: int) -> Path:
        reading, writing = os.pipe()

        def send() -> None:
            with os.fdopen(writing, "wb") as out, contextlib.suppress(BrokenPipeError):
                out.write(os.urandom(size))

        sending = threading.Thread(target=send)
        sending.start()
        try:
            async with equipment.image_beside(place, most_bytes=1 << 30, take=(), beyond="") as image_of:
                return await image_of(reading)
        finally:
            os.close(reading)
            sending.join()

    with workroom.making(tmp_path) as first, workroom.making(tmp_path) as second:
        assert (await made(first, 1 << 20)).stat().st_size > 1 << 20
        with pytest.raises(OSError, match="made for others"):
            await made(second, 3 << 20)
        assert sum(one.stat().st_size for one in second.iterdir()) < 3 << 20
    with workroom.making(tmp_path) as third:
        with pytest.raises(OSError, match="takes more than 4 MiB"):
            await made(third, 16 << 20)
        with pytest.raises(ImageFailed, match="nothing"):
            await made(third, 0)


def test_a_folder_that_cannot_be_made_is_told_as_what_it_is(tmp_path: Path) -> None:
    workroom = Workroom()
    with pytest.raises(FileNotFoundError), workroom.making(tmp_path / "gone"):
        raise AssertionError("there is no such folder")
