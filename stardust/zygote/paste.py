"""Applications that a file of PasteDeploy describes: paste:FILE.ini, or paste:FILE.ini#NAME.

Pyramid's `pserve` and gunicorn's `--paste` take the same files. Of its sections the server reads those of
applications, and of logging: [server:…] is another server's.

Rules:
- PasteDeploy is the application's: it is loaded in its interpreter, and only for this form.
- The directory of the file comes first on sys.path, as that of a file of Python does.

Runs in the application's interpreter.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from stardust.base import system
from stardust.base.errors import AppLoadError
from stardust.base.pristine import os

# A module may be called paste (Paste's is): so only what looks like a file is one.
_FORM = re.compile(r"paste:([^#]*/[^#]*|[^#]+\.ini)(?:#(.*))?", re.DOTALL)
_LOGGING = re.compile(rb"^\[loggers\]", re.MULTILINE)


class Ini(NamedTuple):
    """`path` of the file, and the `name` of a section in it: [app:name], [composite:name], [pipeline:name];
    "" for the one that is called main."""

    path: str
    name: str


def parse(app: str) -> Optional[Ini]:
    """The parts of `app`, None if it is of another form. Pure."""
    match = _FORM.fullmatch(app)
    return None if match is None else Ini(match[1], match[2] or "")


def load(ini: Ini) -> Callable[..., Any]:
    """The application that `ini` describes. Raises AppLoadError, or whatever its code raises."""
    path = os.path.abspath(ini.path)
    if not os.path.isfile(path):
        raise AppLoadError(f"there is no file {path}")
    directory = os.path.dirname(path)
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)
    deploy = _deploy()
    _set_up_logging(path, directory)
    try:
        app: Callable[..., Any] = deploy.loadapp(f"config:{path}", name=ini.name or None, global_conf={})
    except LookupError as error:  # so it says that there is no such section, or no such entry point
        if not _of_paste(error):
            raise
        raise AppLoadError(f"{path} does not describe {_wanted(ini)}: {error.args[0]}") from None
    if not callable(app):
        raise AppLoadError(f"{_wanted(ini)} in {path} is of type {type(app).__name__}, not callable")
    return app


def _wanted(ini: Ini) -> str:
    return f"an application {ini.name or 'main'}"


def _deploy() -> Any:
    try:
        return importlib.import_module("paste.deploy")
    except ModuleNotFoundError as error:
        if error.name not in ("paste", "paste.deploy"):
            raise
        raise AppLoadError(
            f"the package PasteDeploy is not installed for {sys.executable}; install it, or name the "
            "application as module:callable"
        ) from None


def _set_up_logging(path: str, directory: str) -> None:
    """As `pserve` and gunicorn do: a file with a section [loggers] says where its application logs to."""
    if not _LOGGING.search(system.read_file(path)):
        return
    defaults = {"here": directory, "__file__": path}
    importlib.import_module("logging.config").fileConfig(path, defaults, disable_existing_loggers=False)


def _of_paste(error: BaseException) -> bool:
    """Whether PasteDeploy itself has raised it, and no application."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("paste.deploy")
