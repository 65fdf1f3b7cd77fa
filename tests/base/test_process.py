"""What a process does about itself. What would change the one of the tests is asked of one of its own."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from stardust.base import process, system

PATIENCE = 20.0  # s; far beyond what anything takes


def in_a_process(code: str) -> str:
    """What `code` prints, run by itself with `process` imported and a terminal's worth of standard input."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, resource, sys\nfrom stardust.base import process\n{code}"],
        input="typed\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(process.__file__))),
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("stardust:w3", "stardust:w3"), ("a name that is too long", "a name that is "), ("ü", "?")],
    ids=["a worker", "cut to 15 bytes", "not ASCII"],
)
def test_the_name_of_a_process(name: str, shown: str) -> None:
    assert in_a_process(
        f"process.name_process({name!r}, ''); print(open('/proc/self/comm').read()[:-1] + '|')"
    ) == (f"{shown}|")


@pytest.mark.parametrize(
    ("title", "shown"),
    [("stardust: worker 3", "stardust: worker 3"), ("überlang" * 999, ("überlang" * 999))],
    ids=["short", "cut to the length of the command line"],
)
def test_the_title_of_a_process(title: str, shown: str) -> None:
    code = f"""
        argv = sys.orig_argv[:]
        before = open('/proc/self/cmdline', 'rb').read()
        process.name_process('x', {title!r})
        after = open('/proc/self/cmdline', 'rb').read()
        assert after == {shown!r}.encode()[: len(before) - 1].ljust(len(before), b'\\0'), after
        assert sys.orig_argv == argv
        print('fine')
    """
    assert in_a_process(textwrap.dedent(code)) == "fine"


def test_a_name_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(system, "open_descriptor", refuse)
    process.name_process("x", "y")


def test_parent() -> None:
    assert process.parent(os.getpid()) == os.getppid()


def test_parent_of_a_process_with_an_odd_name() -> None:
    program = (
        "import sys\n"
        "with open('/proc/self/comm', 'w') as comm: comm.write(') S 1 (x')\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        assert process.parent(child.pid) == os.getpid()
        child.communicate()


def test_parent_of_nobody() -> None:
    with pytest.raises(OSError, match="No such file"):
        process.parent(0)


def test_standard_input_ends_at_once() -> None:
    assert in_a_process("process.point_stdin_at_nothing(); print([sys.stdin.read()])") == "['']"


def test_descriptors_up_to_the_hard_limit() -> None:
    code = """
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        before = [process.raise_descriptor_limit(), process.raise_descriptor_limit()]
        print(before == [64, hard], resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))"""
    assert in_a_process(code.replace("\n        ", "\n")) == "True True"


@pytest.mark.parametrize("infinite", [False, True])
def test_how_many_descriptors_there_may_be(infinite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    soft = resource.RLIM_INFINITY if infinite else 64
    monkeypatch.setattr(system, "getrlimit", lambda which: (soft, resource.RLIM_INFINITY))
    assert process.descriptor_limit() == (sys.maxsize if infinite else 64)


def test_the_heap_is_frozen() -> None:
    code = """
        import gc
        before = gc.get_freeze_count()
        process.freeze_heap()
        print(before == 0, gc.get_freeze_count() > 0)"""
    assert in_a_process(code.replace("\n        ", "\n")) == "True True"


def test_a_heap_that_cannot_be_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyPy's."""
    monkeypatch.delattr(gc, "freeze")
    process.freeze_heap()


def test_the_signal_for_stacks_is_a_free_one() -> None:
    assert signal.SIGRTMIN < process.STACKS_SIGNAL < signal.SIGRTMAX
