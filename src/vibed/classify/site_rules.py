"""The rules for pages: a folder that can be served, or what has to be built before."""

from __future__ import annotations

import re
from dataclasses import replace

from vibed.classify import below, front_build, halves
from vibed.classify.build_output import configured
from vibed.classify.decision import Decision
from vibed.classify.errors import BuildRequired
from vibed.classify.project import Project
from vibed.classify.site import is_template
from vibed.classify.unbuilt import reason
from vibed.sources.errors import quoted

_BUNDLES_PAGE = re.compile(r"\b(?:vite|parcel)\s+build\b")
"""Commands whose input is the index.html at the root: a browser might show it as it is, and not what they would make of
it (public/, style sheets that scripts import, variables)."""


def worker_assets(p: Project) -> Decision | None:
    try:
        found = p.worker.assets_only()
    except BuildRequired as error:
        name, _ = p.node.front_end() or ("", "")
        made = front_build.site(
            p, name, str(error.extra.get("output", "")), f"{p.worker.file} serves what its build makes"
        )
        if made is None:
            raise
        return replace(made, spa=p.worker.single_page)
    if found is None:
        return None
    folder, spa = found
    return p.site.decide(
        folder, f"{p.worker.file} serves the folder {quoted(folder or '.')} without a worker.", spa=spa or None
    )


def built_site(p: Project) -> Decision | None:
    served = p.script_tools.served_folder()
    if served and p.site.page(served):
        return p.site.decide(served, f"The start script serves the files in {quoted(served)}.")
    tool = p.node.front_end()
    if tool is None and "build" not in p.node.scripts and not _generator(p):
        return None
    name, folder = tool or ("a build", "dist")
    told = configured(p.tree, p.node.scripts.get("build", ""))
    built = p.site.built(*filter(None, (told, folder)))
    page = p.site.page("")
    if built is None or (built == "public" and page and not p.site.is_source(page)):
        return None
    return p.site.decide(built, f"It is a front-end project ({name}), and {quoted(built)} holds its built pages.")


def front_end(p: Project) -> Decision | None:
    generator = _generator(p)
    tool = p.node.front_end() or generator
    page = p.site.page("")
    unbuilt = reason(p.node, page) if page else None
    bundled = p.builds and bool(page and _BUNDLES_PAGE.search(p.node.scripts.get("build", "")))
    source = bool(page and (p.site.is_source(page) or unbuilt or bundled))
    plain = bool(page and not source and not (generator and is_template(p.tree.text(page or ""))))
    if plain and page:
        lacking = p.site.lacks(page) if "build" in p.node.scripts else None
        if lacking is None:
            return None
        what = (
            f"{quoted(page)} refers to {quoted(lacking)}, which its build script makes and which is not in the archive"
        )
    elif source:
        what = unbuilt or quoted(page or "") + (
            " refers to source files that a browser cannot run"
            if p.site.is_source(page or "")
            else " is what its build script makes pages of"
        )
    elif tool or ("build" in p.node.scripts and not p.script_tools.of_folders("build")):
        what = f"it is a front-end project ({tool[0]})" if tool else "it is a front-end project with a build script"
    else:
        return None
    if unbuilt and not tool and "build" not in p.node.scripts:
        raise BuildRequired(
            f"{unbuilt}: the page would stay blank",
            hint="name it by its address (https://…) or in an import map; or build it, and deploy what that makes",
            details={"output": "dist"},
        )
    name, folder = tool or ("", "dist")
    if p.node.front_end() or generator is None:
        made = front_build.site(p, name, folder, what[0].upper() + what[1:])
        if made is not None:
            return made
    folder = configured(p.tree, p.node.scripts.get("build", "")) or folder
    command = _BUILDERS.get(name, "npm run build")
    raise BuildRequired(
        f"{what}: it has to be built first, and the built pages are not in the archive",
        hint=f"run {command} and deploy the folder it makes: vibed deploy {folder}",
        details={"tool": name, "output": folder, "command": command},
    )


_BUILDERS = {
    "Jekyll": "jekyll build",
    "Hugo": "hugo",
    "MkDocs": "mkdocs build",
    "Sphinx": "make html",
    "Zola": "zola build",
    "mdBook": "mdbook build",
}


def _generator(p: Project) -> tuple[str, str] | None:
    """A site generator that is not a package of Node's."""
    has = p.tree.has
    if has("_config.yml") and (p.tree.folders & {"_posts", "_layouts", "_includes"} or has("Gemfile")):
        return "Jekyll", "_site"
    if p.tree.first(["hugo.toml", "hugo.yaml", "config.toml", "config.yaml"]) and p.tree.folders & {
        "content",
        "archetypes",
        "layouts",
    }:
        return "Hugo", "public"
    if p.tree.first(["mkdocs.yml", "mkdocs.yaml"]):
        return "MkDocs", "site"
    if has("conf.py") and p.tree.first(["index.rst", "index.md"]):
        return "Sphinx", "_build/html"
    if has("book.toml"):
        return "mdBook", "book"
    return None


def index_page(p: Project) -> Decision | None:
    page = p.site.page("")
    if page is None:
        return None
    return p.site.decide("", f"It is a static site: {quoted(page)} is at its root and no file is a server.")


def site_folder(p: Project) -> Decision | None:
    folder = p.site.somewhere()
    if folder is None or _beside_a_server(p):
        return None
    page = p.site.page(folder)
    unbuilt = reason(p.node, page) if page else None
    if page and (p.site.is_source(page) or unbuilt):
        if below.holds_page(p.tree, page):
            return None
        raise BuildRequired(
            unbuilt or f"{quoted(page)} refers to source files that a browser cannot run",
            hint="run the build and deploy the folder it makes (often dist)",
            details={"output": "dist"},
        )
    return p.site.decide(folder, f"It is a static site: its index page is in {quoted(folder)} and no file is a server.")


def single_page(p: Project) -> Decision | None:
    pages = p.tree.pages
    root = [page for page in pages if "/" not in page]
    if len(root) == 1 and len(pages) < 20:
        pages = root
    if _beside_a_server(p):
        return None
    if len(pages) == 1:
        folder, _, name = pages[0].rpartition("/")
        if (p.site.is_source(pages[0]) or reason(p.node, pages[0])) and below.holds_page(p.tree, pages[0]):
            return None
        return p.site.decide(folder, f"It is a static site: {quoted(name)} is its only page.", page=pages[0], spa=False)
    if pages and not _has_code(p) and len(below.projects(p.tree)) != 1:
        folders = {page.rpartition("/")[0] for page in pages}
        folder = folders.pop() if len(folders) == 1 else ""
        return p.site.listed(folder, f"It is a static site: it has {len(pages)} pages, and none is called index.html.")
    return None


def _beside_a_server(p: Project) -> bool:
    """Whether a folder holds a server and the pages lie in another: code comes before pages."""
    return p.tree.package is None and bool(p.tree.pages) and halves.holds_server(p)


def _has_code(p: Project) -> bool:
    return bool(p.tree.known(".py", ".js", ".ts", ".go", ".jsx", ".tsx"))


def component(p: Project) -> Decision | None:
    found = sorted(path for path in p.tree.paths if path.endswith((".jsx", ".tsx", ".vue", ".svelte")))
    if not found or any(below.holds_page(p.tree, path, below.LISTS) for path in found):
        return None
    raise BuildRequired(
        f"{quoted(found[0])} is a component: a browser cannot run it, and there is no page and no server",
        hint=(
            "put it into a Vite project, run npm run build and deploy dist/; or write one index.html with plain"
            " JavaScript"
        ),
        details={"output": "dist"},
    )
