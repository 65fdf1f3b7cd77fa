"""A machine with systemd, for tests to do to as they like: a booted container, or this very machine.

A container is `systemd-nspawn --boot` on an overlay whose upper layer is memory, in a mount namespace of its
own: when its first process ends, nothing of it is left but a control group, which is removed. It has no
network but loopback. Commands enter it with nsenter(1); files are reached through /proc/LEADER/root.

With STARDUST_MACHINE=here there is no container: the tests run on the machine where they are (autopkgtest).
It should be one that can be thrown away, but is left as it was: after each test, units are stopped, and what
is new in PLACES and in /etc/passwd is removed. A test that does more to its machine takes that back, or asks
for the fixture `release`, so that it is run in containers only.

UNIX sockets of the machine are reached by path from outside; for others, enter its `network`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.live.client import MS, PATIENCE, Response, get

TICK = 100 * MS  # seconds; systemd tells nobody when a unit changes, so `until` looks that often

# Everything but the user namespace: it shares that with us.
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}

# bpf(2): nspawn forbids it, and IPAddressDeny= and DeviceAllow= then do nothing, without a word.
BOOT = """
echo $$ >"$CGROUP/cgroup.procs"
mount -t tmpfs -o mode=0755 tmpfs "$PLACE"
mkdir "$PLACE/upper" "$PLACE/work" "$PLACE/root"
mount -t overlay -o "lowerdir=$LOWER,upperdir=$PLACE/upper,workdir=$PLACE/work" overlay "$PLACE/root"
exec systemd-nspawn --quiet --boot --register=no --keep-unit --notify-ready=yes --private-network \\
    --resolv-conf=off --console=pipe --system-call-filter=bpf --machine="$NAME" --directory="$PLACE/root"
