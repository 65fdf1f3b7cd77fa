"""Descriptors from systemd: what the variables must say, what the descriptors must be, what is scrubbed."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from stardust.base.address import parse
from stardust.base.errors import ActivationError
from stardust.systemd import activation, store
from stardust.systemd.activation import Inherited
from stardust.systemd.store import Stored

OWN = 4711

# Takes the place of systemd: puts descriptors where the protocol wants them and says so, in the process that
# LISTEN_PID names. The sockets arrive at high numbers, so that no dup2 overwrites another.
AS_SYSTEMD = """
import json, os, sys
plan = json.loads(sys.argv[1])
for place, fd in enumerate(plan["fds"]):
    os.dup2(fd, 3 + place, inheritable=True)
os.environ.update(plan["environ"])
os.environ["LISTEN_PID"] = str(os.getpid())

from stardust.base.errors import ActivationError
from stardust.systemd import activation
try:
    found = activation.inherited(os.environ, os.getpid())
except ActivationError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
flags = [[os.get_inheritable(fd), os.get_blocking(fd)] for fd, _ in found]
activation.scrub(os.environ)
import ctypes
left = [name for name in plan["environ"] if ctypes.CDLL(None).getenv(name.encode())]
print(json.dumps({"found": found, "flags": flags, "left": left}))
"""


def start(fds: list[int], environ: Mapping[str, str]) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", AS_SYSTEMD, json.dumps({"fds": fds, "environ": dict(environ)})],
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return raised(sock)


def raised(sock: socket.socket) -> socket.socket:
    """The same socket at a descriptor of 100 or more."""
    with sock:
        return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))


def test_several_descriptors_with_their_names_prepared_and_scrubbed() -> None:
    with listening() as a, listening() as b, listening() as c:
        result = start(
            [a.fileno(), b.fileno(), c.fileno()],
            {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "http:admin:http", "INVOCATION_ID": "4f"},
        )
    assert result["found"] == [[3, "http"], [4, "admin"], [5, "http"]]
    assert result["flags"] == [[False, False]] * 3, "close-on-exec and non-blocking"
    assert result["left"] == ["INVOCATION_ID"], "gone from the C environment as well"


def test_names_may_be_missing_altogether() -> None:
    with listening() as a:
        assert start([a.fileno()], {"LISTEN_FDS": "1"})["found"] == [[3, "unknown"]]


def test_as_many_names_as_descriptors() -> None:
    with listening() as a:
        result = start([a.fileno()], {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http:admin"})
    assert result == {
        "error": "LISTEN_FDS=1, LISTEN_FDNAMES='http:admin': must be as many names, separated by colons"
    }


def test_a_descriptor_that_is_not_open() -> None:
    with listening() as a:
        result = start([a.fileno()], {"LISTEN_FDS": "2"})
    assert result == {"error": "LISTEN_FDS=2: descriptors 3 to 4 must all be open"}


def test_a_descriptor_that_does_not_listen_is_named() -> None:
    with raised(socket.socket()) as idle:
        result = start([idle.fileno()], {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"})
    assert result == {
        "error": 'descriptor 3 ("http") is a stream socket that does not listen: must be a listening '
        "stream socket (ListenStream= with Accept=no in its .socket unit)"
    }


def stored_name(sock: socket.socket) -> str:
    """The name under which we would have stored it."""
    return store.name(Stored(os.fstat(sock.fileno()).st_ino, True, None, parse("127.0.0.1:0")))


def test_stored_ones_are_told_by_name_and_socket() -> None:
    with listening() as unit, listening() as own:
        handed = [
            Inherited(unit.fileno(), "http"),
            Inherited(own.fileno(), stored_name(own)),
            Inherited(unit.fileno(), stored_name(own)),
        ]
        assert activation.stored(handed) == [handed[1]]


def test_a_stored_one_need_not_listen_any_more() -> None:
    """It would keep the service from starting until somebody cleared the store."""
    with raised(socket.socket()) as idle:
        name = stored_name(idle)
        result = start([idle.fileno()], {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name})
    assert result["found"] == [[3, name]]


def test_what_the_run_before_left() -> None:
    """Connections and their table are told by name; what listens is a socket unit's, whatever its name."""
    with listening() as unit, raised(socket.socket()) as connection:
        table = os.memfd_create("table")
        handed = [
            Inherited(unit.fileno(), store.CONNECTION),
            Inherited(connection.fileno(), store.CONNECTION),
            Inherited(table, store.TABLE),
            Inherited(unit.fileno(), store.TABLE),
            Inherited(unit.fileno(), "http"),
        ]
        assert activation.parked(handed) == handed[1:3]
        result = start(
            [unit.fileno(), connection.fileno()],
            {"LISTEN_FDS": "2", "LISTEN_FDNAMES": f"http:{store.CONNECTION}"},
        )
        os.close(table)
    assert result["found"] == [[3, "http"], [4, store.CONNECTION]]


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        pytest.param({}, 0, id="without systemd"),
        pytest.param({"LISTEN_PID": "1"}, 0, id="no LISTEN_FDS, no descriptors"),
        pytest.param({"LISTEN_FDS": "0", "LISTEN_PID": "1"}, 0, id="none for another process"),
        pytest.param({"LISTEN_FDS": "2", "LISTEN_PID": str(OWN)}, 2, id="two"),
    ],
)
def test_announced(environ: dict[str, str], count: int) -> None:
    assert activation.announced(environ, OWN) == count


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        pytest.param({"LISTEN_FDS": "1"}, "without LISTEN_PID", id="no LISTEN_PID"),
        pytest.param(
            {"LISTEN_FDS": "1", "LISTEN_PID": "12"}, "if a wrapper script starts", id="foreign LISTEN_PID"
        ),
        pytest.param({"LISTEN_FDS": "-1", "LISTEN_PID": "1"}, "LISTEN_FDS='-1': must be", id="negative"),
        pytest.param({"LISTEN_FDS": "", "LISTEN_PID": "1"}, "LISTEN_FDS='': must be", id="empty"),
        pytest.param({"LISTEN_FDS": "²", "LISTEN_PID": "1"}, "LISTEN_FDS='²': must be", id="no ASCII digit"),
        pytest.param(
            {"LISTEN_FDS": "1", "LISTEN_PID": "me"}, "LISTEN_PID='me': must be", id="odd LISTEN_PID"
        ),
    ],
)
def test_announced_refuses(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ActivationError, match=text):
        activation.inherited(environ, OWN)


