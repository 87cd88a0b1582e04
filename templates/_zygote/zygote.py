"""A Python process that has imported what an app will import, and waits to become that app.

    python3 zygote.py NAME [MODULE …]

Descriptor 3 is a socket to the agent: ``ready`` goes out when the modules are imported, one JSON line
``{"argv", "env", "cwd", "entropy"}`` comes in, and from then on this process behaves as if the interpreter had
just been started with that command line (docs/reference/supervisor.md, section Agent). Whatever it cannot imitate
it hands to a real fresh interpreter by exec, in the same process.

Packages that were installed for an app (PYTHONUSERBASE) are taken over, unless one has the name of a module that is
imported, or that was looked for and not found: what imported it would be another with it.

A module that starts a thread is left out: the process starts anew without it. The seed of ``hash()`` is this
process's own and fixed when it starts, as in every Python process.
"""

# An app would see pathlib among the modules that are loaded, and the annotations are those of a module in the making.
# ruff: noqa: PTH100, PTH109, PTH110, PTH113, PTH120, RUF063

import sys

STARTED_WITH = frozenset(sys.modules)  # what every fresh interpreter has; an app cannot shadow it either

import gc  # noqa: E402
import importlib  # noqa: E402
import importlib.machinery  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import runpy  # noqa: E402
import site  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

AGENT = 3
MISSED: set[str] = set()  # top-level modules that were looked for while warming up, and are not there
CANNOT_OPEN = 2  # exit status of an interpreter whose script is missing


def main() -> None:
    """Warm up, wait for orders, become the app."""
    name, modules = sys.argv[1], sys.argv[2:]
    warm_up(name, modules)
    rehearse()
    gc.collect()
    gc.freeze()
    os.write(AGENT, b"ready\n")
    orders = read_orders()
    os.close(AGENT)
    become(orders["argv"], orders["env"], orders["cwd"])


class Missing:
    """The last finder: who is asked for a module here will not get it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if path is None:
            MISSED.add(name)


def warm_up(name: str, modules: list[str]) -> None:
    """Import the modules. One that is missing or fails is skipped, one that starts a thread is left out."""
    sys.meta_path.append(Missing)  # type: ignore[arg-type]
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            print(f"zygote {name}: {module} is not imported: {error!r}", file=sys.stderr)
        if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
            print(f"zygote {name}: {module} starts a thread and is left out", file=sys.stderr, flush=True)
            rest = [m for m in modules if m != module]
            os.set_inheritable(AGENT, True)
            os.execv(sys.executable, [sys.executable, os.path.abspath(__file__), name, *rest])
    sys.meta_path.remove(Missing)  # type: ignore[arg-type]


def rehearse() -> None:
    """Serve one request to itself with the standard library's server, if that is imported. What a server does first
    (pages of the program and of libraries that are read when they are touched, the machine's name, a first thread)
    takes longer in a sandbox than all that an app's own code does for it.
    """
    server_module, socket = sys.modules.get("http.server"), sys.modules.get("socket")
    if server_module is None or socket is None:
        return

    class Rehearsal(server_module.BaseHTTPRequestHandler):  # type: ignore[name-defined,misc]
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"rehearsed")

        def log_message(self, *args: object) -> None:
            pass

    try:
        with server_module.HTTPServer(("127.0.0.1", 0), Rehearsal) as server, socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset: no port is kept for it
            client.connect(server.server_address)
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            thread.join()
            client.recv(1024)
    except OSError as error:
        print(f"no rehearsal: {error}", file=sys.stderr)


def read_orders() -> dict[str, Any]:
    """Block until the agent's line is there. An agent that goes away ends the process."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(AGENT, 65536)
        if not chunk:
            os._exit(0)
        line += chunk
    orders: dict[str, Any] = json.loads(line)
    return orders


def become(argv: list[str], env: dict[str, str], cwd: str) -> None:
    """Run ``argv`` (``python3 FILE args…`` or ``python3 -m MODULE args…``) as this process's main program."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(cwd)
    as_module = argv[1] == "-m"
    path = argv[2] if as_module else os.path.abspath(argv[1])
    first = os.getcwd() if as_module else os.path.dirname(os.path.realpath(path))
    container = not as_module and not os.path.isfile(path)
    packages = installed(env)
    if (
        shadows(first)
        or (packages and shadows(packages, behind=sys.stdlib_module_names))
        or (container and os.path.exists(path))
    ):
        fresh(argv, env)
    reseed()
    if packages:
        add(packages)
    sys.orig_argv = list(argv)
    if not sys.flags.safe_path:
        sys.path[0] = first
    else:
        del sys.path[0]
    look_anew()
    program = types.ModuleType("__main__")
    program.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = program
    try:
        if as_module:
            sys.argv = ["-m", *argv[3:]]
            runpy._run_module_as_main(path, True)  # type: ignore[attr-defined]
        else:
            sys.argv = argv[1:]
            run_file(program, argv, path)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        report(error)


def run_file(program: types.ModuleType, argv: list[str], path: str) -> None:
    """What the interpreter does with a script: its code runs in the module ``__main__``."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"{argv[0]}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_OPEN)
    program.__dict__.update(
        __file__=path,
        __cached__=None,
        __spec__=None,
        __package__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
    )
    if sys.version_info < (3, 14):  # since then it is made when it is asked for
        program.__dict__["__annotations__"] = {}
    exec(compile(source, path, "exec", dont_inherit=True), program.__dict__)