"""

# Where tests and instances leave something on a machine.
PLACES = (
    "/etc/credstore",
    "/etc/stardust",
    "/etc/systemd",
    "/home",
    "/run/stardust",
    "/run/systemd/system",
    "/srv",
    "/var/cache/private",
    "/var/cache/stardust",
    "/var/lib/private",
    "/var/lib/stardust",
    "/var/lib/systemd/linger",
    "/var/log/private",
    "/var/log/stardust",
)

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Machine:
    """`root` is where its files are, seen from here; `enter` what to put before a command.

    `since` are options of journalctl that choose what happened since the test began.
    """

    def __init__(self, root: Path, enter: Sequence[str], leader: int) -> None:
        self.root = root
        self.leader = leader
        self.since: Sequence[str] = ()
        self._enter = enter

    # --- commands ----------------------------------------------------------------------------------------

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A command that runs on the machine beside the test."""
        return subprocess.Popen([*self._enter, *command], env=ENVIRONMENT, text=True, **options)

    def attempt(self, *command: str, stdin: str = "") -> Outcome:
        """Run a command to its end, whatever that is."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(*command, **pipes) as process:
            try:
                out, err = process.communicate(stdin, timeout=6 * PATIENCE)
            except BaseException:
                process.kill()
                raise
        return Outcome(process.returncode, out, err)

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command that must succeed; what it printed."""
        done = self.attempt(*command, stdin=stdin)
        assert done.code == 0, f"{' '.join(command)}: exit {done.code}\n{done.out}{done.err}"
        return done.out

    def shell(self, script: str) -> str:
        return self.run("sh", "-euc", script)

    # --- files -------------------------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """Where an absolute path of the machine is, seen from here."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file, readable for all; missing directories are made."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def alive(self, pids: Iterable[int]) -> list[int]:
        """Which of these process ids of the machine exist."""
        return [pid for pid in pids if self.path(f"/proc/{pid}").exists()]

    # --- units -------------------------------------------------------------------------------------------

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", *arguments)

    def show(self, unit: str, key: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={key}", unit).strip()

    def active(self, unit: str) -> str:
        return self.show(unit, "ActiveState")

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """The entries of the journal that `arguments` choose, as journalctl's JSON has them."""
        self.run("journalctl", "--sync")
        lines = self.run(
            "journalctl", *self.since, "--output=json", "--all", "--no-pager", "--quiet", *arguments
        ).splitlines()
        return [json.loads(line) for line in lines]

    def log(self, unit: str) -> str:
        """What a unit has said, and what was said about it."""
        self.run("journalctl", "--sync")
        options = ("--output=cat", "--no-pager", "--quiet", f"--unit={unit}")
        return self.run("journalctl", *self.since, *options)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Waits for something to become true on the machine."""
        deadline = time.monotonic() + 3 * PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"in vain: {what}"
            select.select([], [], [], TICK)

    # --- clients -----------------------------------------------------------------------------------------

    def get(self, path: str, target: str = "/", *headers: str) -> Response:
        """One request to a UNIX socket of the machine."""
        return get(str(self.path(path)), target, *headers)

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets made within, by this thread or by threads started within, are in the machine's network."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.leader}/ns/net") as its:
            _set_namespace(its.fileno())
            try:
                yield
            finally:
                _set_namespace(ours.fileno())


class Container(Machine):
    """A machine that is booted from layers, topmost first; leaving the context ends it."""

    def __init__(self, layers: Sequence[Path]) -> None:
        super().__init__(Path("/"), (), 0)
        self._layers = layers
        self._name = f"stardust-{uuid.uuid4().hex[:12]}"
        self._cgroup = unified_hierarchy() / self._name
        self._place = Path(tempfile.mkdtemp(prefix="stardust-machine-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._cgroup.mkdir()
        address = f"\0{self._name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(3 * PATIENCE)
            environ = {
                **ENVIRONMENT,
                "NOTIFY_SOCKET": f"@{self._name}",
                # Without it the container gets cgroups of version 1 where the host still has them.
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                "CGROUP": str(self._cgroup),
                "PLACE": str(self._place),
                "LOWER": ":".join(map(str, self._layers)),
                "NAME": self._name,
            }
            self._process = subprocess.Popen(
                # A test run that is killed takes its machines along.
                [
                    "setpriv",
                    "--pdeathsig=KILL",
                    "unshare",
                    "--mount",
                    "--propagation=private",
                    "sh",
                    "-euc",
                    BOOT,
                ],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                self._await_boot(manager)
            except BaseException:
                self.__exit__()
                raise
        return self

    def _await_boot(self, manager: socket.socket) -> None:
        """nspawn says who the leader is, and passes the READY=1 of its systemd on (--notify-ready)."""
        ready = False
        while not ready:
            fields = dict(line.partition("=")[::2] for line in manager.recv(8192).decode().splitlines())
            self.leader = int(fields.get("X_NSPAWN_LEADER_PID", self.leader))
            ready = fields.get("READY") == "1"
        self.root = Path(f"/proc/{self.leader}/root")
        self._enter = ("nsenter", f"--target={self.leader}", *NAMESPACES, "--")

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        # The kernel ends a pid namespace with its first process.
        os.kill(self.leader or self._process.pid, signal.SIGKILL)
        self._process.wait(3 * PATIENCE)
        shutil.rmtree(self._place)
        for found in os.walk(self._cgroup, topdown=False):
            os.rmdir(found[0])


class ThisMachine(Machine):
    """The machine where the test runs; leaving the context removes what the test made on it."""

    def __init__(self) -> None:
        super().__init__(Path("/"), (), leader=1)
        self._files: set[Path] = set()
        self._users: set[str] = set()

    def __enter__(self) -> Self:
        self._files, self._users = self._found(), self._passwd()
        self.run("journalctl", "--sync")
        # Not --after-cursor=: systemd 252 then leaves out one entry more, if others are filtered out as well.
        self.since = (f"--since=@{time.time():.6f}",)
        return self

    def __exit__(self, *_: object) -> None:
        # The sockets first, as a connection would start its service again.
        self.systemctl("stop", "stardust*@*.socket")
        self.systemctl("stop", "stardust@*.service")
        for user in self._passwd() - self._users:
            self.systemctl("stop", f"user@{self.run('id', '--user', user).strip()}.service")
            self.run("userdel", "--force", user)
        for path in sorted(self._found() - self._files, reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed")

    def _found(self) -> set[Path]:
        places = [self.path(place) for place in PLACES]
        return {found for place in places if place.exists() for found in (place, *place.rglob("*"))}

    def _passwd(self) -> set[str]:
        """The users of the machine but for dynamic ones, which leave with their services."""
        return {line.partition(":")[0] for line in self.path("/etc/passwd").read_text().splitlines()}


def unified_hierarchy() -> Path:
    """Where control groups of version 2 are mounted."""
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, place, kind = line.split()[:3]
            if kind == "cgroup2":
                return Path(place)
    raise FileNotFoundError("no cgroup2 file system is mounted")


def _set_namespace(descriptor: int) -> None:
    """setns(2), for the calling thread."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
