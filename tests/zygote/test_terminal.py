"""What is said to an application that asks for a terminal, in a process that has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stardust.zygote import terminal

TOP = Path(terminal.__file__).parents[2]
PATIENCE = 20.0  # s; far beyond what anything takes


def last_line(code: str, typed: str = "", how: str = "refuse", **environ: str) -> str:
    """What `code` says last, without a terminal."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from stardust.zygote import terminal\nterminal.{how}()\n{code}",
        ],
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environ},
        text=True,
        timeout=PATIENCE,
        cwd=TOP,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1]


def test_breakpoint() -> None:
    assert last_line("breakpoint()") == f"RuntimeError: breakpoint(): {terminal.REASON}"


def test_input() -> None:
    assert last_line("input()") == f"EOFError: input(): {terminal.REASON}"


def test_what_can_be_read_is() -> None:
    assert last_line("print(input())", "typed\n") == "typed"


def test_the_debugger_leaves_control_c_alone() -> None:
    """It stops where it was called, and has no handler of its own afterwards."""
    code = "import signal\nbefore = signal.getsignal(2)\nbreakpoint()\nprint(signal.getsignal(2) is before)"
    said = last_line(code, "where\nc\n", how="lend")
    assert said.endswith("True")


@pytest.mark.parametrize("how", ["refuse", "lend"])
@pytest.mark.parametrize("debugger", ["0", "builtins.print"])
def test_another_debugger(debugger: str, how: str) -> None:
    """Or none (PEP 553)."""
    said = {"0": "over", "builtins.print": "reached"}[debugger]
    code = "print('over')\nbreakpoint('reached')"
    assert last_line(code, how=how, PYTHONBREAKPOINT=debugger) == said
