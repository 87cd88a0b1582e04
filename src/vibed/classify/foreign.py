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
_NONE = ("\0",)
_BESIDE_PAGES = {
    "Ruby": ("Gemfile", "Rakefile"),
    "Rust": ("Cargo.toml",),
    ".NET": ("global.json", ".csproj", ".fsproj", ".vbproj", ".sln"),
    "PHP": ("composer.json",),
    "Dart or Flutter": ("pubspec.yaml", ".dart"),
    "Swift": ("Package.swift",),
    "Haskell": ("stack.yaml", ".cabal", ".hs"),
    "C or C++": ("CMakeLists.txt", ".c", ".cpp", ".cc"),
    "Lua": (".lua",),
    "Julia": ("Project.toml", ".jl"),
    "Zig": ("build.zig", ".zig"),
}
"""What projects of pages have as well, as tools or as the source of a module that the page loads."""
_PROGRAMS = ("/config.ru", "/config/application.rb", "/index.php", "/Program.cs", "/Startup.cs", "/src/main.rs")
"""What is started in one of these languages."""
_HINTS = {
    "Dart or Flutter": "run flutter build web and deploy the folder it makes: vibed deploy build/web",
    "Rust": (
        "compile it for x86-64 Linux (cargo build --release --target x86_64-unknown-linux-musl) and deploy the program"
        " with a Procfile: web: ./app"
    ),
    "C or C++": "compile it for x86-64 Linux, linked statically, and deploy the program with a Procfile: web: ./app",
}
_WORKS = "write it in Python, Node or Go, or as static files or a worker"


def language(tree: Tree, *, finished_page: bool = False) -> str | None:
    """The language of a project that no template runs; beside a finished page it takes more than a tool's file."""
    names = set(tree.root)
    for name, files, endings in _BY_FILE:
        if name == "Ruby" and "_config.yml" in names:
            continue
        found = [path for path in tree.root if path in files or (endings and path.endswith(endings))]
        if found and finished_page and not any(f"/{path}".endswith(_PROGRAMS) for path in tree.paths):
            found = [path for path in found if not path.endswith(_BESIDE_PAGES.get(name, _NONE))]
        if found:
            return name
    return None


def hint(name: str) -> str:
    """What would work instead."""
    if name in ("Bun", "Deno"):
        return "use node:http, Express or Hono with @hono/node-server, or export default { fetch } as a worker"
    return _HINTS.get(name, _WORKS)
