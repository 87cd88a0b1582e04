"""What went wrong with an app, told so that its author (often an AI agent) knows what to change.

Pure functions of the app's last lines and of how it ended: `finding` chooses among the errors that `python_errors`,
`node_errors`, `go_errors`, `shell_errors` and `native_errors` read, `causes` knows what is behind it, `telling` says
it.
"""

from vibed.sandboxes.diagnosis.about import About
from vibed.sandboxes.diagnosis.fault import Fault, Place, plain
from vibed.sandboxes.diagnosis.finding import error_in, find, last_words
from vibed.sandboxes.diagnosis.telling import diagnose, exit_of, why_it_answered_so, why_it_ended
from vibed.sandboxes.diagnosis.variables import unset

__all__ = [
    "About",
    "Fault",
    "Place",
    "diagnose",
    "error_in",
    "exit_of",
    "find",
    "last_words",
    "plain",
    "unset",
    "why_it_answered_so",
    "why_it_ended",
]
