"""Standard streams that are closed or replaced, each time in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stardust.base import streams

TOP = Path(streams.__file__).parents[2]
PATIENCE = 20.0  # s; far beyond what anything takes

CLASS = """
class Mute:
    def write(self, text):
        pass
"""
# What an application makes of a stream of the given name.
REPLACED = {
    "none": "sys.{name} = None",
    "closed": "sys.{name}.close()",
    "deleted": "del sys.{name}; sys.{name} = None",
    "without flush": CLASS + "sys.{name} = Mute()",
    "no stream": "sys.{name} = 7",
}


def run(code: str, *closed: int) -> subprocess.CompletedProcess[str]:
    """Run `code` with `streams` and what else it needs, these descriptors closed before Python starts."""
    shell = " ".join(("exec", '"$0"', '"$@"', *(f"{number}>&-" for number in closed)))
    code = f"import os, sys\nfrom stardust.base import streams\n{code}"
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=TOP,
        check=False,
    )


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_what_was_closed_is_nothing(closed: tuple[int, ...], tmp_path: Path) -> None:
    """And may be written to, and passed on; what was open stays what it was."""
    place = tmp_path / "found"
    done = run(
        f"""
streams.ensure()
file = os.open({str(place)!r}, os.O_WRONLY | os.O_CREAT)
assert file > 2, file
found = [os.readlink(f"/proc/self/fd/{{number}}") for number in range(3)]
assert all(map(os.get_inheritable, range(3)))
print("out")
print("err", file=sys.stderr)
os.write(file, repr(found).encode())
""",
        *closed,
    )
    assert done.returncode == 0
    found = eval(place.read_text())
    assert [number for number in range(3) if found[number] == os.devnull] == [*closed] or 0 not in closed
    assert done.stdout == ("" if 1 in closed else "out\n")
    assert done.stderr == ("" if 2 in closed else "err\n")


@pytest.mark.parametrize("how", REPLACED)
def test_errors_have_somewhere_to_go(how: str) -> None:
    replace = REPLACED[how].format(name="stderr")
    done = run(f"{replace}\nstream = streams.error()\nstream.write('said\\n')\nstreams.finish()")
    assert (done.returncode, done.stderr) == (0, "said\n")


def test_what_an_application_puts_there_is_written_to() -> None:
    done = run(
        "import io\nsys.stderr = io.StringIO()\nassert streams.error() is sys.stderr\nstreams.ensure()"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("how", REPLACED)
def test_nothing_fails_for_what_is_replaced(how: str, name: str) -> None:
    done = run(f"{REPLACED[how].format(name=name)}\nstreams.flush()\nstreams.finish()\nsys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_what_was_printed_is_written_once() -> None:
    done = run("print('once', end='')\nstreams.flush()\nif os.fork(): os.wait()")
    assert (done.returncode, done.stdout) == (0, "once")
