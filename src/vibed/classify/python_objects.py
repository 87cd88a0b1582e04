"""Which objects and functions of a Python file are a web application, by how they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAMED_APP = r"(?:create|make|build|get|init|setup)_(?:\w{1,30}_)?(?:app|application|server|wsgi|asgi|api)"
"""What a function is called that makes an app: not `create_app_config`, `get_app_env`."""
_OBJECT = re.compile(
    r"^(\w+)(?:[ \t]*,[ \t]*\w+)*(?:[ \t]*:[ \t]*[\w.\[\]]+)?[ \t]*=[ \t]*(?:await[ \t]+)?(?:\w+\.)*"
    r"(Flask|FastAPI|Starlette|Quart|Litestar|Dash|Bottle|default_app|FastHTML|fast_app|Application|App|API|APIFlask|OpenAPI"
    r"|FalconAPI|get_wsgi_application|get_asgi_application|ASGIApp|WSGIApp|SocketIO|"
    rf"{_NAMED_APP})\(",
    re.MULTILINE,
)
_SERVER_OF = re.compile(r"^(\w+)[ \t]*=[ \t]*\w+\.server\b", re.MULTILINE)
_IMPORTED_OBJECT = re.compile(
    r"^from[ \t]+([\w.]+)[ \t]+import[ \t]+(?:(\w+)[ \t]+as[ \t]+)?(app|application|server)\b", re.MULTILINE
)
_FACTORY = re.compile(
    rf"^(?:async[ \t]+)?def[ \t]+({_NAMED_APP})[ \t]*\(([^()]{{0,300}})\)[ \t]*(?:->[ \t]*([^\n:]{{1,80}}))?:"
    r"((?:[ \t]*[^\s#][^\n]*|[ \t]*#[^\n]*|[ \t]*)(?:\n(?:[ \t]+[^\n]*|[ \t]*|#[^\n]*)(?=\n|\Z))*)",
    re.MULTILINE,
)
_MAKES = re.compile(
    r"\b(?:Flask|FastAPI|Starlette|Quart|Litestar|Dash|Bottle|FastHTML|Application|App|API|APIFlask|OpenAPI|Sanic|Blueprint"
    rf"|get_[aw]sgi_application|{_NAMED_APP})\("
)
_WSGI_CALLABLE = re.compile(r"^def[ \t]+(\w+)\([ \t]*environ\b[^,()\n]{0,60},[ \t]*start_response\b", re.MULTILINE)
_ASGI_CALLABLE = re.compile(
    r"^async[ \t]+def[ \t]+(\w+)\([ \t]*scope\b[^,()\n]{0,60},[ \t]*receive\b[^,()\n]{0,60},[ \t]*send\b", re.MULTILINE
)
_CALLABLE_CLASS = re.compile(
    r"^class[ \t]+(\w+)[^\n]{0,200}:\n(?:(?:[ \t][^\n]*)?\n){0,80}?[ \t]+(?:async[ \t]+)?def[ \t]+__call__\(self,[ \t]*"
    r"(environ|scope)\b",
    re.MULTILINE,
)
_PREFERRED = ("app", "application", "server", "api", "asgi_app", "wsgi_app")
_MOST_CLASSES = 20


@dataclass(frozen=True)
class Applications:
    """What one file has."""

    objects: tuple[str, ...]
    """Names of objects, the likeliest first."""
    imported: tuple[tuple[str, str, str], ...]
    """Names that may be an object of another file: (module, name there, name here)."""
    interface: str
    """`wsgi` or `asgi` where the likeliest object is a bare callable of that kind."""
    factory: str | None
    """A function that makes one when it is called without arguments."""


def applications(text: str) -> Applications:
    """Look at the text of a file."""
    made = _SERVER_OF.findall(text) or [name for name, _ in _OBJECT.findall(text)]
    bare = dict.fromkeys(_WSGI_CALLABLE.findall(text), "wsgi") | dict.fromkeys(_ASGI_CALLABLE.findall(text), "asgi")
    for name, argument in _CALLABLE_CLASS.findall(text)[:_MOST_CLASSES]:
        instance = re.search(rf"^(\w+)[ \t]*=[ \t]*{name}\(", text, re.MULTILINE)
        if instance:
            bare[instance[1]] = "wsgi" if argument == "environ" else "asgi"
    served = likeliest(made or bare)
    imported = (
        () if made else tuple((module, name or here, here) for module, name, here in _IMPORTED_OBJECT.findall(text))
    )
    return Applications(served, imported, bare.get(served[0], "") if served else "", _factory(text))


def likeliest(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order in which one would take them."""
    return tuple(sorted(set(names), key=lambda name: (_PREFERRED.index(name) if name in _PREFERRED else 9, name)))


def _factory(text: str) -> str | None:
    """The function that makes the app when it is called without arguments, and does return one as far as it shows."""
    for name, parameters, returned, body in _FACTORY.findall(text):
        required = [
            part for part in parameters.split(",") if part.strip() and "=" not in part and part.strip()[0] != "*"
        ]
        plain = re.fullmatch(r"(?:str|int|float|bool|bytes|None|dict|list|tuple|set)\b.*", returned.strip())
        if not required and not plain and (_MAKES.search(body) or re.search(r"\breturn[ ]+app(?:lication)?\b", body)):
            return str(name)
    return None
