"""Runs the server as a process of its own, and plays the service manager to it.

The tricks, so that no test sleeps, guesses a port or leaves anything behind:

- Sockets are bound here and handed over as descriptors 3 and up. The kernel queues connections from the first
  moment, so there is no port to race for and no "wait until it listens".
- NOTIFY_SOCKET is bound here: READY=1, RELOADING=1, STOPPING=1 are the clock of the tests.
- A request, or the load of an application, is held at a Gate for exactly as long as the test wants.
- The processes of a server are known by a mark in their environment, which every fork and exec carries on.
  A shared pipe end would not do, for the server closes what it does not know; nor would a session, for it may
  start one. A pidfd of each tells when it is gone.
- The log is read at the end of every test; a line that nobody expected fails it.
- Every wait has the deadline PATIENCE.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.live.client import MS, PATIENCE, Address, Response, family, get

APPS = Path(__file__).parent / "apps"
PROBE = APPS / "probe.py"

# Puts the given descriptors at 3, 4, … and becomes the command, with LISTEN_PID naming itself, as systemd
# does. The descriptors given are all above those, hence none is overwritten before it is moved.
EXEC = """
import os, sys
fds, command = sys.argv[1].split(), sys.argv[2:]
for number, fd in enumerate(fds, 3):
    os.dup2(int(fd), number)
    os.close(int(fd))
if fds and "LISTEN_PID" not in os.environ:
    os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""
ABOVE = 64  # where the descriptors given begin, if they are few

MARK = "STARDUST_TEST_TREE"
# A version of an application may follow another of the same size in the same second, and a cached .pyc knows
# its source by no more than these.
NO_PYC = "PYTHONDONTWRITEBYTECODE"
TROUBLE = re.compile(r"\b(error|critical|fatal)\b|^Traceback |\w+Warning:|Exception ignored", re.IGNORECASE)


class Message(NamedTuple):
    """One datagram to the service manager: who sent it and what it assigns."""

    pid: int
    fields: dict[str, str]


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Store:
    """The descriptor store of a unit: what one run gives it, the next gets back. A context manager.

    `room` is FileDescriptorStoreMax=. `sockets` are the descriptors in it, by FDNAME=.
    """

    def __init__(self, room: int = 10_000) -> None:
        self.sockets: dict[str, list[int]] = {}
        self._room = room

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self.sockets]:
            self.remove(name)

    @property
    def handed(self) -> list[tuple[str, int]]:
        """What the next run gets: names and descriptors."""
        return [(name, fd) for name, fds in self.sockets.items() for fd in fds]

    def add(self, name: str, descriptor: int) -> None:
        if len(self.handed) == self._room:
            os.close(descriptor)
        else:
            self.sockets.setdefault(name, []).append(descriptor)

    def remove(self, name: str) -> None:
        for descriptor in self.sockets.pop(name):
            os.close(descriptor)


class Manager:
    """The side of the service manager: binds NOTIFY_SOCKET and reads what the server says.

    Descriptors go to the store. Without one it closes them, as systemd does.
    """

    def __init__(self, path: Path, store: Store | None = None) -> None:
        self.path = str(path)
        self._store = store
        self.messages: list[Message] = []  # all that came, also those that expect() skipped
        self._read = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._socket.bind(self.path)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def next(self) -> Message | None:
        """The next message that was not yet looked at; None if there is none now."""
        self._receive()
        if self._read == len(self.messages):
            return None
        self._read += 1
        return self.messages[self._read - 1]

    def said(self, name: str) -> list[str]:
        """Every value that was ever assigned to a name, oldest first."""
        self._receive()
        return [message.fields[name] for message in self.messages if name in message.fields]

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(struct.calcsize("3i")) + socket.CMSG_SPACE(struct.calcsize("i"))
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, space)
            except BlockingIOError:
                return
            pid, descriptor = 0, None
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = struct.unpack("3i", value)[0]
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    [descriptor] = struct.unpack("i", value)
            fields = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            self.messages.append(Message(pid, fields))
            self._keep(fields, descriptor)

    def _keep(self, fields: Mapping[str, str], descriptor: int | None) -> None:
        if descriptor is not None:
            assert fields["FDSTORE"] == "1"
            if self._store is None:
                os.close(descriptor)
            else:
                self._store.add(fields["FDNAME"], descriptor)
        elif "FDSTOREREMOVE" in fields and self._store is not None:
            self._store.remove(fields["FDNAME"])


class Held:
    """Something that waits at a Gate until it is let go."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(PATIENCE)
        self.pid = int(self._socket.recv(32))  # of the process that waits

    def release(self) -> None:
        self._socket.sendall(b"!")
        self._socket.close()

    def lost(self) -> None:
        """Waits until the process is gone instead, and checks that it is."""
        assert self._socket.recv(1) == b""
        self._socket.close()


class Gate:
    """A UNIX socket where the application of a test reports and waits: apps/probe.py, apps/versions.py."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[Held] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(str(path))
        self._socket.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for held in self._held:
            held._socket.close()

    def arrival(self) -> Held:
        """Waits for the next to arrive."""
        held = Held(self._socket.accept()[0])
        self._held.append(held)
        return held

    def quiet(self) -> bool:
        """Whether nobody waits to be noticed."""
        return not readable(self._socket.fileno(), 0)


