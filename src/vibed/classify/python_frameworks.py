"""The web frameworks of Python, one row each: what an app of it is made by, what serves it, and how it is told where to
listen. Everything else about them is found from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HOST = "0.0.0.0"


@dataclass(frozen=True)
class Framework:
    """One row. A file's app is started, in this order: by the framework's own command; by the file itself, when it says
    so; by a server for its object; by a method of its object."""

    module: str
    """What is imported; the longest that fits counts."""
    name: str
    """For a person."""
    objects: frozenset[str] = frozenset()
    """What makes an app: classes, and functions that return one."""
    interface: str = ""
    """`wsgi` or `asgi`, where gunicorn or uvicorn serves an object of it."""
    worker: str = ""
    """The class of gunicorn's workers that serves an object of it."""
    method: str = ""
    """What serves an object of it where no interface does: a call, with the port as `{port}`."""
    command: tuple[str, ...] = ()
    """What starts a file of it, with `{file}` and `{port}`; `python FILE` is no use."""
    itself: frozenset[str] = frozenset()
    """Functions that start it all the same, when a file with such a command calls one."""
    starts: frozenset[str] = frozenset()
    """Functions of the module by which a file starts it, beside what all call so (run, serve, start, launch)."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that say where it listens, with `{port}`; its own code comes before them."""
    stop: str = ""
    """The signal that ends it, where SIGTERM does not."""
    brings: bool = False
    """Whether it brings its own server: a file that imports it and starts something is one."""

    def variables(self, port: int) -> dict[str, str]:
        """The variables, for a port."""
        return {name: value.format(port=port) for name, value in self.env.items()}

    def file_command(self, file: str, port: int) -> tuple[str, ...]:
        """The command for a file of it."""
        return tuple(word.format(file=file, port=port) for word in self.command)


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


def _module(*words: str) -> tuple[str, ...]:
    return ("python3", "-m", *words)


