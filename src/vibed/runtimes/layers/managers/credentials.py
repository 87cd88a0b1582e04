"""What an app's own settings say of who asks a registry. No builder has it: the code of packages runs there, and only
the gate (`vibed.runtimes.gate`) knows registries and what they know their callers by.
"""

from __future__ import annotations

import re

SETTINGS = frozenset({".npmrc", ".yarnrc.yml", ".yarnrc"})
_LINE = re.compile(
    r"^[ \t]*[\"']?(?://[^\s=]{1,200}:)?(?:_authToken|_auth|_password|username|email|certfile|keyfile|cert|key|tokenHelper"
    r"|npmAuthToken|npmAuthIdent|always-auth|npmAlwaysAuth)[\"']?(?:\[\])?[ \t]*[=: ].*$\n?",
    re.MULTILINE,
)
"""Also in the form that `templates/_builder/answer.cjs` has it."""


def without(name: str, text: str) -> str:
    """A file of settings without credentials; any other as it is."""
    return _LINE.sub("", text) if name.rpartition("/")[2] in SETTINGS else text
