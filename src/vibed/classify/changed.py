# ruff: noqa: E501 (one change a line)
"""What packages took away between the version that an app asks for and the one that a template has. An app that uses
none of it does not notice; one that does would fail at its first request."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vibed.sources.errors import quoted


class Change(NamedTuple):
    """Something that is there before a version and not from it on."""

    since: tuple[int, ...]
    used: re.Pattern[str]
    """How it is used; its group is what is shown."""
    instead: str


def _change(since: str, used: str, instead: str) -> Change:
    return Change(tuple(int(part) for part in since.split(".")), re.compile(used), instead)


PYTHON: Mapping[str, tuple[Change, ...]] = {
    "pillow": (
        _change("10", r"\b(Image\.ANTIALIAS)\b", "Image.LANCZOS"),
        _change("10", r"\b(Image\.(?:LINEAR|CUBIC))\b", "Image.BILINEAR or Image.BICUBIC"),
        _change("10", r"(\bdraw\w{0,20}\.(?:multiline_)?textsize\()", "draw.textbbox("),
        _change("10", r"(\b\w{0,20}font\w{0,20}\.get(?:size|offset)\()", "font.getbbox("),
    ),
    "flask": (
        _change("2.3", r"(@\w{1,40}\.before_first_request\b)", "the same code where the app is made"),
        _change("3.0", r"\bfrom[ ]flask[ ]import[ ][^\n#]{0,200}\b(Markup|escape)\b", "from markupsafe import Markup, escape"),
        _change("2.3", r"\bfrom[ ]flask\.json[ ]import[ ][^\n#]{0,200}\b(JSONEncoder|JSONDecoder)\b", "a provider (app.json)"),
        _change("2.3", r"(\b\w{1,40}\.json_encoder)[ ]*=", "app.json = a DefaultJSONProvider"),
        _change("2.3", r"\bfrom[ ]flask[ ]import[ ][^\n#]{0,200}\b(_(?:app|request)_ctx_stack)\b", "g"),
    ),
    "werkzeug": (
        _change("3.0", r"\bfrom[ ](werkzeug\.urls)[ ]import[ ][^\n#]{0,200}\burl_\w", "urllib.parse"),
        _change("2.1", r"\b(safe_str_cmp)\b", "hmac.compare_digest"),
        _change("2.1", r"\bfrom[ ]werkzeug\.wrappers[ ]import[ ][^\n#]{0,200}\b(Base(?:Request|Response))\b", "Request, Response"),
        _change("2.0", r"\bfrom[ ]werkzeug[ ]import[ ][^\n#]{0,200}\b(secure_filename)\b", "from werkzeug.utils import secure_filename"),
        _change("3.0", r"(generate_password_hash\([^()\n]{0,120}['\"]sha\d{1,3}['\"])", "generate_password_hash(password)"),
    ),
    "markupsafe": (_change("2.1", r"\b(soft_unicode)\b", "soft_str"),),
    "pyyaml": (_change("6", r"(\byaml\.load\([\w.\[\]()'\"]{1,80}\))", "yaml.safe_load("),),
    "websockets": (
        _change("14", r"(async[ ]def[ ]\w{1,40}\((?:self,[ ]*)?\w*(?:ws|websocket|socket|conn)\w*,[ ]*path\b)", "a handler without path"),
    ),
    "flask-sqlalchemy": (_change("3.1", r"(\bdb\.engine\.execute\()", "db.session.execute("),),
    "plotly": (_change("6", r"\b(titlefont|heatmapgl|pointcloud)\b", "title_font and its like"),),
    "altair": (
        _change("6", r"\b(?:alt|altair)\.(selection_(?:single|multi))\(", "selection_point("),
        _change("6", r"(\.add_selection\()", ".add_params("),
    ),
    "urllib3": (_change("2", r"\b(method_whitelist)\b", "allowed_methods"),),
    "dnspython": (_change("2", r"\b(resolver\.query)\(", "resolver.resolve("),),
    "markdown": (_change("3.4", r"\b(markdown\.util\.etree)\b", "xml.etree.ElementTree"),),
}  # fmt: skip
"""By distribution."""

_HANDLER = r"\breq(?:uest)?\b"
_TEXT_METHOD = r"(?:length|toString|trim|split|includes|match|replace|map|forEach|filter|join|to\w{4,10}Case|indexOf|startsWith|endsWith|some|slice)"

NODE: Mapping[str, tuple[Change, ...]] = {
    "express": (
        _change("5", rf"({_HANDLER}\.param\()", "req.params, req.query or req.body"),
        _change("5", r"\b(?:app|router|api|server)(\.del\()['\"`]", ".delete("),
        _change("5", r"""(\b(?:redirect|location)\(\s{0,5}(?:\d{3},\s{0,5})?['"]back['"])""", "req.get('Referrer') || '/'"),
        _change("5", r"\bres(?:ponse)?(\.(?:send|jsonp?)\(\s{0,5}[1-5]\d\d\s{0,5}[,)])", "res.status(…).send( or .json("),
        _change("5", r"""\bres(?:ponse)?(\.redirect\(\s{0,5}[^,()\n]{1,200},\s{0,5}30\d\s{0,5}\))""", "res.redirect(301, url)"),
        _change("5", r"\bres(?:ponse)?(?:\.status\([^()]{0,40}\))?(\.sendfile\()", ".sendFile("),
        _change("5", r"""\bres(?:ponse)?(\.(?:status|sendStatus)\(\s{0,5}['"]\d)""", "a number"),
        _change("5", rf"({_HANDLER}\.(?:params|query)\.hasOwnProperty\()", "Object.hasOwn("),
        _change("5", rf"({_HANDLER}\.query)[ ]{{0,5}}=(?![=>])", "a variable: req.query cannot be set"),
        _change("5", rf"({_HANDLER}\.query\.\w{{1,40}}(?:\.(?!{_TEXT_METHOD}\b)\w{{1,40}}\b|\[['\"]\w{{1,40}}['\"]\]))(?!\()", "app.set('query parser', 'extended') before it, for nested queries"),
        _change("5", rf"({_HANDLER}\.accepts(?:Charset|Encoding|Language)\()", "the plural of it"),
        _change("5", r"(\bexpress\.static\.mime\b)", "the package mime-types"),
    ),
    "ws": (
        _change("8", r"""\.on\(\s{0,5}['"](message)['"],\s{0,5}(?:async\s{1,5})?(?:function\s{0,5})?\(?\s{0,5}(\w{1,20})\s{0,5}\)?\s{0,5}(?:=>)?\s{0,5}(?:(?!\.on\()[\s\S]){0,300}?\.send\(\s{0,5}\2\s{0,5}\)""", "message.toString(): messages are Buffers"),
    ),
    "fastify": (
        _change("5", r"(\.listen\(\s{0,5}(?:\d{2,5}|PORT|port|process\.env\.PORT[^,()\n]{0,30})\s{0,5}[,)])", ".listen({ port, host })"),
        _change("5", r"\b(?:reply|res)(\.redirect\(\s{0,5}30\d\s{0,5},)", ".redirect(url, status)"),
        _change("5", r"\b(?:request|req)(\.connection\b)", ".socket"),
    ),
    "koa": (
        _change("3", r"""(\bctx\.redirect\(\s{0,5}['"]back['"])""", "ctx.back()"),
        _change("3", r"(\bapp\.use\(\s{0,5}function\s{0,5}\*)", "an async function"),
    ),
    "@koa/router": (_change("14", r"""\brouter\.(?:get|post|put|delete|patch|all)\(\s{0,5}['"`]([^'"`\n]{0,200}(?:\(\.\*\)|:\w{1,40}\?)[^'"`\n]{0,100})""", "{/:name} or {*path}"),),
    "hono": (
        _change("4", r"(\bc\.jsonT\()", "c.json("),
        _change("4", r"(\bc\.req\.cookie\()", "getCookie(c, …) of hono/cookie"),
        _change("4", r"""['"](hono/serve-static\.module)['"]""", "hono/cloudflare-workers or @hono/node-server/serve-static"),
    ),
    "zod": (
        _change("4", r"\b\w{0,20}(?:[eE]rr(?:or)?|result|parsed)\w{0,20}(\.error\.errors\b)", ".error.issues"),
        _change("4", r"(\bz\.record\(\s{0,5}z\.\w{1,20}\([^()]{0,40}\)\s{0,5}\))", "z.record(z.string(), …)"),
    ),
    "marked": (
        _change("13", r"(\brenderer\.\w{1,20})[ ]{0,5}=[ ]{0,5}(?:function|\()", "a renderer that takes one token"),
        _change("5", r"(\bmarked\.setOptions\(\s{0,5}\{[^{}]{0,300}\bhighlight\b)", "the package marked-highlight"),
    ),
    "uuid": (_change("7", r"""['"](uuid/v[1-5])['"]""", "{ v4 } of uuid"),),
    "handlebars": (),
}  # fmt: skip
"""By package."""

