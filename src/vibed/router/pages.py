"""The pages a visitor sees where no app answers: unknown, starting, failed, vibeD restarting.

One page, no scripts, no outside assets; JSON for clients that ask for it. A visitor is never shown an app's log.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
{refresh}<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --paper: #fbfbfa; --line: #d8dee4; --accent: {accent}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6edf3; --dim: #9198a1; --paper: #111418; --line: #2b3138; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; }}
main {{ width: min(34rem, calc(100vw - 3rem)); padding: 2rem 0; }}
.mark {{ width: 2.5rem; height: .35rem; border-radius: 1rem; background: var(--accent); margin-bottom: 1.4rem; }}
{motion}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0 0 .6rem; font-weight: 650; overflow-wrap: anywhere; }}
p {{ margin: 0 0 .8rem; color: var(--dim); }}
code {{ font: .9em ui-monospace, SFMono-Regular, Menlo, monospace; color: var(--ink); border: 1px solid var(--line);
  border-radius: .35rem; padding: .1rem .4rem; overflow-wrap: anywhere; }}
footer {{ margin-top: 1.8rem; padding-top: .9rem; border-top: 1px solid var(--line); font-size: .85rem; color: var(--dim); }}
</style>
</head>
<body><main>
<div class="mark"></div>
<h1>{title}</h1>
{body}
<footer>vibeD &middot; {code}</footer>
</main></body>
</html>
"""
_MOTION = """.mark { animation: move 1.4s ease-in-out infinite alternate; }
@keyframes move { to { transform: translateX(3rem); } }
@media (prefers-reduced-motion: reduce) { .mark { animation: none; } }"""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer for a name that no app serves right now."""

    status: int
    code: str
    title: str
    paragraphs: tuple[str, ...]
    """Plain text; a part between backquotes is shown as code."""
    retry_after_s: int | None = None
    retryable: bool = False
    accent: str = "#0969da"

    def as_json(self) -> bytes:
        """The same as the API's error body."""
        return json.dumps(
            {
                "code": self.code,
                "message": self.title,
                "details": {"retryable": self.retryable, "hint": " ".join(self.paragraphs).replace("`", "")},
            }
        ).encode()

    def as_html(self) -> bytes:
        """The page for a browser; it asks again by itself where that helps."""
        body = "\n".join(f"<p>{_inline(text)}</p>" for text in self.paragraphs)
        refresh = f'<meta http-equiv="refresh" content="{self.retry_after_s}">\n' if self.retry_after_s else ""
        return _PAGE.format(
            refresh=refresh,
            title=html.escape(self.title),
            accent=self.accent,
            motion=_MOTION if self.retry_after_s else "",
            body=body,
            code=html.escape(self.code),
        ).encode()


def _inline(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def unknown(name: str) -> Page:
    """No app has this name."""
    return Page(
        404,
        "AppNotFound",
        f"There is no app called {name} here",
        (
            "It may have been deleted, or the address has a typing error.",
            f"To put an app at this address: `vibed deploy --name {name}` in its folder.",
        ),
        accent="#8250df",
    )


def bad_name(host: str) -> Page:
    """The host cannot be an app's."""
    return Page(
        404,
        "AppNotFound",
        "This address cannot belong to an app",
        (f"`{host[:100]}` is no valid name: lower-case letters, digits and hyphens, at most 63.",),
        accent="#8250df",
    )


def starting(name: str, reason: str) -> Page:
    """The app is on its way."""
    why = {
        "TemplateBuilding": "Its runtime is being prepared for the first time, which can take a few minutes.",
        "BuildingDependencies": "Its dependencies are being installed.",
    }.get(reason, "This usually takes a moment.")
    return Page(
        503, reason or "Starting", f"{name} is starting", (why, "This page asks again by itself."), 2, True, "#1a7f37"
    )


def failed(name: str, reason: str) -> Page:
    """The app cannot be brought up; its owner sees why."""
    return Page(
        503,
        reason or "AppFailed",
        f"{name} is not running",
        (f"Its owner sees why with `vibed status {name}` and `vibed logs {name}`.",),
        accent="#cf222e",
    )


def restarting() -> Page:
    """The controller is not there right now."""
    return Page(503, "VibedUnavailable", "vibeD is restarting", ("This page asks again by itself.",), 2, True)
