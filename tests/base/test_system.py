"""The seam: what is written here about Linux, and that nobody goes past it."""

from __future__ import annotations

import ast
import contextlib
import select
import socket
import time
from pathlib import Path

import pytest

from stardust.base import system
from tests import seam

TOP = Path(system.__file__).parents[2]
FILES = {str(path.relative_to(TOP)): path for path in sorted((TOP / "stardust").rglob("*.py"))}
SEAM = "stardust/base/system.py"
COPIES = "stardust/base/pristine.py"  # what the seam is made of

# Who may go past the seam, and why.
PASSED: dict[tuple[str, str], str] = {
    ("stardust/wsgi/gateway.py", "os.fstat"): "a core: asks what kind of file the application has given",
    ("stardust/wsgi/input.py", "import tempfile"): "asks where temporary files are",
    ("stardust/wsgi/input.py", "tempfile.gettempdir"): "the same",
    (
        "stardust/worker/connection.py",
        ".setsockopt",
    ): "of a Stream, a socket or secure.py's",
    ("stardust/worker/loan.py", ".sendmsg"): "the application's own call, of a socket that is its own",
    ("stardust/supervisor/shell.py", ".listen"): "of zygotes.py: begins to hear a zygote",
    ("stardust/supervisor/zygotes.py", ".listen"): "its own",
    ("stardust/supervisor/clients.py", ".accept"): "of control/server.py, which asks the seam",
}

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PATIENCE = 20.0  # s; far beyond what anything takes


def test_epollexclusive_is_the_kernels() -> None:
    """include/uapi/linux/eventpoll.h. The kernel takes it for a listener, and only when registering."""
    assert system.EPOLLEXCLUSIVE == select.EPOLLEXCLUSIVE == 1 << 28
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN | system.EPOLLEXCLUSIVE)


def test_prctl() -> None:
    system.prctl(PR_SET_CHILD_SUBREAPER, 0)
    with pytest.raises(OSError, match="Invalid argument"):
        system.prctl(-1, 0)


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


@pytest.mark.parametrize("name", [name for name in FILES if name not in (SEAM, COPIES)])
def test_nobody_goes_past_it(name: str) -> None:
    assert not past_the_seam(name) - {what for who, what in PASSED if who == name}


def test_exceptions_are_needed() -> None:
    assert not [(who, what) for who, what in PASSED if what not in past_the_seam(who)]


def test_every_call_is_made_somewhere() -> None:
    made = {
        node.attr
        for name, path in FILES.items()
        if name != SEAM
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "system"
    }
    assert made >= system.CALLS


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
        "from stardust.base.pristine import fcntl",
        "from stardust.base.pristine import os\nos.fork()",
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
        "from stardust.base.pristine import os, socket\nos.getpid()",
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
