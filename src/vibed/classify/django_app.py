"""Django projects: by its own server, or by gunicorn where it is made for production."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vibed.classify.decision import Decision
from vibed.classify.python_app import PythonApp
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted

_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE['"]\s*,\s*['"]([\w.]+)['"]""")
_HOSTS = re.compile(r"^ALLOWED_HOSTS[ \t]{0,20}=[ \t]{0,20}(\[[^\]]{0,2000}\]|[^\n]{0,500})", re.MULTILINE)
_ANY_HOST = re.compile(r"""\*|['"]\.""")
_MODEL = re.compile(r"\((?:models\.Model|AbstractUser|AbstractBaseUser)\b")
_ABSTRACT = re.compile(r"^[ \t]{1,40}abstract[ \t]{0,20}=[ \t]{0,20}True", re.MULTILINE)
_DEBUG = re.compile(r"^DEBUG[ \t]{0,20}=[ \t]{0,20}(True|False)\b", re.MULTILINE)


@dataclass(frozen=True)
class _Project:
    """What manage.py and the settings say."""

    tree: Tree
    manage: str
    package: str
    """The package of the settings."""
    settings: str
    """The text of every settings file."""

    @property
    def folder(self) -> str:
        """Where manage.py lies, with its slash."""
        return self.manage.removesuffix("manage.py")

    @property
    def debug(self) -> str:
        """What DEBUG is set to in the end; empty where that cannot be told."""
        modes = _DEBUG.findall(self.settings)
        return modes[-1] if modes else ""

    def migrate(self) -> list[tuple[str, ...]]:
        """SQLite is made where the app runs, so its tables have to be too."""
        migrated = "sqlite3" in self.settings and any("/migrations/" in path for path in self.tree.paths)
        return [("python3", self.manage, "migrate", "--noinput")] if migrated else []

    def collect(self) -> list[tuple[str, ...]]:
        """Storages with a manifest (WhiteNoise's) answer 500 for every page whose files were not collected."""
        return [("python3", self.manage, "collectstatic", "--noinput")] if "STATIC_ROOT" in self.settings else []

    @property
    def turns_hosts_away(self) -> bool:
        """Whether it answers 400 to the name that it has here."""
        hosts = _HOSTS.findall(self.settings)
        if not hosts or _ANY_HOST.search(hosts[-1]):
            return False
        return bool(re.search(r"\w", hosts[-1])) or self.debug != "True"

    @property
    def leads_to_https(self) -> bool:
        """Whether it may send every visitor to the same address by HTTPS."""
        return bool(_TO_HTTPS.search(self.settings))

    def module(self, command: str) -> str:
        """The module of the settings that a command serves it with; empty where the command says that itself."""
        if "DJANGO_SETTINGS_MODULE" in command or "--settings" in command:
            return ""
        served = re.search(r"\b([\w.]+)\.([aw]sgi)\b", command)
        if served is not None:
            for path in self.tree.known(f"{served[2]}.py"):
                if f".{path.removesuffix('.py').replace('/', '.')}".endswith(f".{served[0]}"):
                    own = _SETTINGS.search(self.tree.text(path))
                    return own[1] if own else ""
        own = _SETTINGS.search(self.tree.text(self.manage))
        return own[1] if own else ""

    def notes(self) -> list[str]:
        """What a visitor would stumble over."""
        found = []
        if bare := _without_migrations(self.tree):
            found.append(
                f"{', '.join(map(quoted, bare[:5]))}: models without migrations, so that their tables are missing; run"
                f" python manage.py makemigrations {' '.join(bare[:5])} and deploy the files that it writes"
            )
        return found


def _project(tree: Tree) -> _Project | None:
    """A project with manage.py, at the root or one folder down."""
    manage = tree.first(["manage.py", *(f"{top}/manage.py" for top in tree.tops)])
    if manage is None or "django" not in tree.text(manage).lower():
        return None
    match = _SETTINGS.search(tree.text(manage))
    package = match[1].split(".")[0] if match else ""
    inside = manage.removesuffix("manage.py") + (package or "?")
    texts = [tree.text(path) for path in tree.known(".py") if path.startswith(inside) and "settings" in path]
    return _Project(tree, manage, package, "\n".join(texts))


