"""The floors of the package: who may import whom, held by walking the syntax trees.

The table of docs/architecture.md is made of FLOORS. A new module is one row here; then run
`python -m tests.test_floors`.
The rules, each a test below:

- a module imports only from lower floors, and lower steps of its floor (a pair: floor, step); or from its own
  folder as long as no cycle arises;
- nobody reaches into another module, for what begins with an underscore;
- no import hides inside a function; what is loaded on demand (LATE) has its reason, and its edges count;
- what is large and not needed is not loaded, by whomever (NEEDLESS);
- supervisor and worker never reach each other, http1 reaches no wsgi, stardustctl reaches no server code;
- a core imports nothing that does I/O or reads a clock;
- what runs in the application's interpreter is Python 3.9 on the standard library alone.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base import pristine

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "architecture.md"
HEADING = "| folder | interpreter | modules, by floor | answer |\n|---|---|---|---|\n"

FLOORS: dict[str, int | tuple[int, int]] = {
    "base.errors": 0,
    "base.pristine": 0,
    "base.address": 0,
    "logs.events": 0,
    "base.records": 0,
    "http1.grammar": 0,
    "base.system": 1,
    "base.streams": 1,
    "base.budget": 1,
    "base.files": 1,
    "base.process": 1,
    "base.signals": 1,
    "config.envfile": 1,
    "settings.kinds": 1,
    "settings.row": 1,
    "settings.table": 1,
    "ipc.messages": 1,
    "http1.head": 1,
    "http1.body": 1,
    "http1.proxy": 1,
    "http1.response": 1,
    "supervisor.crossing": (1, 1),
    "supervisor.idle": (1, 1),
    "supervisor.state": (1, 2),
    "supervisor.vocabulary": (1, 3),
    "supervisor.observe": (1, 4),
    "supervisor.plan": (1, 4),
    "config.origins": 2,
    "config.paths": 2,
    "config.arguments": 2,
    "config.document": 2,
    "config.environment": 2,
    "config.checks": 2,
    "config.printing": 2,
    "config.reading": 2,
    "wsgi.input": 2,
    "wsgi.environ": 2,
    "wsgi.forwarded": 2,
    "wsgi.gateway": 2,
    "logs.accesslog": 2,
    "logs.journal": 2,
    "logs.log": 3,
    "systemd.store": 3,
    "systemd.activation": 4,
    "systemd.notify": 4,
    "listeners.choice": 4,
    "listeners.binding": 4,
    "listeners.listeners": 4,
    "ipc.channel": 4,
    "ipc.handoff": 4,
    "ipc.scoreboard": 4,
    "logs.logfile": 4,
    "zygote.asgi": 1,
    "zygote.holdings": 6,
    "zygote.identity": 5,
    "zygote.load": 4,
    "zygote.mourning": 6,
    "zygote.paste": 2,
    "zygote.terminal": 4,
    "tls.certificate": 4,
    "tls.files": 4,
    "tls.identities": 4,
    "worker.admission": (5, 1),
    "worker.balance": (5, 1),
    "worker.clock": (5, 1),
    "worker.complaints": (5, 1),
    "worker.deadlines": (5, 1),
    "worker.forked": (5, 1),
    "worker.guard": (5, 1),
    "worker.life": (5, 1),
    "worker.pace": (5, 1),
    "worker.stream": (5, 1),
    "worker.vitals": (5, 1),
    "worker.outbox": (5, 2),
    "worker.standing": (5, 2),
    "worker.connection": (5, 3),
    "worker.introduction": (5, 4),
    "worker.loan": (5, 1),
    "worker.secure": (5, 4),
    "worker.telling": (5, 4),
    "worker.accepting": (5, 5),
    "worker.book": (5, 5),
    "worker.chance": (5, 1),
    "worker.bodies": (5, 6),
    "worker.endings": (5, 6),
    "worker.threads": (5, 6),
    "worker.serving": (5, 7),
    "worker.entrance": (5, 8),
    "worker.overdue": (5, 9),
    "worker.siblings": (5, 10),
    "worker.parting": (5, 11),
    "worker.relief": (5, 11),
    "worker.loop": (5, 12),
    "worker.orders": (5, 13),
    "worker.process": (5, 14),
    "control.address": 5,
    "control.trust": 5,
    "control.server": 5,
    "control.client": 5,
    "zygote.main": 6,
    "listeners.keeper": 5,
    "supervisor.host": (6, 1),
    "supervisor.processes": (6, 1),
    "supervisor.report": (6, 1),
    "supervisor.requests": (6, 1),
    "supervisor.clients": (6, 2),
    "supervisor.deaths": (6, 2),
    "supervisor.generation": (6, 2),
    "supervisor.remains": (6, 2),
    "supervisor.alone": (6, 3),
    "supervisor.trial": (6, 3),
    "supervisor.children": (6, 3),
    "supervisor.custody": (6, 3),
    "supervisor.voice": (6, 3),
    "supervisor.health": (6, 4),
    "supervisor.zygotes": (6, 4),
    "supervisor.shell": (6, 5),
    "supervisor.start": (6, 6),
    "zygote.boot": 7,
    "cli": 7,
    "ctl": 7,
    "__main__": 8,
}

# Loaded by importlib when they are needed, by nobody else, and by no import statement but each other's.
LATE = {
    ("zygote.boot", "zygote.main"): "the package is not importable before boot has made it so",
    ("zygote.main", "tls.identities"): "with ssl it costs 5 MiB and 10 ms; only for servers that speak TLS",
    ("zygote.main", "worker.secure"): "the same",
    ("cli", "tls.identities"): "the same, in the supervisor; only to check certificates",
    ("config.environment", "config.envfile"): "python-dotenv costs 1 MiB and 15 ms; only for env files",
}
EXPENSIVE = ["tls.identities", "worker.secure"]

# What supervisor, zygote and stardustctl must not load: memory for good, and time of each start.
# ssl 5 MiB, hashlib (OpenSSL) 3.5 MiB, python-dotenv with logging 1 MiB, dataclasses (inspect) 0.8 MiB.
HEAVY = {
    *("ssl", "_ssl", "_hashlib", "dataclasses", "inspect", "logging", "dotenv"),
    *("asyncio", "subprocess", "email", "http"),
}
NEEDLESS = [
    ("cli", HEAVY | {"tempfile", "random", "stardust.zygote.main", "stardust.zygote.load"}),
    ("zygote.main", HEAVY | {"argparse", "tomllib", "ctypes", "systemd", "stardust.config.reading"}),
    ("ctl", HEAVY | {"tempfile", "ctypes", "systemd", "stardust.config.reading", "stardust.settings.table"}),
]

# Whoever starts on the left must not reach what is on the right, over however many steps.
STRANGERS = [
    ("supervisor", "worker"),
    ("supervisor", "zygote"),
    ("worker", "supervisor"),
    ("zygote", "supervisor"),
    ("http1", "wsgi"),
    ("wsgi", "worker"),
    ("ctl", "supervisor"),
    ("ctl", "worker"),
    ("ctl", "config"),
    ("ctl", "settings"),
    ("ctl", "control.server"),
]

# Decide, and touch nothing. They may use what neither does I/O nor reads a clock ...
CORES = [
    "base.errors",
    "base.address",
    "logs.events",
    "base.records",
    "settings",
    "ipc.messages",
    "http1",
    "supervisor.crossing",
    "supervisor.idle",
    "supervisor.state",
    "supervisor.vocabulary",
    "supervisor.observe",
    "supervisor.plan",
    "wsgi",
    "logs.accesslog",
    "config.origins",
    "config.printing",
    "listeners.choice",
    "tls.certificate",
]
PURE_STDLIB = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "struct",
    "types",
    "typing",
    "urllib.parse",
}
# ... and these, each for its reason.
PURE_EXCEPTIONS: dict[tuple[str, str], str] = {
    ("logs.accesslog", "time"): "localtime() and strftime() of a time that is given; the clock is never read",
    ("http1.response", "datetime"): "the calendar of a time that is given; the clock is never read",
    ("tls.certificate", "binascii"): "base64 to bytes",
    ("tls.certificate", "calendar"): "the calendar of a time that is given; the clock is never read",
    ("tls.certificate", "time"): "strptime() of a text that is given; the clock is never read",
    ("wsgi.gateway", "io"): "the types of files, to tell a real one from what only looks like it",
    ("wsgi.gateway", "os"): "fstat() of the descriptor behind wsgi.file_wrapper",
    ("wsgi.gateway", "stat"): "reads the mode that fstat() gave",
    ("wsgi.gateway", "traceback"): "formats what the application raised",
    ("wsgi.input", "io"): "BytesIO, the body in memory",
    ("wsgi.input", "errno"): "numbers",
    ("wsgi.input", "os"): "names, and flags of open(2)",
    ("wsgi.input", "tempfile"): "where the nameless file is that a large body goes to",
}

# What Python itself begins with an underscore, though it is documented, or has no other name.
PRIVATE_IN_PYTHON = {"_accept", "_exit", "_getframe", "_replace"}

# Imported by the application's interpreter: it may be older than the server's and has none of its packages.
APP_SIDE = ["base", "logs", "ipc", "settings", "http1", "wsgi", "tls", "worker", "zygote"]
OLDEST = (3, 9)


def name_of(path: Path) -> str:
    """stardust/http1/head.py -> "http1.head"; a package's __init__ -> the package; the top one -> ""."""
    parts = path.relative_to(TOP / "stardust").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted((TOP / "stardust").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in FILES.items()}
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}
MODULES = sorted(FILES.keys() - PACKAGES)