_OLD_ROUTE = re.compile(
    r"""\.(?:get|post|put|delete|patch|all|use|options|head|route)\(\s{0,20}['"`]"""
    r"""((?=[/*(])[^'"`\n]{0,200}?(?:\*(?!\w)|\(|:\w{1,40}\?)[^'"`\n]{0,200})"""
)
"""A path that Express 4 understands and Express 5 does not: `*` without a name, brackets, `:name?`."""
_ROUTE = re.compile(r"""\.(get|delete|all|head|use|post|put|patch)\(\s{0,20}(?:['"`][/*]|async\b|function\b|\()""")
_BODY = re.compile(r"\breq(?:uest)?\.body(?:\.\w|\[['\"])")
_GUARDED = re.compile(r"\breq(?:uest)?\.body\s{0,3}(?:\)|&&|\?\.|\|\||\?\?|\?\s)")
_TAKEN_APART = re.compile(r"\}\s{0,5}=\s{0,5}req(?:uest)?\.body\b(?!\s{0,5}(?:\?\?|\|\|))")
_NEAR = 4000


def used(
    changes: Iterable[Change], texts: Mapping[str, str], asked: tuple[int, ...], have: tuple[int, ...]
) -> list[str]:
    """What of it the texts (by path) use: `NEW for ‘OLD’ in ‘FILE’`, each once."""
    found: dict[str, None] = {}
    for change in changes:
        if not asked < change.since <= have:
            continue
        for path, text in texts.items():
            match = change.used.search(text)
            if match:
                found[f"{change.instead} for {quoted(match[1])} in {quoted(path)}"] = None
    return list(found)


