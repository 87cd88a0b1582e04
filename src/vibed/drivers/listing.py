"""The first page of a site that has pages and none to begin with: a list of them."""

from __future__ import annotations

import html
from collections.abc import Iterable
from urllib.parse import quote

MOST = 500
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}</style>
<h1>{title}</h1>
<ul>
{items}
</ul>
</html>
"""


def listing(title: str, paths: Iterable[str]) -> str:
    """A page with a link to each page of the site, by paths relative to its root."""
    pages = sorted(path for path in paths if path.lower().endswith((".html", ".htm")) and path != "404.html")
    items = (f'<li><a href="./{quote(path)}">{html.escape(path)}</a></li>' for path in pages[:MOST])
    return _PAGE.format(title=html.escape(title), items="\n".join(items))
