"""Names of modules and packages that somebody has mistyped: which one was meant."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

_PYTHON = frozenset({
    "aiohttp", "anthropic", "bottle", "celery", "chainlit", "dash", "django", "dotenv", "fastapi", "fasthtml", "flask",
    "flask_cors", "flask_login", "flask_sqlalchemy", "gradio", "gunicorn", "httpx", "jinja2", "jwt", "litestar",
    "markdown", "marimo", "matplotlib", "nicegui", "numpy", "openai", "openpyxl", "pandas", "panel", "pillow", "plotly",
    "psycopg", "psycopg2", "pydantic", "pydantic_settings", "pymongo", "pytest", "python-dotenv", "python-multipart",
    "quart", "redis", "requests", "sanic", "scikit-learn", "scipy", "seaborn", "shiny", "sklearn", "sqlalchemy",
    "starlette", "streamlit", "tensorflow", "torch", "tornado", "transformers", "uvicorn", "websockets", "werkzeug",
    "beautifulsoup4", "flask-cors", "flask-login", "flask-sqlalchemy", "pydantic-settings", "pyyaml",
})  # fmt: skip
_NODE = frozenset({
    "axios", "bcrypt", "better-sqlite3", "body-parser", "chalk", "compression", "cookie-parser", "cors", "dayjs",
    "dotenv", "express", "express-session", "fastify", "handlebars", "helmet", "jsonwebtoken", "koa", "lodash",
    "marked", "mongodb", "mongoose", "morgan", "multer", "mysql2", "nanoid", "next", "nodemailer", "passport",
    "prisma", "react", "react-dom", "redis", "sequelize", "socket.io", "svelte", "tailwindcss", "typescript", "uuid",
    "vite", "winston", "child_process", "crypto", "events", "http", "https", "path", "querystring", "readline",
    "stream", "url", "util", "worker_threads", "zlib",
})  # fmt: skip
_KNOWN = {"python": _PYTHON | frozenset(sys.stdlib_module_names), "node": _NODE, "worker": _NODE}
_NEAR = 0.8
"""Two letters changed places in a word of five; `redis` and `reds` are nearer, `yaml` and `toml` are not."""
_SHORTEST = 4


def meant(name: str, kind: str) -> str:
    """What a name is a slip of, among what apps use most; empty where nothing is near. `kind`: `python`, `node`."""
    known = _KNOWN.get(kind, frozenset())
    top = name.partition(".")[0] if kind == "python" else name
    if len(top) < _SHORTEST or top.lower() in known:
        return ""
    return next(iter(difflib.get_close_matches(top.lower(), sorted(known), 1, _NEAR)), "")


def corrected(names: Iterable[str], kind: str, otherwise: str) -> str:
    """What to change where no registry has packages of these names; `otherwise`: a remark where no slip is seen."""
    slips = [f"{found} for {name}" for name in names if (found := meant(name, kind))]
    return f"correct the name ({', '.join(slips) + '?' if slips else otherwise}), or remove it"
