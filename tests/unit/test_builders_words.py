"""What is told of a build that asked for what no registry has."""

from __future__ import annotations

from vibed.runtimes.layers.steps import StepFailed


def test_hosts_that_were_asked_for_are_named_with_what_does_without_them() -> None:
    assert StepFailed("x").elsewhere("an app is built") == ""
    said = StepFailed("x", denied={"files.example:443": 2}).elsewhere("an app is built")
    assert (
        said
        == "the build asked for files.example:443: only the package registries can be reached while an app is built"
    )
    prisma = StepFailed("x", denied={"engines.prisma.sh:443": 1}).elsewhere("an app is built")
    assert "Prisma 7 needs no engine from there" in prisma