def express_routes(texts: Mapping[str, str]) -> list[str]:
    """Paths that Express 5 spells otherwise."""
    found = [(match[1], path) for path, text in texts.items() for match in _OLD_ROUTE.finditer(text)]
    return list(dict.fromkeys(f"{_new_route(was)} for {quoted(was)} in {quoted(path)}" for was, path in found))


def express_bodies(texts: Mapping[str, str]) -> tuple[list[str], bool]:
    """Where `req.body`, `{}` in Express 4 for a request without a body and undefined in 5, is read for requests that
    have none as a rule; and whether it is read for others."""
    found: dict[str, None] = {}
    others = False
    for path, text in texts.items():
        routes = [(match.start(), match[1]) for match in _ROUTE.finditer(text)]
        looked_at = [match.start() for match in _GUARDED.finditer(text)]
        for match in [*_BODY.finditer(text), *_TAKEN_APART.finditer(text)]:
            at, method = routes[bisect(routes, (match.start(),)) - 1] if routes else (match.start(), "")
            guarded = bisect(looked_at, match.start()) > bisect(looked_at, at)
            if at < match.start() < at + _NEAR and method in ("get", "delete", "all", "head", "use"):
                if not guarded:
                    found[f"(req.body ?? {{}}) for {quoted('req.body')} in {quoted(path)}"] = None
            else:
                others = others or not guarded
    return list(found), others


def _new_route(old: str) -> str:
    """A path of Express 4 as Express 5 spells it."""
    path = re.sub(r"/:(\w{1,40})\?", r"{/:\1}", old.replace("(.*)", "*"))
    path = re.sub(r"^(?=\*)", "/", path).replace("*", "{*path}")
    return "several paths or a parameter" if path.count("*") > 1 or re.search(r"[()?+]", path) else quoted(path)