def datagram() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def sequential() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        pytest.param(listening, "", id="listening"),
        pytest.param(datagram, "a datagram socket", id="ListenDatagram="),
        pytest.param(sequential, "a sequential-packet socket", id="ListenSequentialPacket="),
        pytest.param(netlink, "a socket of address family 16", id="ListenNetlink="),
        pytest.param(socket.socket, "a stream socket that does not listen", id="Accept=yes, or not bound"),
    ],
)
def test_unfit_sockets(make: Callable[[], socket.socket], fault: str) -> None:
    with make() as sock:
        assert activation.unfit(sock.fileno()) == fault
        assert sock.fileno() >= 0
        os.fstat(sock.fileno())  # still open


def test_unfit_files(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(tmp_path / "file", "w") as file, open("/dev/null") as null:
        assert activation.unfit(read) == "a pipe"
        assert activation.unfit(file.fileno()) == "a regular file"
        assert activation.unfit(null.fileno()) == "a character device"
    os.close(read)
    os.close(write)


def test_scrub_removes_what_is_private_and_nothing_else() -> None:
    private = [
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PIDFDID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "FDSTORE",
        "MAINPID",
        "MAINPIDFDID",
    ]
    shared = [
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "CREDENTIALS_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "LISTENER",
        "PATH",
    ]
    environ = dict.fromkeys([*private, *shared], "1")
    activation.scrub(environ)
    assert list(environ) == shared
