"""Languages and kinds of project that no template runs, told by their files."""

from __future__ import annotations

from vibed.classify.tree import Tree

_BY_FILE = (
    # language, files at the root, endings of files at the root, what would work
    (
        "Java or Kotlin",
        ("pom.xml", "build.gradle", "build.gradle.kts", "gradlew", "mvnw"),
        (".java", ".jar", ".kt", ".war"),
    ),
    ("Rust", ("Cargo.toml",), ()),
    (".NET", ("global.json",), (".csproj", ".fsproj", ".vbproj", ".sln", ".cs")),
    ("PHP", ("composer.json", "artisan"), (".php",)),
    ("Ruby", ("Gemfile", "config.ru", "Rakefile"), (".rb",)),
    ("Elixir", ("mix.exs",), ()),
    ("Dart or Flutter", ("pubspec.yaml",), (".dart",)),
    ("Swift", ("Package.swift",), (".swift",)),
    ("R", ("app.R", "server.R", "ui.R"), (".R", ".Rmd", ".Rproj")),
    ("Scala", ("build.sbt",), (".scala",)),
    ("Clojure", ("project.clj", "deps.edn"), ()),
    ("Haskell", ("stack.yaml",), (".cabal", ".hs")),
    ("C or C++", ("CMakeLists.txt",), (".c", ".cpp", ".cc")),
    ("Perl", ("cpanfile",), (".pl", ".cgi")),
    ("Lua", (), (".lua",)),
    ("Julia", ("Project.toml",), (".jl",)),
    ("Crystal", ("shard.yml",), (".cr",)),
    ("Zig", ("build.zig",), (".zig",)),
)
_HINTS = {
    "Rust": (
        "compile it for x86-64 Linux (cargo build --release --target x86_64-unknown-linux-musl) and deploy the program"
        " with a Procfile: web: ./app"
    ),
    "C or C++": "compile it for x86-64 Linux, linked statically, and deploy the program with a Procfile: web: ./app",
}
_WORKS = "write it in Python, Node or Go, or as static files or a worker"


def language(tree: Tree) -> str | None:
    """The language of a project that no template runs."""
    names = set(tree.root)
    for name, files, endings in _BY_FILE:
        if name == "Ruby" and "_config.yml" in names:
            continue
        if name == "Rust" and "src/main.rs" not in tree.paths and "index.html" in names:
            continue
        if names & set(files) or (endings and any(path.endswith(endings) for path in tree.root)):
            return name
    return None


def hint(name: str) -> str:
    """What would work instead."""
    if name in ("Bun", "Deno"):
        return "use node:http, Express or Hono with @hono/node-server, or export default { fetch } as a worker"
    return _HINTS.get(name, _WORKS)
