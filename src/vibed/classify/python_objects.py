"""Which objects and functions of a Python file are a web application, by what they are made of: a class of a framework
under whatever name it was imported, a class of the file's own that is one, or what a function answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vibed.classify.python_frameworks import known
from vibed.classify.python_text import Definition, Line, Parts

_NAMED_APP = re.compile(
    r"(?:create|make|build|get|init|setup)_(?:\w{1,30}_)?(?:app|application|server|wsgi|asgi|api)(?:_app)?"
)
"""What a function is called that makes an app: not `create_app_config`, `get_app_env`."""
_ASSIGNED = re.compile(r"((?:[\w, :.\[\]]{1,100}?=[ ]*){1,4})(?:await[ ]+)?([\w.]{1,200})[ ]*(\(?)")
_WITH = re.compile(r"(?:async[ ]+)?with[ ]+([\w.]{1,200})\(.{0,1000}\)[ ]+as[ ]+(\w+)[ ]*:")
_RETURNED = re.compile(r"return[ ]+(?:await[ ]+)?([\w.]{1,200})[ ]*(\(?)")
_CALLED = re.compile(r"([\w.]{1,200})\(")
_WORD = re.compile(r"\w+")
_PLAIN = re.compile(r"(?:str|int|float|bool|bytes|None|dict|list|tuple|set)\b")
_WSGI = re.compile(r"[ ]*environ\b[^,()]{0,60},[ ]*start_response\b")
_ASGI = re.compile(r"[ ]*scope\b[^,()]{0,60},[ ]*receive\b[^,()]{0,60},[ ]*send\b")
_CALL_METHOD = re.compile(r"(?:async[ ]+)?def[ ]+__call__\([ ]*self,[ ]*(environ|scope)\b")
_WRAPPERS = {
    "DispatcherMiddleware": "wsgi", "ProxyFix": "wsgi", "SharedDataMiddleware": "wsgi", "WhiteNoise": "wsgi",
    "WSGIApp": "wsgi", "SentryWsgiMiddleware": "wsgi", "ASGIMiddleware": "wsgi", "ASGIApp": "asgi",
    "mount_gradio_app": "asgi", "CORSMiddleware": "asgi", "WsgiToAsgi": "asgi", "WSGIMiddleware": "asgi",
    "SentryAsgiMiddleware": "asgi", "ProtocolTypeRouter": "asgi", "OpenTelemetryMiddleware": "asgi",
}  # fmt: skip
"""What makes an application of another one."""
_METHODS = {
    "make_wsgi_app": "wsgi", "http_app": "asgi", "sse_app": "asgi", "streamable_http_app": "asgi",
    "create_asgi_app": "asgi",
}  # fmt: skip
"""Methods of something else that answer an application."""
_PARTS = {"server": "wsgi", "wsgi_app": "wsgi", "asgi_app": "asgi", "app": ""}
"""What of an application is one as well."""
_PREFERRED = ("app", "application", "server", "api", "asgi_app", "wsgi_app")
_MOST = 400


@dataclass(frozen=True)
class Made:
    """Of what an object is."""

    module: str = ""
    """The framework's; empty for a bare callable."""
    interface: str = ""
    awaited: bool = False
    """Whether it is what a coroutine answers."""


@dataclass(frozen=True)
class Borrowed:
    """What may be an application of another file of the app's."""

    module: str
    there: str
    here: str
    called: bool = False
    """Whether it is what `there` answers."""


@dataclass
class Applications:
    """What one file has."""

    made: dict[str, Made] = field(default_factory=dict)
    """Its objects."""
    borrowed: list[Borrowed] = field(default_factory=list)
    makers: dict[str, Made] = field(default_factory=dict)
    """Functions that answer one when they are called without arguments, in the order in which one would take them."""
    answers: dict[str, Made] = field(default_factory=dict)
    """And those that want arguments as well."""

    @property
    def objects(self) -> tuple[str, ...]:
        return likeliest(self.made)


def applications(parts: Parts, names: Mapping[str, str], stars: Sequence[str]) -> Applications:
    """Look at a file: `names` are what its imports call what, `stars` the modules of which it takes all."""
    found = Applications()
    scope = _Scope(names, stars, makers=found.answers)
    definitions = parts.definitions[:_MOST]
    for one in definitions:
        made = _class_of(one, scope) if one.is_class else _callable(one)
        if made and one.is_class:
            scope.classes[one.name] = made
        elif made:
            found.made[one.name] = made
    for one in definitions:
        if not one.is_class and (made := _answered(one, scope)):
            scope.makers[one.name] = made
            if not _wants_arguments(one):
                found.makers[one.name] = replace(made, awaited=one.is_async)
    found.makers = dict(sorted(found.makers.items(), key=lambda item: not _NAMED_APP.fullmatch(item[0])))
    for line in parts.top[: 10 * _MOST]:
        _bind(line, scope, found)
    for here, dotted in names.items():
        module, _, there = dotted.rpartition(".")
        if here not in found.made and module and len(found.borrowed) < _MOST:
            found.borrowed.append(Borrowed(module, there, here))
    return found


