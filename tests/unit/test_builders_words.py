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


def test_a_source_of_programs_that_could_not_be_had_is_told_with_what_operator_and_user_can_do() -> None:
    failed = StepFailed("x")
    failed.lacking = {"prisma": "the registry mirror.example cannot be reached"}
    said = failed.elsewhere("an app is built")
    assert said.startswith("Prisma's engines, which no package registry has, could not be fetched: the registry mirror")
    assert '(prisma = "https://…" in [registries.binaries] of vibed.toml, or PRISMA_ENGINES_MIRROR' in said
    assert "Prisma 7 needs no engine to run" in said
