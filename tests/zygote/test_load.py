"""Loading applications: each form of `app`, and each way in which it can go wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base.errors import AppLoadError
from stardust.zygote.load import Reference, load, parse

TOP = Path(__file__).parents[2]

HELLO = "def application(environ, start_response):\n    return [b'hello']\n"


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; whatever is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.path_importer_cache.clear()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def failure(app: str) -> AppLoadError:
    with pytest.raises(AppLoadError) as caught:
        load(app)
    assert str(caught.value) == caught.value.reason
    assert caught.value.reason.startswith(f"cannot load {app}: ")
    assert "\n" not in caught.value.reason
    return caught.value


@pytest.mark.parametrize(
    ("app", "reference"),
    [
        ("module", Reference("module", False, "", False)),
        ("module:app", Reference("module", False, "app", False)),
        ("package.module:app", Reference("package.module", False, "app", False)),
        ("module:object.attribute", Reference("module", False, "object.attribute", False)),
        ("module:factory()", Reference("module", False, "factory", True)),
        ("module:object.factory()", Reference("module", False, "object.factory", True)),
        ("file.py", Reference("file.py", True, "", False)),
        ("file.py:app", Reference("file.py", True, "app", False)),
        ("./site.wsgi", Reference("./site.wsgi", True, "", False)),
        ("path/to/file.py:make()", Reference("path/to/file.py", True, "make", True)),
        ("/a:b/file.py", Reference("/a:b/file.py", True, "", False)),
        ("/a:b/file.py:app", Reference("/a:b/file.py", True, "app", False)),
        ("módulo:café", Reference("módulo", False, "café", False)),
        ("paste:app", Reference("paste", False, "app", False)),
        ("module:f(1)", Reference("module", False, "f", True, (1,))),
        ("module:a.f(x=None)", Reference("module", False, "a.f", True, (), {"x": None})),
        ('module:f("prod", debug=False)', Reference("module", False, "f", True, ("prod",), {"debug": False})),
        ('module:f("a:b(1), [c]")', Reference("module", False, "f", True, ("a:b(1), [c]",))),
        ("module:f(':g()')", Reference("module", False, "f", True, (":g()",))),
        (
            "module:f(-1.5, b'x', {1, 2}, (3,))",
            Reference("module", False, "f", True, (-1.5, b"x", {1, 2}, (3,))),
        ),
        ('path/app.py:make({"a": 1})', Reference("path/app.py", True, "make", True, ({"a": 1},))),
        ("/a:b(c)/app.py:make(1)", Reference("/a:b(c)/app.py", True, "make", True, (1,))),
        ("/a:b()/app.py:make()", Reference("/a:b()/app.py", True, "make", True)),
        ("module:f( )", Reference("module", False, "f", True)),
    ],
)
def test_the_forms(app: str, reference: Reference) -> None:
    assert parse(app) == reference


@pytest.mark.parametrize(
    "app",
    [
        "",
        ":",
        "module:",
        ":app",
        "my-app:app",
        "module:a b",
        "module:f(1",
        "module:f(1,,2)",
        "module:f(1)(2)",
        "module:f(1).g(2)",
        "module:f(x=1, 2)",
        "module:f(1) + g(2)",
        "my-app:f(1)",
        ":f(1)",
        "module:()",
        "a:b:c",
        "a..b",
        "module:a()()",
    ],
)
def test_no_form(app: str) -> None:
    assert failure(app).reason.endswith(
        "it must be like module:callable, module:factory(), module:factory('literal', name=1), "
        "path/to/file.py:callable or paste:file.ini#name"
    )


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("shop:make(name)", "and sets of these; name is none"),
        ("shop:make(os.environ['HOME'])", "; os.environ['HOME'] is none"),
        ("shop:make(f(1))", "; f(1) is none"),
        ("shop:make(x=y)", "; y is none"),
        ("shop:make(*[1])", "; *[1] is none"),
        ("shop:make({[]: 1})", "; {[]: 1} is none"),
        ("shop:make(f'{1}')", "; f'{1}' is none"),
        ("shop:make(**{'a': 1})", "name=literal; **{'a': 1} is neither"),
        ("shop:make(a=1, a=2)", "name=literal; a is given twice"),
    ],
)
def test_arguments_that_are_no_literals(app: str, reason: str) -> None:
    """Before anything is imported: there is no such module."""
    error = failure(app)
    assert "arguments must be literals" in error.reason
    assert error.reason.endswith(reason)


@pytest.mark.parametrize(
    ("source", "app"),
    [
        (HELLO, "shop:application"),
        (HELLO, "shop"),
        (HELLO, "shop.py"),
        (HELLO, "./shop.py:application"),
        (HELLO.replace("application", "app"), "shop"),
        ("app = 5\n" + HELLO, "shop"),
        (HELLO.replace("application", "other"), "shop:other"),
        ("class Box:\n    hello = staticmethod(lambda e, s: [b'hello'])\nbox = Box()\n", "shop:box.hello"),
        ("def make():\n    return lambda e, s: [b'hello']\n", "shop:make()"),
        ("def make():\n    return lambda e, s: [b'hello']\n", "shop.py:make()"),
        ("def make(a, *, b):\n    return lambda e, s: [a + b]\n", "shop:make(b'hel', b=b'lo')"),
        ("class box:\n    make = lambda a: lambda e, s: [a]\n", "./shop.py:box.make(b'hello')"),
        ("class application:\n    def __new__(cls, e, s):\n        return [b'hello']\n", "shop"),
        ("def __getattr__(name):\n    return lambda e, s: [b'hello']\n", "shop:lazy"),
    ],
)
def test_it_is_loaded(site: Path, source: str, app: str) -> None:
    write(site / "shop.py", source)
    assert load(app)({}, None) == [b"hello"]


def test_a_module_in_a_package(site: Path) -> None:
    write(site / "shop/__init__.py", "")
    write(site / "shop/wsgi.py", "from .views import application\n")
    write(site / "shop/views.py", HELLO)
    assert load("shop.wsgi")({}, None) == [b"hello"]


class TestFile:
    def test_its_directory_is_first_on_the_path(self, site: Path) -> None:
        write(site / "deep/neighbour.py", HELLO)
        write(site / "deep/front.py", "from neighbour import application\n")
        assert load("deep/front.py")({}, None) == [b"hello"]
        assert sys.path[0] == str(site / "deep")

    def test_it_is_a_module_like_others(self, site: Path) -> None:
        path = write(site / "front.py", "import sys\nme = sys.modules[__name__]\n" + HELLO)
        load(str(path))
        module = sys.modules["front"]
        assert (module.__name__, module.__file__) == ("front", str(path))
        assert module.me is module

    def test_any_suffix_will_do(self, site: Path) -> None:
        write(site / "my-site.wsgi", HELLO)
        assert load("./my-site.wsgi")({}, None) == [b"hello"]

    def test_it_hides_no_module(self, site: Path) -> None:
        write(site / "json.py", HELLO)
        assert (
            "json.py would hide the module json, which is already loaded; rename the file"
            in failure("json.py").reason
        )
        assert sys.modules["json"] is json

    def test_it_is_forgotten_when_it_fails(self, site: Path) -> None:
        write(site / "front.py", "1 / 0\n")
        failure("front.py")
        assert "front" not in sys.modules


@pytest.mark.parametrize("app", ["shop:application", "shop.py:application"], ids=["module", "file"])
class TestImport:
    """What code of the application's may do while it is imported. The traceback begins in it."""

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import sys\nsys.exit('no licence')\n", "it called sys.exit('no licence') ({}:2)"),
            ("raise SystemExit\n", "it called sys.exit() ({}:1)"),
            ("raise KeyboardInterrupt\n", "KeyboardInterrupt ({}:1)"),
            ("def f():\n    1 / 0\nf()\n", "ZeroDivisionError: division by zero ({}:2)"),
            ("import missing_thing\n", "ModuleNotFoundError: No module named 'missing_thing' ({}:1)"),
            ("import shop.missing_thing\n", "ModuleNotFoundError: No module named 'shop.missing_thing'"),
            ("from os import missing_thing\n", "ImportError: cannot import name 'missing_thing' from 'os'"),
            ("raise ValueError('two\\n  lines')\n", "ValueError: two lines ({}:1)"),
            ("raise ValueError('x' * 5000)\n", "x… ({}:1)"),
        ],
        ids=["exit", "bare exit", "interrupt", "error", "missing", "missing below", "name", "lines", "long"],
    )
    def test_it_fails(self, site: Path, app: str, source: str, reason: str) -> None:
        path = write(site / "shop.py", source)
        error = failure(app)
        assert reason.format(path) in error.reason
        first = error.detail.splitlines()[:2]
        assert first[0] == "Traceback (most recent call last):"
        assert first[1].startswith(f'  File "{path}", line ')

    def test_it_has_a_syntax_error(self, site: Path, app: str) -> None:
        path = write(site / "shop.py", "x = 1\ndef f(:\n")
        error = failure(app)
        assert error.reason.startswith(f"cannot load {app}: SyntaxError: ")
        assert error.reason.endswith(f"({path}:2)")
        assert error.detail.startswith(f'  File "{path}", line 2\n')

    def test_it_imports_a_syntax_error(self, site: Path, app: str) -> None:
        path = write(site / "shop.py", "import broken\n")
        broken = write(site / "broken.py", "x = = 1\n")
        error = failure(app)
        assert f"({broken}:1)" in error.reason
        assert f'  File "{path}", line 1' in error.detail
        assert f'  File "{broken}", line 1' in error.detail


