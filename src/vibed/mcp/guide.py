"""What an agent reads before it writes an app: what runs here and how it has to behave."""

from __future__ import annotations

from collections.abc import Mapping

_POPULAR = {
    "python-313": (
        "flask", "fastapi", "uvicorn", "starlette", "django", "gunicorn", "requests", "httpx", "aiohttp", "jinja2",
        "pydantic", "sqlalchemy", "numpy", "pandas", "openpyxl", "matplotlib", "pillow", "streamlit",
    ),
    "node-24": (
        "express", "fastify", "koa", "hono", "cors", "body-parser", "ws", "socket.io", "ejs", "axios", "dotenv",
    ),
}  # fmt: skip


INSTRUCTIONS = (
    "vibeD puts a small web app that you wrote at a live URL within seconds. The description of deploy_artifact says "
    "how an app has to be. Look at what you deployed with request_artifact; when it is not running, read `reason` and "
    "`message`."
)


def guide(packages: Mapping[str, Mapping[str, str]]) -> str:
    """For the description of deploy_artifact. `packages`: template name to what it brings (name to version)."""
    lines = [
        "vibeD puts a small web app that you wrote at a live URL within seconds, in a sandbox of its own. Send its",
        "files with deploy_artifact; there is no Dockerfile. How to write an app that runs here:",
        "- It is one web server. It listens on 0.0.0.0 and on the port in the environment variable PORT (8080 unless",
        "  you pass `port`); another port is found too. It begins to serve when it answers, so start it without delay.",
        "- The working directory is the folder of your files: open templates and data by relative path. Writing files",
        "  is possible, but what is written is lost on a restart or redeploy: nothing is kept between versions yet.",
        "- There is no network out of the sandbox and no database beside it: use SQLite or memory, and bundle assets.",
        "- What starts it is found from the files: app.py or main.py (Flask, FastAPI, Django, Streamlit), package.json",
        "  `scripts.start` or server.js, main.go, a Procfile line `web: …`. Say `entrypoint` when it could be unclear.",
    ]
    for template, names in _POPULAR.items():
        there = [name for name in names if name in packages.get(template, {})]
        if there:
            lines.append(f"- {template} has: {', '.join(there)}.")
    lines += [
        "  These start in an instant. Other packages are installed from the registries before the app starts: list",
        "  them (requirements.txt, pyproject.toml, package.json; lock files count), or leave it to the imports. The",
        "  first time that takes longer: pending, BuildingDependencies. DependencyBuildFailed quotes what cannot be",
        "  installed; DependenciesMissing lists what this vibeD cannot install at all: do without, or vendor it.",
        "  list_deployment_targets has every package with its version. Go: a vendor folder.",
        "- What has to be built (Vite, Astro, Angular, Next.js, tsc: a build script in package.json) is built from its",
        "  sources here, without node_modules and without dist. BuildFailed quotes the tool's first error.",
        "- Cheapest and fastest: a static site (index.html and assets), or",
        "  a worker (worker.js: `export default { fetch(request, env) { … } }`), plain JavaScript or TypeScript.",
        "- Configuration comes in `env_vars`. Do not put secrets into files.",
        "When a deploy is not `running`: read `reason` and `message` first, and get_artifact_logs for what the app",
        "printed; change what they say, then call update_artifact with changed_files. The same files fail the same",
        "way: retry unchanged only when the error says retryable. While the status is pending or deploying, ask",
        "get_artifact_status with wait_s.",
    ]
    return "\n".join(lines)
