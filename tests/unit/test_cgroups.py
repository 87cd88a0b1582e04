"""Control groups: v2 against a tree of files, v1 against what this kernel has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vibed.supervision.cgroups import Bounds, Cgroups, Group

V2_FILES = (
    *("cgroup.procs", "cgroup.subtree_control", "cgroup.controllers", "cgroup.kill"),
    *("memory.max", "memory.swap.max", "memory.oom.group", "memory.events", "memory.current"),
    *("cpu.max", "cpu.weight", "pids.max"),
)


class Tree:
    """A cgroup v2 file system as far as files go: a kernel would put the control files into each new folder."""

    def __init__(self, root: Path, controllers: str = "cpu io memory pids") -> None:
        self.root = root
        self.controllers = controllers
        self.populate(root)
        self.mounts = root.parent / "mountinfo"
        self.mounts.write_text(f"30 1 0:26 / {root} rw,relatime - cgroup2 cgroup2 rw\n")
        self.own = root.parent / "cgroup"
        self.own.write_text("0::/system.slice/vibed.service\n")

    def populate(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in V2_FILES:
            (folder / name).write_text(self.controllers if name == "cgroup.controllers" else "")

    def find(self, *, root: bool = True) -> Cgroups:
        return Cgroups.find("0123abcd", mounts=self.mounts, own=self.own, root=root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "cgroup-fs")


def made(tree: Tree, cgroups: Cgroups, id: str = "s1", bounds: Bounds | None = None) -> Group:
    group = cgroups.get(id)
    for folder in reversed([group.procs[0].parent, group.procs[0].parent.parent]):
        tree.populate(folder)
    return cgroups.make(id, bounds or Bounds(64 << 20, 0.5, 100))


class TestV2:
    def test_as_root_groups_lie_at_the_top_outside_of_the_unit_of_vibed(self, tree: Tree) -> None:
        cgroups = tree.find()
        assert cgroups.missing == ()
        assert cgroups.get("s1").procs == (tree.root / "vibed-0123abcd/s1/cgroup.procs",)

    def test_the_controllers_are_handed_down(self, tree: Tree) -> None:
        cgroups = tree.find()
        folder = tree.root / "vibed-0123abcd"
        with pytest.raises(FileNotFoundError):
            # no kernel here that would make the control files of the new folder
            cgroups.make("s1", Bounds())
        assert (tree.root / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
        assert folder.is_dir()

    def test_a_folder_that_a_killed_vibed_had_just_made_gets_its_controllers(self, tree: Tree) -> None:
        made(tree, tree.find())
        folder = tree.root / "vibed-0123abcd"
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"

    def test_bounds_are_written_where_the_kernel_reads_them(self, tree: Tree) -> None:
        folder = made(tree, tree.find()).procs[0].parent
        assert (folder / "memory.max").read_text() == str(64 << 20)
        assert (folder / "memory.swap.max").read_text() == "0"
        assert (folder / "memory.oom.group").read_text() == "1"
        assert (folder / "cpu.max").read_text() == "50000 100000"
        assert (folder / "pids.max").read_text() == "100"

    def test_bounds_that_are_not_given_stay(self, tree: Tree) -> None:
        group = made(tree, tree.find())
        group.bound(Bounds(cpus=2.0, weight=25))
        folder = group.procs[0].parent
        assert (folder / "cpu.weight").read_text() == "25"
        assert (folder / "cpu.max").read_text() == "200000 100000"
        assert (folder / "memory.max").read_text() == str(64 << 20)

    def test_kills_for_memory_are_counted(self, tree: Tree) -> None:
        group = made(tree, tree.find())
        assert group.oom == tree.root / "vibed-0123abcd/s1/memory.events"
        (tree.root / "vibed-0123abcd/s1/memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n")
        assert group.oom_kills() == 1

    def test_all_of_a_group_is_killed_by_one_write(self, tree: Tree) -> None:
        group = made(tree, tree.find())
        group.kill()
        assert (tree.root / "vibed-0123abcd/s1/cgroup.kill").read_text() == "1"

    def test_a_group_that_is_not_there_is_removed_already(self, tree: Tree) -> None:
        assert tree.find().get("s9").remove()

    def test_without_root_the_topmost_delegated_cgroup_is_used(
        self, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = tree.root / "user.slice/user-1000.slice/user@1000.service"
        for folder in (user, user / "app.slice", user / "app.slice/vibed.service"):
            tree.populate(folder)
        tree.own.write_text("0::/user.slice/user-1000.slice/user@1000.service/app.slice/vibed.service\n")
        _only_writable(monkeypatch, user)
        assert tree.find(root=False).get("s1").procs == (user / "vibed-0123abcd/s1/cgroup.procs",)

    def test_without_delegation_nothing_is_bounded_and_the_cure_is_told(
        self, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _only_writable(monkeypatch, tree.root / "nothing")
        cgroups = tree.find(root=False)
        assert cgroups.missing == ("memory", "cpu", "pids")
        assert "no cgroup is delegated" in cgroups.detail
        assert "systemd-run --user --scope" in cgroups.cure
        group = cgroups.make("s1", Bounds(64 << 20, 1.0, 10))
        assert group.procs == ()
        assert group.oom is None

    def test_a_controller_that_is_not_delegated_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tree = Tree(tmp_path / "fs", controllers="memory pids")
        cgroups = tree.find()
        assert cgroups.missing == ("cpu",)
        assert "not cpu" in cgroups.detail


class TestV1:
    def test_controllers_are_found_where_they_are_mounted(self, tmp_path: Path) -> None:
        for name in ("memory", "cpu,cpuacct", "pids"):
            (tmp_path / name).mkdir()
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            f"31 30 0:27 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
            f"32 30 0:28 / {tmp_path}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"33 30 0:29 / {tmp_path}/pids rw - cgroup cgroup rw,pids\n"
            f"34 30 0:30 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
        )
        cgroups = Cgroups.find("ab", mounts=mounts, own=tmp_path / "own", root=True)
        assert cgroups.missing == ()
        assert cgroups.get("s1").folders["cpu"] == tmp_path / "cpu,cpuacct/vibed-ab/s1"
        assert cgroups.get("s1").oom == tmp_path / "memory/vibed-ab/s1/memory.oom_control"

    def test_memory_with_swap_is_raised_before_memory_and_lowered_after_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "s1"
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("100")
        (folder / "memory.memsw.limit_in_bytes").write_text("100")
        group = Group("s1", {"memory": folder}, unified=False)
        for limit in (500, 50):
            group.bound(Bounds(memory_bytes=limit))
            assert (folder / "memory.limit_in_bytes").read_text().startswith(str(limit))
            assert (folder / "memory.memsw.limit_in_bytes").read_text().startswith(str(limit))


@pytest.mark.root
class TestThisKernel:
    @pytest.fixture
    def cgroups(self) -> Cgroups:
        found = Cgroups.find(f"test{os.getpid()}")
        assert found.missing == (), found.detail
        return found

    async def test_a_group_bounds_kills_and_goes(self, cgroups: Cgroups) -> None:
        group = cgroups.make("s1", Bounds(32 << 20, 1.0, 20))
        try:
            enter = " && ".join(f"echo $$ > {procs}" for procs in group.procs)
            process = subprocess.Popen(  # noqa: ASYNC220
                ["/bin/sh", "-c", f"{enter} && echo in && exec sleep 60"], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            assert process.pid in group.processes()
            assert cgroups.ids() == {"s1"}
            assert not group.remove()
            group.kill()
            assert process.wait(5) == -9
            assert await group.end()
            assert cgroups.ids() == set()
        finally:
            await group.end()
            cgroups.remove()

    async def test_too_much_memory_is_counted(self, cgroups: Cgroups) -> None:
        group = cgroups.make("s1", Bounds(32 << 20))
        try:
            enter = " && ".join(f"echo $$ > {procs}" for procs in group.procs)
            code = "x = bytearray(200 << 20)"
            process = subprocess.run(["/bin/sh", "-c", f"{enter} && exec python3 -c '{code}'"])  # noqa: ASYNC221
            assert process.returncode == -9
            assert group.oom_kills() >= 1
        finally:
            await group.end()
            cgroups.remove()

    async def test_a_fork_bomb_does_not_outrun_the_end(self, cgroups: Cgroups) -> None:
        group = cgroups.make("s1", Bounds(256 << 20, 1.0, 100))
        enter = " && ".join(f"echo $$ > {procs}" for procs in group.procs)
        bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
        process = subprocess.Popen(["/bin/sh", "-c", f"{enter} && exec python3 -c '{bomb}'"])  # noqa: ASYNC220
        try:
            while len(group.processes()) < 50:
                assert process.poll() is None
            assert await group.end(10)
        finally:
            await group.end(10)
            process.wait(5)
            cgroups.remove()


def _only_writable(monkeypatch: pytest.MonkeyPatch, below: Path) -> None:
    real = os.access

    def access(path: os.PathLike[str] | str, mode: int) -> bool:
        if mode == os.W_OK:
            return Path(path).is_relative_to(below)
        return real(path, mode)

    monkeypatch.setattr(os, "access", access)
