"""What vibeD cannot run, and what would work instead; docs/reference/classifier.md lists every code."""

from __future__ import annotations

from collections.abc import Sequence

from vibed.apps.errors import VibedError


class ClassifyError(VibedError):
    """The source is well formed but cannot run here as it is; the message says what is wrong, the hint what works."""

    code = "CannotClassify"
    status = 422


class UnsupportedRuntime(ClassifyError):
    """It is written for a language or a runtime that no template has."""

    code = "UnsupportedRuntime"


class NotAWebApp(ClassifyError):
    """It runs, but nobody could open it: a notebook, a library, a command-line program, a bot, a desktop app."""

    code = "NotAWebApp"


class BuildRequired(ClassifyError):
    """It has to be built first, and the result is not in the archive."""

    code = "BuildRequired"


class NoEntrypoint(ClassifyError):
    """Nothing says how to start it."""

    code = "NoEntrypoint"


class AmbiguousProject(ClassifyError):
    """Several things could be meant."""

    code = "AmbiguousProject"


class ProjectBelow(AmbiguousProject):
    """One folder, and only one, holds a project: whoever asked may look there."""

    folder: str = ""
    """From the root, without a slash at its end."""
    beside: Sequence[str] = ()
    """Folders of pages that belong to it, and that it does not serve."""


class DependenciesMissing(ClassifyError):
    """It needs packages that the template does not have. `details.missing` lists them."""

    code = "DependenciesMissing"


class BadRequirements(ClassifyError):
    """A list of dependencies cannot be read; the message quotes the line."""

    code = "BadRequirements"


class BadConfiguration(ClassifyError):
    """A file that says how to run the app (package.json, wrangler, pyproject.toml, go.mod) cannot be read."""

    code = "BadConfiguration"


class BadSource(ClassifyError):
    """A file that is started or shown holds something else than its name says."""

    code = "BadSource"


class BadOverride(ClassifyError):
    """What the user said about the runtime contradicts itself or the source."""

    code = "BadOverride"
