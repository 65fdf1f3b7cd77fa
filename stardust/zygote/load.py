"""The setting `app` to the application itself.

    module:callable      package.module:object.attribute      module:factory()      module:factory("a", b=1)
    path/to/file.py      path/to/file.py:callable             module                paste:file.ini#name

Without a name, `application` is looked for, then `app`. A file becomes a module named after it, with its
directory first on sys.path, as `python file.py` has it; a module is looked for in the current directory
first, as `python -m` does.

Rules:
- The arguments of a factory are literals (ast.literal_eval): nothing is evaluated, no name is looked up.
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
from collections.abc import Callable, Iterator, Mapping
from types import CoroutineType, ModuleType, TracebackType
from typing import Any, NamedTuple, Optional, TypeVar

from stardust.base import system
from stardust.base.errors import AppLoadError
from stardust.base.pristine import os
from stardust.settings.table import Config
from stardust.zygote import paste
from stardust.zygote.asgi import likeness

DEFAULT_NAMES = ("application", "app")

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_MODULE = re.compile(_DOTTED)
_NAME = re.compile(rf"({_DOTTED})(\(\))?")
_CALL = re.compile(rf":(?=({_DOTTED})\()")
_FORMS = (
    "it must be like module:callable, module:factory(), module:factory('literal', name=1), "
    "path/to/file.py:callable or paste:file.ini#name"
)
_REASON_CHARACTERS = 500

Result = TypeVar("Result")


class Reference(NamedTuple):
    """`app` in its parts: `place` is the name of a module or the path of a file, `name` may be dotted, and ""
    stands for the default names. `called`: what it names makes the application when it is called, with these
    `arguments` and `keywords`.
    """

    place: str
    is_file: bool
    name: str
    called: bool
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = {}


def load(app: str) -> Callable[..., Any]:
    """The application that `app` names. Runs its code, and raises AppLoadError if that does not end well."""

    def found() -> Callable[..., Any]:
        ini = paste.parse(app)
        return _application(parse(app), wsgi=True) if ini is None else _paste(ini)

    return _run(f"cannot load {app}", found)


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
    if app.endswith(")") and not app.endswith("()"):
        for place, name in _calls(app):
            call = _call(app[len(place) + 1 :])
            if call is not None:
                return Reference(place, _is_file(place), name, True, *_literals(call))
    place, colon, name = app.rpartition(":")
    if not colon or "/" in name:  # a colon in a directory's name
        place, colon, name = app, "", ""
    match = _NAME.fullmatch(name)
    if (colon and not match) or not (_is_file(place) or _MODULE.fullmatch(place)):
        raise AppLoadError(_FORMS)
    return Reference(place, _is_file(place), match[1] if match else "", bool(match and match[2]))


def _is_file(place: str) -> bool:
    return "/" in place or place.endswith(".py")


def _calls(app: str) -> Iterator[tuple[str, str]]:
    """Where the place may end and the call of a name may begin. A directory's name may look like one, and so
    may what stands in a string: the first that is an expression is it."""
    for match in _CALL.finditer(app):
        place = app[: match.start()]
        if _is_file(place) or _MODULE.fullmatch(place):
            yield place, match[1]


def _call(text: str) -> Any:
    """The syntax tree of a call, an ast.Call; None if `text` is something else."""
    ast: Any = importlib.import_module("ast")  # costs 1 ms and 0.5 MiB; only if there are arguments
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not isinstance(call, ast.Call):
        return None
    called = call.func
    while isinstance(called, ast.Attribute):
        called = called.value
    return call if isinstance(called, ast.Name) else None  # a()(1) and a().b(1) are none of the forms


def _literals(call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an ast.Call. AppLoadError if one of them is no literal."""
    keywords: dict[str, Any] = {}
    arguments = tuple(_literal(each) for each in call.args)
    for each in call.keywords:
        if each.arg is None or each.arg in keywords:
            given = f"**{_shown(each.value)} is neither" if each.arg is None else f"{each.arg} is given twice"
            raise AppLoadError(f"arguments must be literals, or name=literal; {given}")
        keywords[each.arg] = _literal(each.value)
    return arguments, keywords


def _literal(node: Any) -> Any:
    try:
        return importlib.import_module("ast").literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise AppLoadError(
            "arguments must be literals: strings, bytes, numbers, True, False, None, and tuples, lists, "
            f"dicts and sets of these; {_shown(node)} is none"
        ) from None


def _shown(node: Any) -> str:
    text: str = importlib.import_module("ast").unparse(node)
    return text


def _paste(ini: paste.Ini) -> Callable[..., Any]:
    return _served(paste.load(ini), ini.name or "the application", f"in {os.path.abspath(ini.path)}", "app")


def _application(reference: Reference, *, wsgi: bool = False) -> Callable[..., Any]:
    """What `reference` names. `wsgi`: a server for WSGI is to call it."""
    find = _import_file if reference.is_file else _import
    module = find(reference.place)
    found = _attribute(module, reference.name)
    name, place = reference.name or "the application", f"in {_described(module)}"
    if not callable(found):
        raise AppLoadError(f"{name} {place} is of type {type(found).__name__}, not callable")
    if not reference.called:
        return _served(found, name, place, reference.name or "app") if wsgi else found
    called = f"{name}({'…' if reference.arguments or reference.keywords else ''})"
    made: object = found(*reference.arguments, **reference.keywords)
    if _is_coroutine(made):
        raise AppLoadError(
            f"{name} {place} is a coroutine function (async def); a factory must be a plain one"
        )
    if not callable(made):
        raise AppLoadError(f"{called} {place} returned a {type(made).__name__}, which is not callable")
    return _served(made, f"what {called} {place} returned", "", called) if wsgi else made


def _is_coroutine(made: object) -> bool:
    """Whether `made` waits to be awaited. It never will be, and shall not complain of it."""
    if not isinstance(made, CoroutineType):
        return False
    made.close()
    return True


def _served(app: Callable[..., Any], name: str, place: str, wrapped: str) -> Callable[..., Any]:
    """`app`, if it is not plainly one that this server cannot call."""
    like = likeness(app)
    if like:
        raise AppLoadError(
            f"{' '.join(filter(None, (name, place)))} is {like}: an ASGI application, and this is a server "
            f"for WSGI; wrap it: from a2wsgi import ASGIMiddleware; application = ASGIMiddleware({wrapped})"
        )
    return app


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
        if source not in (__file__, paste.__file__, importlib.__file__) and "frozen importlib" not in source:
            return trace
        trace = trace.tb_next
    return None
