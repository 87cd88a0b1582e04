"""What an app needs beyond its language, what of it the template lacks, and what would help."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vibed.apps.app import Install

_SERVICES = frozenset(
    {
        # Python
        "openai", "anthropic", "boto3", "botocore", "aioboto3", "stripe", "twilio", "sendgrid", "resend",
        "mailjet-rest", "firebase-admin", "supabase", "pinecone", "pinecone-client", "cohere", "mistralai",
        "groq", "replicate", "together", "litellm", "huggingface-hub", "elevenlabs", "deepgram-sdk",
        "tavily-python", "yfinance", "tweepy", "praw", "spotipy", "slack-sdk", "notion-client", "gspread",
        "pygithub", "python-gitlab", "paypalrestsdk", "plaid-python", "algoliasearch", "googlemaps",
        "newsapi-python", "pyairtable", "simple-salesforce", "pusher", "ccxt", "python-binance",
        "alpha-vantage", "duckduckgo-search", "yt-dlp", "pytube", "youtube-transcript-api", "googletrans",
        "gtts", "wikipedia", "geopy", "ollama", "pyngrok",
        # npm
        "aws-sdk", "firebase", "googleapis", "octokit", "groq-sdk", "cohere-ai", "ai", "nodemailer",
        "contentful", "plaid", "@sendgrid/mail", "@notionhq/client",
    }
)  # fmt: skip
_FAMILIES = (
    "google-", "azure-", "langchain", "llama-index", "@aws-sdk/", "@google-cloud/", "@google/", "@azure/", "@ai-sdk/",
    "@anthropic-ai/", "@langchain/", "@octokit/", "@slack/", "@supabase/", "@huggingface/", "@mistralai/",
)  # fmt: skip
"""Packages that are of no use without the internet, by name and by how their names begin."""

DATABASES = frozenset(
    {
        "psycopg2", "psycopg2-binary", "psycopg", "psycopg-binary", "asyncpg", "pg8000", "mysqlclient", "pymysql",
        "mysql-connector-python", "aiomysql", "asyncmy", "pymongo", "motor", "redis", "pyodbc", "pymssql", "oracledb",
        "cx-oracle",
        "pg", "pg-promise", "postgres", "mysql", "mysql2", "mongodb", "mongoose", "ioredis", "tedious",
    }
)  # fmt: skip
"""Drivers of databases that are reached over the network."""


CURES = {
    "better-sqlite3": "node:sqlite, which Node brings,", "sqlite3": "node:sqlite, which Node brings,",
    "sqlite": "node:sqlite, which Node brings,", "node-fetch": "fetch, which Node brings,", "bcrypt": "scrypt of the"
    " standard library (node:crypto, hashlib)", "bcryptjs": "scrypt of node:crypto", "uuid4": "crypto.randomUUID()",
    "request": "fetch, which Node brings,", "waitress": "gunicorn", "hypercorn": "uvicorn", "daphne": "uvicorn",
    "ujson": "json of the standard library", "orjson": "json of the standard library",
    "peewee": "sqlite3 of the standard library, or SQLAlchemy,", "simplejson": "json of the standard library",
}  # fmt: skip
"""What a template has in the place of a package that it lacks."""

OWN = frozenset(
    {
        "helpers",
        "helper",
        "utils",
        "util",
        "config",
        "models",
        "model",
        "db",
        "database",
        "routes",
        "views",
        "settings",
        "forms",
        "auth",
        "services",
        "schemas",
        "constants",
        "common",
        "core",
        "api",
        "app_utils",
        "main",
    }
)
"""What people call files of their own."""


@dataclass
class Needs:
    """What an app says, or shows, that it needs."""

    names: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    """What is declared or imported of the packages that there are, by the names that they have there."""
    missing: dict[str, str] = field(default_factory=dict)
    """By name: for a person, with what was asked for."""
    unused: list[str] = field(default_factory=list)
    """Missing ones, for a person, that no file that was looked at imports, though one mentions them."""
    pinned: dict[str, str] = field(default_factory=dict)
    """Missing ones that the template has in another version: that version."""
    changes: dict[str, str] = field(default_factory=dict)
    """Missing ones that the template would do for after a change of the source: that change."""
    notes: list[str] = field(default_factory=list)
    vendored: list[str] = field(default_factory=list)
    """Folders of the archive that packages come from."""
    install: Install | None = None
    """What has to be installed, where it can be."""

    def hint(self, template: str) -> str:
        """What would help against what is missing."""
        absent = [name for name in self.missing if name not in self.pinned and name not in self.changes]
        databases = [name for name in absent if name in DATABASES]
        services = [name for name in absent if name in _SERVICES or name.startswith(_FAMILIES)]
        parts = [*self.changes.values()][:5]
        parts += [f"ask for `{name}` without the pin (the template has {v})" for name, v in self.pinned.items()][:5]
        parts += [f"{CURES[name]} does what {name} does" for name in absent if name in CURES][:5]
        own = [name for name in absent if name.replace("-", "_") in OWN]
        if own:
            parts.append(f"{_few(own)} may be a file of yours that is missing in what was sent")
        if services:
            parts.append(
                f"apps here have no network out, so that bringing {_few(services)} would not help: answer without"
                f" {'it' if len(services) == 1 else 'them'}, or from data in the archive"
            )
        if databases:
            parts.append(
                f"apps here have no network out, so that no database server can be reached: use SQLite, and leave"
                f" {_few(databases)} out"
            )
        if self.unused:
            parts.append(
                f"remove those that are not used ({', '.join(self.unused[:5])} … are imported nowhere that was looked"
                " at)"
            )
        if set(absent) - {*databases, *services, *own, *CURES}:
            otherwise = "otherwise " if self.unused else "for the others, " if parts else ""
            parts.append(
                f"{otherwise}use what the template {template} has (vibed templates), or put the packages into the"
                " archive"
            )
        return "; ".join(parts)


def _few(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:5])
