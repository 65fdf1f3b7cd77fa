"""The setting `app` to the application itself.

    module:callable      package.module:object.attribute      module:factory()
    path/to/file.py      path/to/file.py:callable             module

Without a name, `application` is looked for, then `app`. A file becomes a module named after it, with its
directory first on sys.path, as `python file.py` has it; a module is looked for in the current directory
first, as `python -m` does.

Rules:
- Whatever goes wrong is an AppLoadError: a line that says what was looked for and where and, if code of the
  application's ran, a traceback that begins there.
- Everything is caught, SystemExit too: an application that calls sys.exit() while it is imported has not
  been loaded.

Runs in the application's interpreter, in a process made for it: sys.path and sys.modules are its to change.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Optional, TypeVar

from stardust.base import system
from stardust.base.errors import AppLoadError
from stardust.base.pristine import os
from stardust.settings.table import Config

DEFAULT_NAMES = ("application", "app")

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_MODULE = re.compile(_DOTTED)
_NAME = re.compile(rf"({_DOTTED})(\(\))?")
_REASON_CHARACTERS = 500

Result = TypeVar("Result")


class Reference(NamedTuple):
    """`app` in its parts: `place` is the name of a module or the path of a file, `name` may be dotted, and ""
    stands for the default names. `called`: what it names makes the application when it is called.
    """

    place: str
    is_file: bool
    name: str
    called: bool


def load(app: str) -> Callable[..., Any]:
    """The application that `app` names. Runs its code, and raises AppLoadError if that does not end well."""
    return _run(f"cannot load {app}", lambda: _application(parse(app)))


def load_hook(key: str, name: str) -> Callable[..., object]:
    """The function that the setting `key` names, as `module:function`. Runs the module's code if nobody has
    before, and raises AppLoadError if that does not end well."""
    return _run(f"cannot load {key} = {name}", lambda: _application(parse(name)))


def load_hooks(config: Config) -> None:
    """Load all that are set, so that a mistake is found early. Raises AppLoadError."""
    for key, name in (
        ("after-fork", config.after_fork),
        ("before-exit", config.before_exit),
        ("after-death", config.after_death),
    ):
        if name:
            load_hook(key, name)


def call_hook(key: str, name: str, *arguments: object) -> None:
    """Load it and call it. Raises AppLoadError if either does not end well."""
    hook = load_hook(key, name)
    _run(f"{key} = {name} has failed", lambda: hook(*arguments))


def _run(failure: str, do: Callable[[], Result]) -> Result:
    """What `do` returns. It runs code of theirs: whatever that raises becomes an AppLoadError, which begins
    with `failure`."""
    try:
        return do()
    except AppLoadError as error:
        raise AppLoadError(f"{failure}: {error.reason}") from None
    except BaseException as error:
        trace = _theirs(error.__traceback__)
        detail = ""
        # Without a frame of theirs a traceback tells of our loader only; but a SyntaxError has its own place.
        if trace or isinstance(error, SyntaxError):
            detail = "".join(traceback.format_exception(type(error), error, trace))
        raise AppLoadError(f"{failure}: {_reason(error, trace)}", detail) from None


def parse(app: str) -> Reference:
    """The parts of `app`. Pure; AppLoadError if it has none of the forms above."""
    place, colon, name = app.rpartition(":")
    if not colon or "/" in name:  # a colon in a directory's name
        place, colon, name = app, "", ""
    is_file = "/" in place or place.endswith(".py")
    match = _NAME.fullmatch(name)
    if (colon and not match) or not (is_file or _MODULE.fullmatch(place)):
        raise AppLoadError("it must be like module:callable, module:factory() or path/to/file.py:callable")
    return Reference(place, is_file, match[1] if match else "", bool(match and match[2]))


def _application(reference: Reference) -> Callable[..., Any]:
    find = _import_file if reference.is_file else _import
    module = find(reference.place)
    found = _attribute(module, reference.name)
    name = reference.name or "the application"
    if not callable(found):
        raise AppLoadError(f"{name} in {_described(module)} is of type {type(found).__name__}, not callable")
    if not reference.called:
        return found
    made: object = found()
    if not callable(made):
        raise AppLoadError(
            f"{name}() in {_described(module)} returned a {type(made).__name__}, which is not callable"
        )
    return made


def _import(name: str) -> ModuleType:
    here = system.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # It may be this module that is missing, or its package; or one that it imports: a failure of its own.
        if error.name is None or not f"{name}.".startswith(f"{error.name}.") or _theirs(error.__traceback__):
            raise
        raise AppLoadError(
            f"there is no module {error.name}; looked in {', '.join(path or here for path in sys.path)}"
        ) from None


def _import_file(place: str) -> ModuleType:
    path = os.path.abspath(place)
    if not os.path.isfile(path):
        raise AppLoadError(f"there is no file {path}")
    directory, base = os.path.split(path)
    name = os.path.splitext(base)[0]
    if name in sys.modules:
        raise AppLoadError(f"{path} would hide the module {name}, which is already loaded; rename the file")
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)
    # Named, the loader takes files of any suffix: .wsgi is a usual one.
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.machinery.ModuleSpec(name, loader, origin=path)
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _attribute(module: ModuleType, name: str) -> object:
    """What `name` means in `module`; it may be dotted, or "". AppLoadError suggests the nearest name."""
    if not name:
        for default in DEFAULT_NAMES:
            if hasattr(module, default):
                return getattr(module, default)
        wanted = " nor ".join(DEFAULT_NAMES)
        raise AppLoadError(f"{_described(module)} has neither {wanted}{_hint(DEFAULT_NAMES[0], module)}")
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise AppLoadError(f"{_described(module)} has no {name}{_hint(part, found)}")
        found = getattr(found, part)
    return found


def _hint(name: str, owner: object) -> str:
    near = difflib.get_close_matches(name, [known for known in dir(owner) if not known.startswith("__")], 1)
    return f"; did you mean {near[0]}?" if near else ""


def _described(module: ModuleType) -> str:
    path = getattr(module, "__file__", None)
    return f"module {module.__name__} ({path})" if path else f"module {module.__name__}"


def _reason(error: BaseException, trace: Optional[TracebackType]) -> str:
    """One line: what was raised, and where."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    if isinstance(error, SystemExit):
        text = f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    else:
        text = "".join(traceback.format_exception_only(type(error), error))
    text = " ".join(text.split())
    if len(text) > _REASON_CHARACTERS:
        text = text[:_REASON_CHARACTERS] + "…"
    frames = traceback.extract_tb(trace)
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


def _theirs(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """`trace` from its first frame that is neither ours nor the import system's, or None."""
    while trace is not None:
        source = trace.tb_frame.f_code.co_filename
        # "<frozen importlib._bootstrap>"; PyPy has "<builtin>/frozen importlib._bootstrap_external" as well.
        if source not in (__file__, importlib.__file__) and "frozen importlib" not in source:
            return trace
        trace = trace.tb_next
    return None