def likeliest(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order in which one would take them."""
    return tuple(sorted(set(names), key=lambda name: (_PREFERRED.index(name) if name in _PREFERRED else 9, name)))


def is_named_as_maker(name: str) -> bool:
    """Whether a function says by its name that it makes an app."""
    return _NAMED_APP.fullmatch(name) is not None


@dataclass
class _Scope:
    names: Mapping[str, str]
    stars: Sequence[str]
    classes: dict[str, Made] = field(default_factory=dict)
    makers: dict[str, Made] = field(default_factory=dict)

    def dotted(self, called: str) -> str:
        first, dot, rest = called.partition(".")
        return self.names.get(first, first) + dot + rest

    def makes(self, called: str) -> Made | None:
        """What a call answers, if it is an application."""
        first, _, _ = called.partition(".")
        last = called.rpartition(".")[2]
        if called in self.classes:
            return self.classes[called]
        if called in self.makers:
            return self.makers[called]
        dotted = self.dotted(called)
        origins = [dotted] if first in self.names else [f"{star}.{called}" for star in self.stars]
        for origin in origins:
            row = known(origin)
            if row and origin.rpartition(".")[2] in row.objects:
                return Made(row.module, row.interface)
        if last in _METHODS and "." in called:
            return Made("", _METHODS[last])
        if dotted.rpartition(".")[2] in _WRAPPERS:
            return Made("", _WRAPPERS[dotted.rpartition(".")[2]])
        return None


def _class_of(one: Definition, scope: _Scope) -> Made | None:
    for base in _CALLED.findall(one.of) or [word.strip() for word in one.of.split(",")]:
        if made := scope.makes(base):
            return made
    for line in one.body[:_MOST]:
        if match := _CALL_METHOD.match(line.text):
            return Made("", "wsgi" if match[1] == "environ" else "asgi")
    return None


def _callable(one: Definition) -> Made | None:
    return Made("", "wsgi") if _WSGI.match(one.of) else Made("", "asgi") if _ASGI.match(one.of) else None


def _answered(one: Definition, scope: _Scope) -> Made | None:
    """What a function answers, if that is an application."""
    if _PLAIN.match(one.returns):
        return None
    local: dict[str, Made] = {}
    named = False
    for line in one.body[:_MOST]:
        match = _ASSIGNED.match(line.text)
        if match and match[3] and (made := scope.makes(match[2])):
            local |= dict.fromkeys(_targets(match[1]), made)
        named = named or any(is_named_as_maker(name.rpartition(".")[2]) for name in _CALLED.findall(line.text))
        if answered := _RETURNED.match(line.text):
            made = scope.makes(answered[1]) if answered[2] else local.get(answered[1].partition(".")[0])
            if made:
                return made
            if is_named_as_maker(one.name) and (answered[1] in ("app", "application") or named):
                return Made()
    return None


def _wants_arguments(one: Definition) -> bool:
    return any(part.strip() and "=" not in part and part.strip()[0] != "*" for part in one.of.split(","))


def _bind(line: Line, scope: _Scope, found: Applications) -> None:
    """Take over what a line that runs at import makes."""
    if match := _WITH.match(line.text):
        if made := scope.makes(match[1]):
            found.made[match[2]] = made
        return
    match = _ASSIGNED.match(line.text)
    if match is None:
        return
    targets, called, is_call = _targets(match[1]), match[2], bool(match[3])
    first, _, last = called.partition(".")
    made = scope.makes(called) if is_call else None
    if made is None and not is_call and first in found.made:
        if last in _PARTS:
            base = found.made[first]
            made = Made(base.module if not _PARTS[last] else "", _PARTS[last] or base.interface)
            if last == "server":
                found.made.pop(first)
        elif not last:
            made = found.made[first]
    if made:
        found.made |= dict.fromkeys(targets, made)
        if targets and called.rpartition(".")[2] in _WRAPPERS:
            for word in set(_WORD.findall(line.text[match.end() :])) & found.made.keys() - set(targets):
                del found.made[word]
        return
    if is_call and first in scope.names:
        module, _, there = scope.dotted(called).rpartition(".")
        found.borrowed += [Borrowed(module, there, target, called=True) for target in targets]
    for target in targets:
        found.made.pop(target, None)


def _targets(text: str) -> list[str]:
    """The names that are assigned: `app: Flask =`, `server = app =`, the first of `app, rt =`."""
    found = [part.partition(":")[0].partition(",")[0].strip() for part in text.split("=")]
    return [name for name in found if name.isidentifier()]