FRAMEWORKS: tuple[Framework, ...] = (
    # Started by a command of their own.
    Framework(
        "streamlit", "Streamlit",
        command=_module(
            "streamlit", "run", "{file}", "--server.port", "{port}", "--server.address", HOST,
            "--server.headless", "true",
        ),
    ),
    Framework(
        "chainlit", "Chainlit",
        command=_module("chainlit", "run", "{file}", "--host", HOST, "--port", "{port}", "-h"),
    ),
    Framework(
        "marimo", "marimo", objects=_of("App"),
        command=_module(
            "marimo", "run", "{file}", "--host", HOST, "--port", "{port}", "--headless", "--no-token",
        ),
        itself=_of("create_asgi_app"),
    ),
    Framework(
        "panel", "Panel",
        command=_module(
            "panel", "serve", "{file}", "--address", HOST, "--port", "{port}", "--allow-websocket-origin=*",
        ),
        itself=_of("serve"),
    ),
    Framework(
        "shiny", "Shiny", objects=_of("App"),
        command=_module("shiny", "run", "--host", HOST, "--port", "{port}", "{file}"), itself=_of("run_app"),
    ),
    Framework(
        "solara", "Solara",
        command=_module("solara", "run", "{file}", "--host", HOST, "--port", "{port}", "--production"),
    ),
    Framework("mesop", "Mesop", command=_module("mesop.bin.bin", "{file}", "--port", "{port}", "--prod")),
    # Started by their own code.
    Framework(
        "gradio", "Gradio", objects=_of("Blocks", "Interface", "ChatInterface", "TabbedInterface"),
        method="launch()", brings=True,
        env={"GRADIO_SERVER_NAME": HOST, "GRADIO_SERVER_PORT": "{port}", "GRADIO_ANALYTICS_ENABLED": "False"},
    ),
    Framework("nicegui", "NiceGUI", brings=True),
    Framework(
        "flet", "Flet", brings=True, starts=_of("app", "app_async", "run", "run_async"),
        env={"FLET_FORCE_WEB_SERVER": "true", "FLET_SERVER_IP": HOST, "FLET_SERVER_PORT": "{port}"},
    ),
    Framework(
        "robyn", "Robyn", objects=_of("Robyn"), method=f"start(host='{HOST}', port={{port}})", brings=True,
        env={"ROBYN_HOST": HOST, "ROBYN_PORT": "{port}"}, stop="SIGINT",
    ),
    Framework("taipy", "Taipy", brings=True),
    Framework("reflex", "Reflex", brings=True),
    # Objects that a server serves.
    Framework(
        "dash", "Dash", objects=_of("Dash", "DashProxy"), method=f"run(host='{HOST}', port={{port}})",
    ),
    Framework("fasthtml", "FastHTML", objects=_of("FastHTML", "fast_app"), interface="asgi", starts=_of("serve")),
    Framework("fastapi", "FastAPI", objects=_of("FastAPI"), interface="asgi"),
    Framework("flask_openapi3", "Flask", objects=_of("OpenAPI", "APIView"), interface="wsgi"),
    Framework("apiflask", "Flask", objects=_of("APIFlask"), interface="wsgi"),
    Framework("flask", "Flask", objects=_of("Flask"), interface="wsgi"),
    Framework("flask_socketio", "Flask", interface="wsgi"),
    Framework(
        "django", "Django", objects=_of("get_wsgi_application", "WSGIHandler"), interface="wsgi",
    ),
    Framework(
        "django.core.asgi", "Django", objects=_of("get_asgi_application"), interface="asgi",
    ),
    Framework("litestar", "Litestar", objects=_of("Litestar"), interface="asgi"),
    Framework("quart", "Quart", objects=_of("Quart"), interface="asgi"),
    Framework("starlette", "Starlette", objects=_of("Starlette"), interface="asgi"),
    Framework("sanic", "Sanic", objects=_of("Sanic"), interface="asgi", brings=True),
    Framework("blacksheep", "BlackSheep", objects=_of("Application"), interface="asgi"),
    Framework("connexion", "Connexion", objects=_of("AsyncApp", "FlaskApp", "App", "FlaskApi"), interface="asgi"),
    Framework("socketio", "Socket.IO", objects=_of("ASGIApp"), interface="asgi"),
    Framework("falcon.asgi", "Falcon", objects=_of("App"), interface="asgi"),
    Framework("falcon", "Falcon", objects=_of("App", "API"), interface="wsgi"),
    Framework("bottle", "Bottle", objects=_of("Bottle", "default_app"), interface="wsgi"),
    Framework("pyramid", "Pyramid", objects=_of("make_wsgi_app"), interface="wsgi"),
    Framework("web", "web.py", interface="wsgi"),
    Framework("werkzeug", "Werkzeug", interface="wsgi"),
    Framework(
        "aiohttp.web", "aiohttp", objects=_of("Application"), worker="aiohttp.GunicornWebWorker", brings=True,
    ),
    Framework("tornado", "Tornado", objects=_of("Application"), worker="tornado", brings=True),
    Framework("microdot", "Microdot", objects=_of("Microdot"), brings=True),
    Framework("cherrypy", "CherryPy", brings=True),
    # Servers.
    Framework("http.server", "http.server of the standard library", brings=True),
    Framework("fastmcp", "FastMCP", brings=True),
    Framework("mcp.server", "the MCP SDK", brings=True),
    *(
        Framework(module, module, brings=True)
        for module in (
            "socketserver", "wsgiref", "uvicorn", "hypercorn", "waitress", "twisted", "gevent", "eventlet",
            "websockets", "pywebio", "bokeh.server", "xmlrpc.server", "granian", "gunicorn", "meinheld", "bjoern",
            "emmett", "muffin", "justpy", "remi", "grpc",
        )
    ),
)  # fmt: skip
"""In the order in which they say most of a file that imports several."""

_BY_MODULE = {row.module: row for row in FRAMEWORKS}
ORDER = {row.module: place for place, row in enumerate(FRAMEWORKS)}


def known(dotted: str) -> Framework | None:
    """The framework that a dotted name belongs to."""
    parts = dotted.split(".")
    return next((row for n in range(min(3, len(parts)), 0, -1) if (row := _BY_MODULE.get(".".join(parts[:n])))), None)


def row(module: str) -> Framework | None:
    """The row of a module."""
    return _BY_MODULE.get(module)


def best(modules: frozenset[str] | set[str]) -> Framework | None:
    """The row that says most of a file that imports these."""
    return min((_BY_MODULE[m] for m in modules if m in _BY_MODULE), key=lambda r: ORDER[r.module], default=None)


Applies = Callable[[Framework], bool]


def modules(applies: Applies) -> frozenset[str]:
    """Those to which something applies."""
    return frozenset(one.module for one in FRAMEWORKS if applies(one))