def report(error: BaseException) -> NoReturn:
    """Print an uncaught exception without the frames of this file, and end as the interpreter would."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error.__traceback__ = trace
    sys.excepthook(type(error), error, trace)
    sys.exit(1)


def installed(env: dict[str, str]) -> str:
    """Where packages lie that were installed for the app; empty when there are none."""
    base = env.get("PYTHONUSERBASE", "")
    if not base or env.get("PYTHONNOUSERSITE"):
        return ""
    return os.path.join(base, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")


def add(packages: str) -> None:
    """Put them where they are when an interpreter starts: behind the standard library, before the template's own."""
    site.USER_BASE, site.USER_SITE = os.environ["PYTHONUSERBASE"], packages
    before = list(sys.path)
    site.addsitedir(packages)
    new = [entry for entry in sys.path if entry not in before]
    ends = ("site-packages", "dist-packages")
    at = next((at for at, entry in enumerate(before) if entry.endswith(ends)), len(before))
    sys.path[:] = [*before[:at], *new, *before[at:]]


def shadows(directory: str, behind: frozenset[str] = frozenset()) -> bool:
    """Whether a file there has the name of a module that is imported, or was not found: a fresh process would take that
    file. Of the modules in `behind` it would not.
    """
    suffixes = tuple(importlib.machinery.all_suffixes())
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return False
    for entry in entries:
        name = entry.name.partition(".")[0]
        if name in STARTED_WITH or name in behind or (name not in sys.modules and name not in MISSED):
            continue
        if entry.name.endswith(suffixes) or os.path.isfile(os.path.join(entry.path, "__init__.py")):
            return True
    return False


def look_anew() -> None:
    """Forget which files directories were seen to have. importlib.invalidate_caches() does this, and imports
    importlib.metadata for it, which takes longer than all the rest of becoming an app.
    """
    for folder, finder in list(sys.path_importer_cache.items()):
        if finder is None or not os.path.isabs(folder):
            del sys.path_importer_cache[folder]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    if metadata := sys.modules.get("importlib.metadata"):
        metadata.MetadataPathFinder.invalidate_caches()


def fresh(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Start over as a real interpreter."""
    os.execve(sys.executable, argv, env)


def reseed() -> None:
    """Seed anew the generators that were seeded while warming up (``secrets`` and ``uuid`` have no seed)."""
    if random := sys.modules.get("random"):
        random.seed()
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


if __name__ == "__main__":
    main()