@pytest.mark.parametrize("app", ["shop", "shop.py"])
def test_the_traceback_begins_in_the_application_under_pypy_too(site: Path, app: str) -> None:
    path = write(site / "shop.py", "1 / 0\n")
    program = (
        f"import sys; sys.path.append({str(TOP)!r})\n"
        "from stardust.zygote.load import load\nfrom stardust.base.errors import AppLoadError\n"
        f"try: load({app!r})\nexcept AppLoadError as error: print(error.detail)\n"
    )
    pypy = shutil.which("pypy3")
    assert pypy is not None, "pypy3 is missing: apt-get install pypy3"
    done = subprocess.run([pypy, "-B", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[1] == f'  File "{path}", line 1, in <module>'


def test_there_is_no_such_module(site: Path) -> None:
    error = failure("shop.wsgi:app")
    assert "there is no module shop; looked in " in error.reason
    assert str(site) in error.reason
    assert error.detail == ""


def test_there_is_no_such_module_in_the_package(site: Path) -> None:
    write(site / "shop/__init__.py", "")
    assert "there is no module shop.wsgi; looked in " in failure("shop.wsgi:app").reason


def test_there_is_no_such_file(site: Path) -> None:
    error = failure("deep/front.py")
    assert error.reason == f"cannot load deep/front.py: there is no file {site}/deep/front.py"
    assert error.detail == ""


@pytest.mark.parametrize(
    ("source", "app", "reason"),
    [
        ("aplication = 5\n", "shop", "has neither application nor app; did you mean aplication?"),
        ("", "shop", "has neither application nor app"),
        ("def create_app(): ...\n", "shop:create_ap()", "has no create_ap; did you mean create_app?"),
        ("class box: lid = 5\n", "shop:box.lit", "has no box.lit; did you mean lid?"),
        ("app = 'text'\n", "shop:app", "app in module shop ({}) is of type str, not callable"),
        (
            "application = None\n",
            "shop",
            "the application in module shop ({}) is of type NoneType, not callable",
        ),
        ("make = 5\n", "shop:make()", "make in module shop ({}) is of type int, not callable"),
        (
            "def make(): ...\n",
            "shop:make()",
            "make() in module shop ({}) returned a NoneType, which is not callable",
        ),
        (
            "def make(a): ...\n",
            "shop:make(1)",
            "make(…) in module shop ({}) returned a NoneType, which is not callable",
        ),
        (
            "async def make(): ...\n",
            "shop:make()",
            "make in module shop ({}) is a coroutine function (async def); a factory must be a plain one",
        ),
        (
            "async def app(scope, receive, send): ...\n",
            "shop",
            "the application in module shop ({}) is a coroutine function (async def): an ASGI application, "
            "and this is a server for WSGI; wrap it: from a2wsgi import ASGIMiddleware; "
            "application = ASGIMiddleware(app)",
        ),
        (
            "class box:\n    async def lid(self, environ, start_response): ...\n    lid = lid\nbox = box()\n",
            "shop:box.lid",
            "box.lid in module shop ({}) is a coroutine function (async def): an ASGI application, "
            "and this is a server for WSGI; wrap it: from a2wsgi import ASGIMiddleware; "
            "application = ASGIMiddleware(box.lid)",
        ),
        (
            "class App:\n    async def __call__(self, scope, receive, send): ...\ndef make(): return App()\n",
            "shop:make()",
            "what make() in module shop ({}) returned is of type App, whose __call__ is async: an ASGI "
            "application, and this is a server for WSGI; wrap it: from a2wsgi import ASGIMiddleware; "
            "application = ASGIMiddleware(make())",
        ),
    ],
)
def test_it_is_not_there(site: Path, source: str, app: str, reason: str) -> None:
    path = write(site / "shop.py", source)
    error = failure(app)
    assert error.reason.endswith(reason.format(path))
    assert error.detail == ""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def make():\n    raise OSError('no database')\n", "OSError: no database ({}:2)"),
        ("def make():\n    raise SystemExit(1)\n", "it called sys.exit(1) ({}:2)"),
    ],
)
def test_the_factory_fails(site: Path, source: str, reason: str) -> None:
    path = write(site / "shop.py", source)
    error = failure("shop:make()")
    assert error.reason == f"cannot load shop:make(): {reason.format(path)}"
    assert error.detail.splitlines()[1] == f'  File "{path}", line 2, in make'


def test_the_factory_wants_arguments(site: Path) -> None:
    write(site / "shop.py", "def make(settings): ...\n")
    assert "make() missing 1 required positional argument" in failure("shop:make()").reason


def test_a_lookup_that_fails(site: Path) -> None:
    path = write(site / "shop.py", "def __getattr__(name):\n    raise LookupError(name)\n")
    assert failure("shop:lazy").reason.endswith(f"LookupError: lazy ({path}:2)")