def belongs(module: str, group: str) -> bool:
    """Whether the module is the one named, or lies in the package named."""
    return module == group or module.startswith(group + ".")


def members(groups: list[str]) -> list[str]:
    return [module for module in MODULES if any(belongs(module, group) for group in groups)]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module named in an import, in full: "os", "stardust.http1.head".

    `from stardust.http1 import head` imports a module, `from stardust.base.errors import Exit` a name in one.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if node.module == "stardust.base.pristine":
                    yield alias.name
                yield whole if whole.removeprefix("stardust.") in FILES else node.module


def loaded(tree: ast.AST) -> Iterator[str]:
    """Every module that is loaded on demand: importlib.import_module("stardust.tls.identities"). One
    whose name is not written there is none of ours: the application."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def late(module: str) -> set[str]:
    """The modules of stardust that it loads on demand."""
    return {name.removeprefix("stardust.") for name in loaded(TREES[module]) if belongs(name, "stardust")}


def early(module: str) -> set[str]:
    """The modules of stardust that it imports; packages themselves hold no code and do not count."""
    names = {name.removeprefix("stardust.") for name in imported(TREES[module]) if belongs(name, "stardust")}
    return names & set(MODULES)


def ours(module: str) -> set[str]:
    """The modules of stardust that it needs, at once or later."""
    return early(module) | late(module)


def foreign(module: str) -> set[str]:
    return {name for name in imported(TREES[module]) if not belongs(name, "stardust")}


def reachable(module: str) -> set[str]:
    """The modules it imports, those they import, and so on; itself only if it lies on a cycle."""
    seen: set[str] = set()
    found = ours(module)
    while found:
        seen |= found
        found = {further for name in found for further in ours(name)} - seen
    return seen


def floor(module: str) -> tuple[int, int]:
    """Which floor, and which step of it: 0 where a floor has none."""
    place = FLOORS[module]
    return place if isinstance(place, tuple) else (place, 0)


def folder(module: str) -> str:
    return module.rpartition(".")[0]


def number(module: str) -> str:
    """5 -> "5", (5, 12) -> "5.12"."""
    place = FLOORS[module]
    return str(place) if isinstance(place, int) else ".".join(map(str, place))


def by_folder() -> Iterator[str]:
    """The table of docs/architecture.md: folders from the ground up, and in each its modules, by floor."""
    folders: dict[str, list[str]] = {}
    for module in FLOORS:
        folders.setdefault(folder(module), []).append(module)
    for name, modules in sorted(folders.items(), key=lambda pair: (max(map(floor, pair[1])), pair[0])):
        floors: dict[str, list[str]] = {}
        for module in sorted(modules, key=lambda module: (floor(module), module)):
            floors.setdefault(number(module), []).append(f"`{module.rpartition('.')[2]}`")
        rooms = " · ".join(f"{place}: {' '.join(names)}" for place, names in floors.items())
        side = "application's" if name in APP_SIDE else "server's"
        about = ast.get_docstring(TREES[name]) if name else "argv → run."
        assert about is not None
        yield f"| `{name or 'stardust'}/` | {side} | {rooms} | {about.splitlines()[0].rstrip('.')} |"


def write() -> None:
    """Make the table of docs/architecture.md anew: `python -m tests.test_floors`."""
    before, _, rest = PAGE.read_text().partition(HEADING)
    after = rest[rest.index("\n\n") :]
    PAGE.write_text(before + HEADING + "\n".join(by_folder()) + after)


def test_the_page_has_this_table() -> None:
    _, found, rest = PAGE.read_text().partition(HEADING)
    assert found
    assert rest.split("\n\n")[0].splitlines() == [*by_folder()], "run: python -m tests.test_floors"


def test_every_module_has_a_floor() -> None:
    assert sorted(FLOORS) == MODULES


def test_packages_hold_no_code() -> None:
    for package in PACKAGES - {""}:
        body = TREES[package].body
        assert all(isinstance(node, ast.Expr) for node in body), (
            f"{FILES[package]} holds more than a docstring"
        )


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_lower_floors(module: str) -> None:
    for name in ours(module):
        sibling = folder(module) != "" and folder(module) == folder(name)
        assert floor(name) < floor(module) or (sibling and floor(name) == floor(module)), (
            f"{module} (floor {FLOORS[module]}) imports {name} (floor {FLOORS[name]})"
        )


@pytest.mark.parametrize("module", MODULES)
def test_nobody_reaches_into_another(module: str) -> None:
    """What begins with an underscore belongs to its module."""
    own = {node.name for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            assert mine or node.attr in own | PRIVATE_IN_PYTHON, f"{FILES[module]}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_no_cycles(module: str) -> None:
    assert module not in reachable(module)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_inside_a_function(module: str) -> None:
    for function in ast.walk(TREES[module]):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            assert not list(imported(function)), f"{FILES[module]}:{function.lineno}"


def test_what_is_loaded_on_demand_has_its_reason() -> None:
    assert {(module, name) for module in MODULES for name in late(module)} == LATE.keys()


def test_nobody_pays_for_tls_who_does_not_speak_it() -> None:
    for module in sorted(set(MODULES) - set(EXPENSIVE)):
        assert "ssl" not in foreign(module)
        assert not early(module) & set(EXPENSIVE), module


@pytest.mark.parametrize(("module", "needless"), NEEDLESS)
def test_nothing_is_loaded_that_nobody_needs(module: str, needless: set[str]) -> None:
    """Not by the standard library either. What the interpreter itself has at its start is not ours."""
    program = (
        f"import sys; own = {{*sys.modules}}; import stardust.{module}; print(*sys.modules.keys() - own)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, timeout=60, check=True
    )
    assert not needless & set(run.stdout.split())


@pytest.mark.parametrize(("group", "stranger"), STRANGERS)
def test_strangers_never_meet(group: str, stranger: str) -> None:
    for module in members([group]):
        met = [name for name in reachable(module) if belongs(name, stranger)]
        assert not met, f"{module} reaches {met}"


@pytest.mark.parametrize("module", members(CORES))
def test_cores_touch_nothing(module: str) -> None:
    allowed = PURE_STDLIB | {name for owner, name in PURE_EXCEPTIONS if owner == module}
    assert foreign(module) <= allowed


def test_every_exception_is_used() -> None:
    assert not [pair for pair in PURE_EXCEPTIONS if pair[0] not in TREES or pair[1] not in foreign(pair[0])]


@pytest.mark.parametrize("module", members(APP_SIDE))
def test_app_side_needs_only_the_standard_library(module: str) -> None:
    assert not {name for name in foreign(module) if name.partition(".")[0] not in sys.stdlib_module_names}
    assert not ours(module) - set(members(APP_SIDE))


@pytest.mark.parametrize("module", sorted({*members(APP_SIDE)} - {"base.pristine", "zygote.boot"}))
def test_app_side_takes_the_standard_library_as_it_was(module: str) -> None:
    """Not from where the application patches it. `boot` runs before anything of ours can be imported."""
    bound = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(TREES[module])
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if isinstance(node, ast.Import) or not re.fullmatch("[A-Z_]+", alias.name)
    }
    assert not bound & {*pristine.NAMES}


@pytest.mark.parametrize("module", members(APP_SIDE))
def test_app_side_is_old_syntax(module: str) -> None:
    ast.parse(FILES[module].read_text(), str(FILES[module]), feature_version=OLDEST)


def test_app_side_imports_under_the_oldest_interpreter() -> None:
    """PyPy 3.9 is the second interpreter of Debian 12: another version and another implementation at once."""
    pypy = shutil.which("pypy3")
    assert pypy is not None, "pypy3 is missing: apt-get install pypy3"
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    names = [f"stardust.{module}" for module in members(APP_SIDE)]
    result = subprocess.run(
        [pypy, "-B", "-c", program, *names], cwd=TOP, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


if __name__ == "__main__":
    write()
