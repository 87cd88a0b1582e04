"""What vibeD says, in the words of the tools: an agent that has only these cannot run a command."""

from __future__ import annotations

import re

_PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"deploy again with it: `--env (\w+)=…?`, or `env` in the metadata",
         r'call update_artifact with env_vars {"\1": "…"}'),
        (r"`--env (\w+)=[^`]*`(, or `env` in the metadata)?", r'env_vars {"\1": "…"}'),
        (r"`env` in the metadata", "env_vars"),
        (r"`vibed logs[^`]*` has", "get_artifact_logs has"),
        (r"`vibed logs[^`]*`", "get_artifact_logs"),
        (r"`vibed status[^`]*`", "get_artifact_status"),
        (r"`vibed apps[^`]*`", "list_artifacts"),
        (r"list your apps to see their names", "list_artifacts has their names"),
        (r"`vibed templates[^`]*`", "list_deployment_targets"),
        (r"`vibed rollback[^`]*`", "rollback_artifact"),
        (r"`vibed redeploy[^`]*`", "update_artifact"),
        (r"`vibed keys create[^`]*` makes a key", "whoever runs vibeD makes keys"),
        (r"`vibed (up|doctor)[^`]*`", "whoever runs vibeD: it has to be started"),
        (r"deploy the folder it makes: vibed deploy (\S+)", r"deploy the files in \1, by their paths below it"),
        (r"deploy one folder: vibed deploy (\S+)", r"deploy the files of one folder, e.g. \1, by their paths below it"),
        (r"`?vibed deploy (\S+?)`?(?=$|[\s,;.)])", r"deploy_artifact with the files of \1"),
        (r"`vibed deploy[^`]*`", "deploy_artifact"),
        (r"make the archive from inside the folder: tar -C DIR \.", "use paths relative to the app's folder"),
        (r"tar -czf source\.tar\.gz -C DIR \.", "send the files by their paths"),
        (r" \(tar -h does that\)", ""),
        (r"tar without --sparse", "send the files by their paths"),
        (r"write one archive .* tar -A", "send the files by their paths"),
        (r"`?--entrypoint`?", "entrypoint"),
        (r"`?--template`?", "template"),
        (r"`?--port`?", "port"),
    )
)  # fmt: skip


def for_tools(text: str) -> str:
    """A message or a hint without a command line in it."""
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    return text
