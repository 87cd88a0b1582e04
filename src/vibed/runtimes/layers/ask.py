"""What one app asks of the layers, and how what went wrong is told to its owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vibed.apps.app import Install
from vibed.runtimes.layers.keys import Base, Owner
from vibed.runtimes.layers.steps import StepFailed
from vibed.runtimes.layers.trouble import Trouble
from vibed.runtimes.layers.workbench import Workbench
from vibed.sandboxes.driver import RunFailed

FAILED = "DependencyBuildFailed"
COMPILING = "a package has to be compiled: getting compilers (once, about 100 MB) and trying again with them"
"""Said when an installation failed for want of a compiler."""


@dataclass(frozen=True, slots=True)
class Ask:
    """See the module's docstring."""

    install: Install
    base: Base
    files: Mapping[str, bytes]
    """Those that the install names, by path."""
    owner: Owner | None
    """Of a private one."""
    source: Path
    strip: str
    log_dir: Path
    say: Callable[[str], None]
    """Hears each step as it begins."""
    bench: Workbench | None = None
    """Where its steps are done, one after another."""
    compiles: bool = True
    """Whether what has to be compiled is; else it fails, since another template may have it without."""


def unknown(error: StepFailed) -> tuple[str, ...]:
    """Names that the registry does not have, as the builder's program found out; it may say anything."""
    names = error.answer.get("unknown")
    return tuple(name[:100] for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def failure(error: StepFailed, trouble: Trouble | None) -> RunFailed:
    """What the app's owner is told: what is wrong, whether a retry helps, what to change."""
    message, hint, retryable = str(error), "", False
    if error.exit is not None and error.exit.oom:
        message = "the installation used more memory than a build may and was ended"
        hint = "ask for fewer packages, or for versions that need not be compiled"
    elif trouble is not None:
        message, hint, retryable = trouble.message, trouble.hint, trouble.retryable
    if error.unreachable and (retryable or trouble is None):
        message, retryable = error.unreachable[-1], True
        hint = "retrying may help: a package registry could not be reached, or did not answer"
    elif not retryable:
        hint = error.also(hint, "dependencies are installed")
    return RunFailed(
        f"the dependencies cannot be installed: {message}",
        exit=error.exit,
        code=FAILED,
        hint=hint or None,
        retryable=retryable,
        unmet=(unmet := trouble is not None and trouble.unmet and not retryable),
        fits=trouble.fits if trouble is not None and unmet else None,
    )
