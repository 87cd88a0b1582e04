"""Apps of frameworks whose packages no template has, as people write them; see `bench.sources`."""

from __future__ import annotations

import json
from collections.abc import Mapping


def django(mark: str) -> Mapping[str, str]:
    """A project of one app, with its settings and the middleware that `startproject` writes. Its version is none that a
    template has."""
    return {
        "manage.py": _MANAGE,
        "requirements.txt": "django==5.2.4\n",
        "site_config/__init__.py": "",
        "site_config/settings.py": _SETTINGS,
        "site_config/urls.py": _URLS.replace("MARK", mark),
        "site_config/wsgi.py": _WSGI,
    }


def streamlit(mark: str) -> Mapping[str, str]:
    """Its page is the same for every app: what the app says comes by a WebSocket."""
    return {
        "app.py": f"import pandas as pd\nimport streamlit as st\n\nst.title('{mark}')\nst.table(pd.Series([1]))\n",
        "requirements.txt": "streamlit\npandas\n",
    }


def gradio(mark: str) -> Mapping[str, str]:
    app = (
        "import gradio as gr\n\n"
        f"demo = gr.Interface(fn=lambda name: 'Hello ' + name, inputs='text', outputs='text', title='{mark}')\n"
        "demo.launch()\n"
    )
    return {"app.py": app, "requirements.txt": "gradio\n"}


def next_app(mark: str) -> Mapping[str, str]:
    """A page that is rendered for each request, and one that is not."""
    package = {
        "name": "bench",
        "private": True,
        "scripts": {"dev": "next dev", "build": "next build", "start": "next start"},
        "dependencies": {"next": "15.5.4", "react": "19.1.1", "react-dom": "19.1.1"},
    }
    return {
        "package.json": json.dumps(package),
        "app/layout.jsx": (
            "export default function Layout({ children }) {\n  return <html><body>{children}</body></html>;\n}\n"
        ),
        "app/page.jsx": (
            "export const dynamic = 'force-dynamic';\n"
            f"export default function Page() {{\n  return <h1>{mark}</h1>;\n}}\n"
        ),
        "app/about/page.jsx": "export default function About() {\n  return <p>about</p>;\n}\n",
    }


_MANAGE = """\
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_config.settings")

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

_SETTINGS = """\
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "bench"
DEBUG = False
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "site_config.urls"
WSGI_APPLICATION = "site_config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
STATIC_URL = "static/"
"""

_URLS = """\
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", lambda request: HttpResponse("<h1>MARK</h1>")),
]
"""

_WSGI = """\
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_config.settings")
application = get_wsgi_application()
"""
