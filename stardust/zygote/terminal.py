"""`breakpoint()` and `input()`: of a worker, which has no terminal, and of a server that is one process.

Standard input of a zygote and its workers is /dev/null. `breakpoint()` would end in `bdb.BdbQuit`, and
`input()` in `EOFError`, which say neither why nor what to do: so `refuse`. With `max-workers = 0` there is a
terminal: so `lend`.

Runs in the application's interpreter.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any

from stardust.base.pristine import os

REASON = (
    "a worker has no terminal, its standard input is /dev/null; to debug the application, run the server "
    "in a terminal with --max-workers 0"
)
_DEFAULT = ("", "pdb.set_trace")


def refuse() -> None:
    """From now on `breakpoint()` and `input()` say why not, unless the application replaces them."""
    sys.breakpointhook = _no_breakpoint
    builtins.input = _no_input


def lend() -> None:
    """From now on `breakpoint()` leaves Ctrl-C to the server. pdb would keep it, once it has let the
    application go on, and stop in the server's own code."""
    sys.breakpointhook = _breakpoint


def _is_default() -> bool:
    """Another debugger that PYTHONBREAKPOINT names may need no terminal (PEP 553)."""
    return os.environ.get("PYTHONBREAKPOINT", "") in _DEFAULT


def _no_breakpoint(*given: Any, **named: Any) -> Any:
    if _is_default():
        raise RuntimeError(f"breakpoint(): {REASON}")
    return sys.__breakpointhook__(*given, **named)


def _breakpoint(*given: Any, **named: Any) -> Any:
    if given or named or not _is_default():
        return sys.__breakpointhook__(*given, **named)
    return importlib.import_module("pdb").Pdb(nosigint=True).set_trace(sys._getframe().f_back)


_ask = builtins.input


def _no_input(prompt: object = "", /) -> str:
    try:
        return _ask(prompt)
    except EOFError:
        raise EOFError(f"input(): {REASON}") from None
