"""Files of PasteDeploy: the form, and all that can be wrong before and behind it.

The package itself is the application's. Here a module of that name stands for it; the real one is in
tests/applications.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base.errors import AppLoadError
from stardust.zygote.load import load
from stardust.zygote.paste import Ini, parse

STAND_IN = """
import configparser

def loadapp(uri, name=None, global_conf=None):
    file = configparser.ConfigParser()
    file.read(uri[len("config:"):])
    section = "app:" + (name or "main")
    if section not in file:
        raise LookupError(f"No section {name or 'main'!r} found in config")
    return eval(file[section]["value"], {"uri": uri, "global_conf": global_conf, "fail": fail})
"""
FAIL = "\nfrom fail import fail\n"


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


@pytest.fixture
def package(site: Path) -> None:
    """Beside the files: their directory is on the path."""
    (site / "conf/paste").mkdir(parents=True)
    (site / "conf/paste/__init__.py").write_text("")
    (site / "conf/paste/deploy.py").write_text(FAIL + STAND_IN)
    (site / "conf/fail.py").write_text("def fail(): raise LookupError('of the application')\n")


def ini(site: Path, text: str) -> None:
    (site / "conf").mkdir(exist_ok=True)
    (site / "conf/site.ini").write_text(text)


def failure(app: str) -> str:
    with pytest.raises(AppLoadError) as caught:
        load(app)
    assert caught.value.reason.startswith(f"cannot load {app}: ")
    return caught.value.reason[len(f"cannot load {app}: ") :]


@pytest.mark.parametrize(
    ("app", "parts"),
    [
        ("paste:site.ini", Ini("site.ini", "")),
        ("paste:site.ini#shop", Ini("site.ini", "shop")),
        ("paste:site.ini#", Ini("site.ini", "")),
        ("paste:/etc/shop/site.ini#a:b c", Ini("/etc/shop/site.ini", "a:b c")),
        ("paste:./production", Ini("./production", "")),
        ("paste:conf/site.cfg#shop", Ini("conf/site.cfg", "shop")),
        ("paste:a:b.ini", Ini("a:b.ini", "")),
        ("paste", None),
        ("paste:app", None),
        ("paste:app()", None),
        ("paste:.ini", None),
        ("paste.deploy:app", None),
        ("site.ini", None),
    ],
)
def test_the_form(app: str, parts: Ini | None) -> None:
    assert parse(app) == parts


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("app", "section"), [("paste:conf/site.ini", "main"), ("paste:conf/site.ini#x", "x")]
)
def test_it_is_loaded(site: Path, app: str, section: str) -> None:
    ini(site, f"[app:{section}]\nvalue = lambda *_: (uri, global_conf)\n")
    assert load(app)({}, None) == (f"config:{site}/conf/site.ini", {})
    assert sys.path[0] == str(site / "conf")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("app", "value", "reason"),
    [
        ("paste:none.ini", "1", "there is no file {}/none.ini"),
        (
            "paste:conf/site.ini#shop",
            "1",
            "{}/conf/site.ini does not describe an application shop: No section 'shop' found in config",
        ),
        ("paste:conf/site.ini", "5", "an application main in {}/conf/site.ini is of type int, not callable"),
        ("paste:conf/site.ini", "fail()", "LookupError: of the application ({}/conf/fail.py:1)"),
    ],
)
def test_it_is_not_there(site: Path, app: str, value: str, reason: str) -> None:
    ini(site, f"[app:main]\nvalue = {value}\n")
    assert failure(app) == reason.format(site)


@pytest.mark.usefixtures("package")
def test_the_traceback_begins_behind_the_server(site: Path) -> None:
    ini(site, "[app:main]\nvalue = 1 / 0\n")
    with pytest.raises(AppLoadError) as caught:
        load("paste:conf/site.ini")
    assert caught.value.detail.splitlines()[1].startswith(f'  File "{site}/conf/paste/deploy.py", line ')


@pytest.mark.usefixtures("package")
def test_it_is_of_asgi(site: Path) -> None:
    ini(site, "[app:main]\nvalue = lambda scope, receive, send: None\n")
    assert failure("paste:conf/site.ini").startswith(
        f"the application in {site}/conf/site.ini is a function of (scope, receive, send): an ASGI app"
    )


def test_the_package_is_missing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    ini(site, "[app:main]\n")
    assert failure("paste:conf/site.ini").startswith(
        f"the package PasteDeploy is not installed for {sys.executable}; "
    )


def test_the_package_misses_something(site: Path) -> None:
    ini(site, "[app:main]\n")
    (site / "conf/paste").mkdir()
    (site / "conf/paste/deploy.py").write_text("import missing_thing\n")
    assert failure("paste:conf/site.ini").startswith("ModuleNotFoundError: No module named 'missing_thing'")


@pytest.mark.usefixtures("package")
def test_it_sets_up_logging(site: Path) -> None:
    ini(
        site,
        "[app:main]\nvalue = lambda *_: []\n"
        "[loggers]\nkeys = root, stardust_test\n[handlers]\nkeys = out\n[formatters]\nkeys =\n"
        "[logger_root]\nhandlers =\n[logger_stardust_test]\nqualname = stardust_test\nhandlers = out\n"
        "[handler_out]\nclass = FileHandler\nargs = (r'%(here)s/log',)\n",
    )
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        load("paste:conf/site.ini")
        logger = logging.getLogger("stardust_test")
        logger.warning("written")
        assert (site / "conf/log").read_text() == "written\n"
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
    finally:
        root.handlers[:], root.level = before
