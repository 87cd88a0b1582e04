"""A server that speaks TLS itself: a note, since nobody speaks it to an app here, and every request would be a 502."""

from __future__ import annotations

import re

from vibed.classify import started
from vibed.classify.decision import Decision
from vibed.classify.project import Project
from vibed.sources.errors import quoted

_SPEAKS = re.compile(
    r"\b(ssl_context|ssl_certfile)\s{0,9}=(?!\s{0,9}None)|\b(https(?:['\"]\))?\.createServer|http2\.createSecureServer)\("
    r"|\.(ListenAndServeTLS|ServeTLS|RunTLS|StartTLS|ListenTLS)\(|\b(tls\.Listen)\(|\b(wrap_socket)\([^)\n]{0,200}server_side"
)
_PLAIN = re.compile(r"\bhttp2?(?:['\"]\))?\.createServer\(|\.ListenAndServe\(|\bapp\.listen\(")
_OPTION = re.compile(r"(?:^|\s)(--(?:ssl-)?(?:certfile|keyfile)|--cert|--key)[ =]")


def notes(project: Project, decision: Decision) -> tuple[str, ...]:
    """For a server of the general lane; one that speaks plain HTTP as well is left to choose."""
    if decision.lane != "general":
        return ()
    option = _OPTION.search(" ".join(decision.argv) or decision.shell or "")
    texts = [project.tree.text(path) for path in started.sources(project, decision)]
    found = [match for text in texts if (match := _SPEAKS.search(text))]
    if option is None and (not found or any(_PLAIN.search(text) for text in texts)):
        return ()
    what = option[1] if option else next(group for group in found[0].groups() if group)
    return (
        f"the app speaks TLS itself ({quoted(what)}), and would answer no request here: have it speak plain HTTP,"
        " TLS ends before it",
    )
