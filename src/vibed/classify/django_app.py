"""Django projects: by its own server, or by gunicorn where it is made for production."""

from __future__ import annotations

import re

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


def django(app: PythonApp) -> Decision | None:
    """A project with manage.py, at the root or one folder down."""
    tree = app.tree
    manage = tree.first(["manage.py", *(f"{top}/manage.py" for top in tree.tops)])
    if manage is None or "django" not in tree.text(manage).lower():
        return None
    folder = manage.removesuffix("manage.py")
    match = _SETTINGS.search(tree.text(manage))
    settings = match[1] if match else ""
    package = settings.split(".")[0]
    texts = "\n".join(
        tree.text(path)
        for path in tree.known(".py")
        if path.startswith(folder + (package or "?")) and "settings" in path
    )
    modes = _DEBUG.findall(texts)
    debug = modes[-1] if modes else ""
    notes = []
    build: list[tuple[str, ...]] = []
    if "sqlite3" in texts and any("/migrations/" in path for path in tree.paths):
        build.append(("python3", manage, "migrate", "--noinput"))
    production = "whitenoise" in texts or app.declares("whitenoise", "gunicorn")
    wsgi = f"{folder}{package}/wsgi.py"
    if production and tree.has(wsgi):
        if "STATIC_ROOT" in texts:
            build.append(("python3", manage, "collectstatic", "--noinput"))
        argv = app.gunicorn(f"{package}.wsgi:application", folder.rstrip("/"))
        why = (
            "a Django project made for production (WhiteNoise or gunicorn is among its requirements), served by"
            " gunicorn"
        )
        if "whitenoise" not in texts:
            notes.append("gunicorn serves no static files: without WhiteNoise the admin and your CSS have none")
    else:
        argv = ("python3", manage, "runserver", "--noreload", f"0.0.0.0:{app.port}")
        why = "a Django project (manage.py), started by its own server"
        if debug == "True":
            why += ", which also serves its static files"
        else:
            notes.append(
                f"{'DEBUG is' if debug else 'where DEBUG is'} False, Django’s own server serves no CSS: add"
                " WhiteNoise and gunicorn to the requirements"
            )
    hosts = _HOSTS.findall(texts)
    if hosts and not _ANY_HOST.search(hosts[-1]) and (debug == "False" or re.search(r"\w", hosts[-1])):
        notes.append(
            "Django answers 400 to hosts that ALLOWED_HOSTS lacks: add '.localhost' (or, where apps have another"
            " domain, that with a dot before it), or '*'"
        )
    if bare := _without_migrations(tree):
        notes.append(
            f"{', '.join(map(quoted, bare[:5]))}: models without migrations, so that their tables are missing; run"
            f" python manage.py makemigrations {' '.join(bare[:5])} and deploy the files that it writes"
        )
    return Decision(
        kind="python",
        argv=argv,
        entrypoint=" ".join(argv),
        why=f"It is {why}.",
        build=tuple(build),
        notes=tuple(notes),
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
