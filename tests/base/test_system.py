"""What zygote and worker ask of Linux. What concerns a whole process is asked of one of its own."""

from __future__ import annotations

import ast
import contextlib
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stardust.base import system
from tests import seam

TOP = Path(system.__file__).parents[2]
FILES = {str(path.relative_to(TOP)): path for path in sorted((TOP / "stardust").rglob("*.py"))}
SEAM = "stardust/base/system.py"

# Who may go past the seam, and why.
PASSED: dict[tuple[str, str], str] = {
    ("stardust/wsgi/gateway.py", "os.fstat"): "a core: asks what kind of file the application has given",
    ("stardust/wsgi/input.py", "import tempfile"): "looked up in tempfile when it is called: replaced there",
    ("stardust/wsgi/input.py", "tempfile.TemporaryFile"): "the same",
    (
        "stardust/worker/connection.py",
        ".setsockopt",
    ): "of a Stream, which may be secure.py's, which asks the seam",
    ("stardust/supervisor/clients.py", ".accept"): "of control/server.py, which asks the seam",
}
# Rooms that are still to learn of it.
NOT_YET = tuple(f"stardust/{name}" for name in (*("supervisor/", "base/signals.py", "cli.py"),))

PATIENCE = 20.0  # s; far beyond what anything takes


def in_a_process(code: str) -> str:
    """What `code` prints, run by itself with `system` imported and a terminal's worth of standard input."""
    done = subprocess.run(
        [sys.executable, "-c", f"import os, resource, sys\nfrom stardust.base import system\n{code}"],
        input="typed\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(system.__file__))),
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("stardust:w3", "stardust:w3"), ("a name that is too long", "a name that is "), ("ü", "?")],
    ids=["a worker", "cut to 15 bytes", "not ASCII"],
)
def test_the_name_of_a_process(name: str, shown: str) -> None:
    assert in_a_process(
        f"system.name_process({name!r}, ''); print(open('/proc/self/comm').read()[:-1] + '|')"
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
        system.name_process('x', {title!r})
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
    system.name_process("x", "y")


def test_parent() -> None:
    assert system.parent(os.getpid()) == os.getppid()


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
        assert system.parent(child.pid) == os.getpid()
        child.communicate()


def test_parent_of_nobody() -> None:
    with pytest.raises(OSError, match="No such file"):
        system.parent(0)


def test_standard_input_ends_at_once() -> None:
    assert in_a_process("system.point_stdin_at_nothing(); print([sys.stdin.read()])") == "['']"


def test_descriptors_up_to_the_hard_limit() -> None:
    code = """
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        before = [system.raise_descriptor_limit(), system.raise_descriptor_limit()]
        print(before == [64, hard], resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))"""
    assert in_a_process(code.replace("\n        ", "\n")) == "True True"


@pytest.mark.parametrize("infinite", [False, True])
def test_how_many_descriptors_there_may_be(infinite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    soft = resource.RLIM_INFINITY if infinite else 64
    monkeypatch.setattr(system, "getrlimit", lambda which: (soft, resource.RLIM_INFINITY))
    assert system.descriptor_limit() == (sys.maxsize if infinite else 64)


def test_the_heap_is_frozen() -> None:
    code = """
        import gc
        before = gc.get_freeze_count()
        system.freeze_heap()
        print(before == 0, gc.get_freeze_count() > 0)"""
    assert in_a_process(code.replace("\n        ", "\n")) == "True True"


def test_a_heap_that_cannot_be_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyPy's."""
    monkeypatch.delattr(gc, "freeze")
    system.freeze_heap()


def test_epollexclusive_is_the_kernels() -> None:
    """include/uapi/linux/eventpoll.h. The kernel takes it for a listener, and only when registering."""
    assert system.EPOLLEXCLUSIVE == select.EPOLLEXCLUSIVE == 1 << 28
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN | system.EPOLLEXCLUSIVE)


def test_the_signal_for_stacks_is_a_free_one() -> None:
    assert signal.SIGRTMIN < system.STACKS_SIGNAL < signal.SIGRTMAX


def test_what_the_other_side_has_not_taken() -> None:
    """Less than was sent while it does not read; nothing when it has read all."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
        listener.accept()[0] as theirs,
    ):
        assert system.unacknowledged(ours.fileno()) == 0
        ours.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += ours.send(bytes(65536))
        assert 0 < system.unacknowledged(ours.fileno()) < sent
        theirs.settimeout(20)
        while sent:
            sent -= len(theirs.recv(1 << 20))
        deadline = time.monotonic() + 20
        while system.unacknowledged(ours.fileno()):
            assert time.monotonic() < deadline


def past_the_seam(name: str) -> set[str]:
    return set(seam.offences(ast.parse(FILES[name].read_text())))


@pytest.mark.parametrize("name", [name for name in FILES if name != SEAM and not name.startswith(NOT_YET)])
def test_nobody_goes_past_it(name: str) -> None:
    assert not past_the_seam(name) - {what for who, what in PASSED if who == name}


def test_exceptions_are_needed() -> None:
    assert not [(who, what) for who, what in PASSED if what not in past_the_seam(who)]


def test_all_calls_are_known() -> None:
    """Those that stand above CALLS, whatever they are made of."""
    names = set()
    for node in ast.parse(FILES[SEAM].read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "CALLS":
                break
            names.add(node.targets[0].id)
    assert {name for name in names if not name.startswith("_")} == system.CALLS


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes",
        "import os as operating_system",
        "from os import fork",
        "from tempfile import TemporaryFile",
        "importlib.import_module('ctypes')",
        "from stardust.base.system import close",
        "os.fork()",
        "callback(os.close)",
        "with open(path) as file: pass",
        "signal.pidfd_send_signal(descriptor, 9)",
        "socket.socket(fileno=3)",
        "select.epoll()",
        "sock.sendmsg([data])",
        "self.listener.socket.accept()",
        "Path(name).read_text()",
        "write = system.write",
        "def end(close=system.close): pass",
        "def end(): atexit.register(system.close, 3)",
        "system.close(3)",
    ],
)
def test_what_goes_past_it(code: str) -> None:
    assert len(list(seam.offences(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "def end(): system.close(3)",
        "end = lambda: system.close(3)",
        "import os, socket, select, signal, re",
        "from pathlib import Path",
        "from stardust.base import system",
        "from stardust.base.system import EPOLLEXCLUSIVE",
        "from stardust.control import client\nclient.connect(paths)",
        "os.path.join(os.environ['HOME'], str(os.getpid()))",
        "sock: socket.socket = given",
        "isinstance(sock, socket.SocketType)",
        "sock.recv(4096, socket.MSG_DONTWAIT)",
        "epoll.register(3, select.EPOLLIN | system.EPOLLEXCLUSIVE)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    ],
)
def test_what_does_not(code: str) -> None:
    assert not list(seam.offences(ast.parse(code)))