def django(app: PythonApp) -> Decision | None:
    """The decision for a project that does not say itself how it is started."""
    found = _project(app.tree)
    if found is None:
        return None
    notes: list[str] = []
    build = found.migrate()
    production = "whitenoise" in found.settings or app.declares("whitenoise", "gunicorn")
    if production and app.tree.has(f"{found.folder}{found.package}/wsgi.py"):
        build += found.collect()
        argv = app.gunicorn(f"{found.package}.wsgi:application", found.folder.rstrip("/"))
        why = (
            "a Django project made for production (WhiteNoise or gunicorn is among its requirements), served by"
            " gunicorn"
        )
        if "whitenoise" not in found.settings:
            notes.append("gunicorn serves no static files: without WhiteNoise the admin and your CSS have none")
    else:
        argv = ("python3", found.manage, "runserver", "--noreload", f"0.0.0.0:{app.port}")
        why = "a Django project (manage.py), started by its own server"
        if found.debug == "True":
            why += ", which also serves its static files"
        else:
            notes.append(
                f"{'DEBUG is' if found.debug else 'where DEBUG is'} False, Django’s own server serves no CSS: add"
                " WhiteNoise and gunicorn to the requirements"
            )
    decision = Decision(
        kind="python",
        argv=argv,
        entrypoint=" ".join(argv),
        why=f"It is {why}.",
        build=tuple(build),
        notes=(*notes, *found.notes()),
    )
    return _answering(found, decision)


def prepared(app: PythonApp, decision: Decision) -> Decision:
    """A decision for a command of the project's own, with what has to be done before it: hosts do it unasked, or by
    another line of a Procfile."""
    found = _project(app.tree)
    command = " ".join(decision.argv) or decision.shell or ""
    if found is None or not re.search(r"\b(?:wsgi|asgi)\b|manage\.py", command):
        return decision
    build = [] if "migrate" in command else found.migrate()
    if "collectstatic" not in command and "runserver" not in command:
        build += found.collect()
    decision = replace(decision, build=(*decision.build, *build), notes=(*decision.notes, *found.notes()))
    return _answering(found, decision)


_TO_HTTPS = re.compile(r"^[ \t]{0,20}SECURE_SSL_REDIRECT[ \t]{0,20}=(?![ \t]{0,20}False\b)", re.MULTILINE)
_FOLDER = ".vibed"
_MODULE = "vibed_settings"
_OVER = """from importlib import import_module
own = import_module({own!r})
globals().update({{name: value for name, value in vars(own).items() if name.isupper()}})
"""
"""Settings over a project's own."""
_ANY = 'ALLOWED_HOSTS = ["*"]\n'
"""A router that sends an app nothing but what is for its name has checked the host."""
_AS_ASKED = "SECURE_SSL_REDIRECT = False\n"
"""By HTTPS or not is the router's to say: an app that is asked without it would lead its visitors nowhere."""


def _answering(found: _Project, decision: Decision) -> Decision:
    """A decision with settings that answer at the address that the app has here, where the project's would not."""
    own = found.module(decision.command)
    away, led = found.turns_hosts_away, found.leads_to_https
    if not (away or led):
        return decision
    if not own:
        host = "Django answers 400 to hosts that ALLOWED_HOSTS lacks: add '.localhost' (or the domain of apps), or '*'"
        https = (
            "SECURE_SSL_REDIRECT leads visitors to HTTPS, where nothing answers without a domain of apps: leave it out"
        )
        return replace(decision, notes=(*decision.notes, *([host] if away else ()), *([https] if led else ())))
    told = [f"ALLOWED_HOSTS of {own} does not name it: it answers to its own name all the same"] if away else []
    told += [f"SECURE_SSL_REDIRECT of {own} is not followed: how visitors come is the router's to say"] if led else []
    text = _OVER.format(own=own) + (_ANY if away else "") + (_AS_ASKED if led else "")
    write = f"import os; os.makedirs({_FOLDER!r}, exist_ok=True); open('{_FOLDER}/{_MODULE}.py', 'w').write({text!r})"
    path = ":".join(filter(None, [decision.env.get("PYTHONPATH"), f"/app/{_FOLDER}"]))
    return replace(
        decision,
        build=(("python3", "-c", write), *decision.build),
        env={**decision.env, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": _MODULE},
        notes=(*decision.notes, *told),
    )


def _without_migrations(tree: Tree) -> list[str]:
    """Names of Django apps that have models and no migration."""
    found = []
    for path in tree.known("/models.py"):
        text = tree.text(path)
        if len(_MODEL.findall(text)) <= len(_ABSTRACT.findall(text)):
            continue
        folder = path.removesuffix("models.py")
        made = tree.inside(f"{folder}migrations/")
        if all(name.endswith("/__init__.py") for name in made):
            found.append(folder.rstrip("/").rpartition("/")[2])
    return found