class Server:
    """One run of the server, from entering the context to leaving it.

    place     a directory for its configuration, control socket, notify socket and log
    settings  the text of its stardust.toml, without `app` if `app` is given; None: no file
    arguments the rest of its command line
    app       the application of the settings
    sockets   what to hand over, by name; the first one's address is `address`
    store     what an earlier run stored, to be handed over as well, and what this one stores
    environ   variables beside ours; they win
    launcher  a command that starts the server in our stead: systemd-socket-activate
    trouble   a pattern of log lines that are expected, though they look like trouble

    Leaving checks that the server, if it still ran, stops in peace with exit 0 and leaves no process behind,
    and that the log is free of trouble. After an exception it kills what is left and prints the log.
    """

    def __init__(
        self,
        place: Path,
        settings: str | None = "",
        *,
        arguments: Sequence[str] = (),
        app: Path | str = PROBE,
        sockets: Mapping[str, socket.socket] | None = None,
        store: Store | None = None,
        environ: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        trouble: str = "",
    ) -> None:
        self.place = place
        self.config = place / "stardust.toml"
        self.socket_path = place / "control"
        self._app = app
        self._launcher = launcher
        self._sockets = dict(sockets or {})
        self._store = store
        self._trouble = trouble
        self._log = place / "log"
        self._mark = uuid.uuid4().hex
        self._own_environ = dict(environ or {})
        if settings is None:
            self._arguments = [*arguments]
        else:
            self.configure(settings)
            self._arguments = ["--config", str(self.config), *arguments]

    @property
    def address(self) -> Address:
        """The address of the first socket that was handed over."""
        first = next(iter(self._sockets.values()))
        address: Address = first.getsockname()
        return address

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def configure(self, settings: str) -> None:
        """Writes the configuration file."""
        ours = f'control-socket = "{self.socket_path}"\n'
        if self._app:
            ours += f'app = "{self._app}"\n'
        self.config.write_text(ours + settings)

    def __enter__(self) -> Self:
        self.manager = Manager(self.place / "notify", self._store)
        handed = [(name, each.fileno()) for name, each in self._sockets.items()]
        handed += self._store.handed if self._store else []
        environ = {**os.environ, "NOTIFY_SOCKET": self.manager.path, MARK: self._mark}
        environ[NO_PYC] = "1"
        if handed:
            environ["LISTEN_FDS"] = str(len(handed))
            environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in handed)
        environ.update(self._own_environ)
        lifted = [fcntl.fcntl(each, fcntl.F_DUPFD, ABOVE + len(handed)) for _, each in handed]
        launcher = [*self._launcher]
        if launcher:
            # systemd-socket-activate starts its child with an environment of its own making.
            launcher += [f"--setenv={name}" for name in ("NOTIFY_SOCKET", MARK, NO_PYC, *self._own_environ)]
        command = [*launcher, sys.executable, "-m", "stardust", *self._arguments]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-c", EXEC, " ".join(map(str, lifted)), *command],
                    cwd=self.place,
                    env=environ,
                    pass_fds=lifted,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            for fd in lifted:
                os.close(fd)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                if self._process.returncode is None:
                    self.signal(signal.SIGTERM)
                    assert self.wait() == 0
                self.gone()
                unexpected = self._unexpected()
                assert not unexpected, unexpected
        except BaseException as late:
            error = late
            raise
        finally:
            self._clean_up()
            if error is not None:
                print(f"--- log of {self._arguments}:\n{self.log}--- messages:")
                for message in self.manager.messages:
                    print(message)

    # What the service manager sees.

    def expect(self, name: str, value: str | None = None) -> Message:
        """Waits for a message that assigns `name` (`value`, if given); those before it are skipped for good.

        Fails at once when the server has ended. A message must come from the supervisor: NotifyAccess=main.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = readable(self._pidfd, 0)
            while message := self.manager.next():
                assert message.pid == self.pid, f"{message} is not from {self.pid}"
                if name in message.fields and value in (None, message.fields[name]):
                    return message
            left = deadline - time.monotonic()
            assert not ended, f"ended while {name}={value or '…'} was awaited"
            assert left > 0, f"no {name}={value or '…'}"
            readable(self._pidfd, left, self.manager.fileno())

    def ready(self) -> Message:
        return self.expect("READY", "1")

    def await_log(self, pattern: str) -> None:
        """Waits for a log line. For foreign programs, which say nothing else; a file can only be polled."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.log, re.MULTILINE):
            assert time.monotonic() < deadline, f"no {pattern!r} in the log"
            assert not readable(self._pidfd, MS), f"ended before {pattern!r}"

    def signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def wait(self) -> int:
        """Waits for the end of the supervisor, hearing what it says; its exit code, negative for a signal."""
        deadline = time.monotonic() + PATIENCE
        while not readable(self._pidfd, deadline - time.monotonic(), self.manager.fileno()):
            assert time.monotonic() < deadline, "the supervisor does not end"
            self.manager._receive()
        return self._process.wait()

    # What a client and an administrator see.

    def get(self, target: str = "/", *headers: str) -> Response:
        return get(self.address, target, *headers)

    def start_control(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts stardustctl; end it with `outcome`."""
        return subprocess.Popen(
            [sys.executable, "-m", "stardust.ctl", "--config", str(self.config), *arguments],
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def control(self, *arguments: str) -> Outcome:
        return outcome(self.start_control(*arguments))

    def status(self) -> dict[str, Any]:
        answer = self.control("status", "--json")
        assert answer.code == 0, answer
        status: dict[str, Any] = json.loads(answer.out)
        return status

    def workers(self) -> dict[int, dict[str, Any]]:
        """The workers by pid, as the status tells them."""
        return {worker["pid"]: worker for worker in self.status()["workers"]}

    # Its processes.

    def processes(self) -> set[int]:
        """The pids of all processes of this run. A zombie has no environment, and does not count."""
        mark = f"{MARK}={self._mark}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.add(int(entry.name))
        return found

    def gone(self) -> None:
        """Waits until no process is left."""
        deadline = time.monotonic() + PATIENCE
        while left := self.processes():
            assert time.monotonic() < deadline, f"still there: {left}"
            with held_pidfd(min(left)) as pidfd:
                if pidfd is not None:
                    readable(pidfd, deadline - time.monotonic())

    def kill(self, pid: int) -> None:
        """Kills one process of this run for good, and waits until it is gone."""
        assert pid in self.processes()
        kill(pid)

    def ended(self, pid: int) -> None:
        """Waits until one process is gone."""
        with held_pidfd(pid) as pidfd:
            assert pidfd is None or readable(pidfd, PATIENCE), f"{pid} does not end"

    def zygotes(self) -> list[int]:
        """Children of the supervisor that are no workers."""
        return sorted(children(self.pid) & self.processes() - self.workers().keys())

    def _unexpected(self) -> list[str]:
        lines = [line for line in self.log.splitlines() if TROUBLE.search(line)]
        return [line for line in lines if not (self._trouble and re.search(self._trouble, line))]

    def _clean_up(self) -> None:
        while left := self.processes():
            for pid in left:
                kill(pid)
        self._process.wait()
        os.close(self._pidfd)
        self.manager._receive()
        self.manager.close()


def outcome(process: subprocess.Popen[str]) -> Outcome:
    """Waits for a command; kills it and fails if that takes too long."""
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, out, err)


def readable(descriptor: int, seconds: float, *others: int) -> bool:
    """Waits so long at most until it, or another one, is; whether it is. Not with select(2), which knows no
    descriptor above 1023."""
    poll = select.poll()
    for each in (descriptor, *others):
        poll.register(each, select.POLLIN)
    return descriptor in [number for number, _ in poll.poll(seconds * 1000)]


def children(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return found


@contextlib.contextmanager
def held_pidfd(pid: int) -> Iterator[int | None]:
    """A pidfd; None if the process is gone already."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def kill(pid: int) -> None:
    with held_pidfd(pid) as pidfd:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert readable(pidfd, PATIENCE)


def listening(address: Address = ("127.0.0.1", 0)) -> socket.socket:
    """A listening socket, as systemd would hand it over."""
    listener = socket.socket(family(address))
    listener.bind(address)
    listener.listen(4096)
    return listener


# The four kinds of addresses that systemd-socket-activate takes.
KINDS = ["tcp", "ipv6", "unix", "abstract"]


class Activation(NamedTuple):
    """A Server's launcher, systemd-socket-activate, and the address it listens at.

    It starts the server at the first connection, which stays in the queue: connect, then expect READY=1.
    """

    launcher: list[str]
    address: Address


@contextlib.contextmanager
def activation(kind: str, place: Path, name: str = "http") -> Iterator[Activation]:
    program = shutil.which("systemd-socket-activate")
    assert program is not None, "systemd-socket-activate is missing: apt-get install systemd"
    command = [program, f"--fdname={name}", "-l"]
    if kind == "unix":
        yield Activation([*command, str(place / "http.sock")], str(place / "http.sock"))
    elif kind == "abstract":
        path = "stardust" + str(place).replace("/", "-")
        yield Activation([*command, f"@{path}"], f"\0{path}")
    else:
        # It takes no port 0. A socket that is bound, but does not listen, keeps a port from everybody but
        # those who set SO_REUSEADDR on it as well, as systemd-socket-activate does: socket(7).
        host = {"tcp": "127.0.0.1", "ipv6": "::1"}[kind]
        with socket.socket(family((host, 0))) as reserved:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((host, 0))
            port = reserved.getsockname()[1]
            text = f"[{host}]:{port}" if kind == "ipv6" else f"{host}:{port}"
            yield Activation([*command, text], (host, port))


def gated(path: Path) -> str:
    """The target at which the probe application waits at the gate of that path."""
    return f"/hold?gate={path}"
