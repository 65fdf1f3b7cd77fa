"""Every module has its test module, and every test module its module, by name.

stardust/http1/head.py <-> tests/http1/test_head.py. Whoever opens one knows where the other is. What is pure
in bench/ and tools/ has its tests in tests/bench and tests/tools, named in the same way.
"""

from __future__ import annotations

from pathlib import Path

TOP = Path(__file__).parents[1]

# Modules without a test module of their own.
UNTESTED = {
    "base/errors": "declarations; the texts are held by the tests of those who raise them",
    "logs/events": "declarations; tests/tools/test_manual.py holds the catalog that is made of them",
    "supervisor/host": "declarations; mypy holds the shell and the hosts of tests to them",
    "supervisor/vocabulary": "declarations; mypy holds each match over them to be complete",
    "worker/standing": "declarations; the tests of worker/parting hold what they mean",
    "worker/stream": "declarations; mypy holds both kinds of sockets to them",
    "__main__": "one call; every live test runs it",
}

# Test modules that belong to no single module.
AT_LARGE = {
    "test_documents": "holds the documents to what is there",
    "test_floors": "holds the package as a whole",
    "test_limits": "holds the size of files, classes and functions",
    "test_faults": "holds faults.py, by which other tests let system calls fail",
    "test_modules": "this file",
    "wsgi/test_lenient": "holds gateway and response to what applications do beyond PEP 3333",
    "test_packaging": "holds packaging/debian",
    "test_units": "holds packaging/systemd",
    "test_idle_exit": "plan, idle, loop and orders together, attacked",
    "supervisor/test_histories": "observe and plan together, in random histories",
    "worker/test_wire": "http1, wsgi and the loop together, as a client sees them",
    "test_rules": "holds docs/http.md to the tests that are named after its rules",
    "http1/test_oracles": "head and body together, against h11 and httptools",
}
# Folders of programs beside the package.
BESIDE = ["bench", "tools"]
# Folders of tests that run the server as a whole, or much of it.
WHOLE = {"applications", "fuzz", "live", "machine"}


def modules() -> set[str]:
    paths = (path.relative_to(TOP / "stardust") for path in (TOP / "stardust").rglob("*.py"))
    return {str(path.with_suffix("")) for path in paths if path.name != "__init__.py"}


def beside() -> set[str]:
    return {f"{path.parent.name}/{path.stem}" for name in BESIDE for path in (TOP / name).glob("*.py")}


def present() -> set[str]:
    paths = (path.relative_to(TOP / "tests") for path in (TOP / "tests").rglob("test_*.py"))
    return {str(path.with_suffix("")) for path in paths if path.parts[0] not in WHOLE}


def counterpart(module: str) -> str:
    """ "http1/head" -> "http1/test_head"."""
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}".lstrip("/")


def test_every_module_is_tested() -> None:
    assert {counterpart(name) for name in modules() - UNTESTED.keys()} - present() == set()


def test_every_test_module_has_a_module() -> None:
    assert present() - AT_LARGE.keys() - {counterpart(name) for name in modules() | beside()} == set()


def test_the_exceptions_are_needed() -> None:
    assert UNTESTED.keys() <= modules()
    assert not {counterpart(name) for name in UNTESTED} & present()
    assert AT_LARGE.keys() <= present()
