"""The real boot.py and zygote.py in a process of their own; the test speaks the supervisor's part.

Every wait is for a message, an end of file or a pidfd, and has the deadline PATIENCE.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from stardust.base import address
from stardust.ipc import messages
from stardust.ipc.channel import Channel, pair
from stardust.ipc.handoff import Link
from stardust.ipc.scoreboard import IDLE, STARTING, Scoreboard
from stardust.listeners.listeners import Listener
from stardust.logs.log import TEXT, Log
from stardust.settings import table as settings
from stardust.settings.table import Config, Listen
from stardust.supervisor import processes
from stardust.supervisor.generation import Generation
from stardust.supervisor.requests import open_request_log
from tests.certificates import Authority

PATIENCE = 30.0  # s

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
# Answers with what `answer()` returns.
ANSWER = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer()).encode()]
"""


def pypy() -> str:
    path = shutil.which("pypy3")
    assert path is not None, "pypy3 is missing: apt-get install pypy3"
    return path


WorkerChannel = Channel[messages.FromWorker, messages.ToWorker]


class Worker:
    """A worker as the supervisor knows it: a process and a channel."""

    def __init__(self, pid: int, channel: WorkerChannel) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel

    def hear(self) -> messages.FromWorker | None:
        return self.channel.receive()

    def ended(self) -> None:
        """Waits until the process has ended; it is not reaped yet."""
        ready, _, _ = select.select([self.pidfd], [], [], PATIENCE)
        assert ready, f"worker {self.pid} does not end"

    def close(self) -> None:
        self.channel.close()
        os.close(self.pidfd)


class Zygote:
    """A zygote with the application `app`, and what the supervisor has of it."""

    def __init__(
        self,
        directory: Path,
        app: str,
        listener: socket.socket,
        interpreter: str = sys.executable,
        access_log: Path | None = None,
        **values: Any,
    ) -> None:
        path = directory / "shop.py"
        path.write_text(app)
        config = settings.Config(
            app=str(path), listen=(Listen("http"),), access_log=str(access_log or ""), **values
        )
        self.scoreboard = Scoreboard.create()
        self.pid, self.channel = processes.start_zygote(interpreter, {"PATH": os.environ["PATH"]})
        self.pidfd = os.pidfd_open(self.pid)
        self.channel.socket.settimeout(PATIENCE)
        self.workers: list[Worker] = []
        self._brief(config, listener)

    def _brief(self, config: Config, sock: socket.socket) -> None:
        where = address.parse("127.0.0.1:0")
        listeners = [Listener("http", sock, where, False, config.listen[0])]
        generation = Generation(1, config, listeners)
        generation.open_request_log(Log("test"))
        links = (Link.create(), Link.create())
        self.channel.send(generation.first_message(self.scoreboard, TEXT, links))
        for link in links:
            link.close()
        if generation.requests is not None:
            generation.requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self.workers:
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        self.channel.close()
        assert self.end() == 0
        for worker in self.workers:
            worker.close()
        os.close(self.pidfd)
        os.close(self.scoreboard.descriptor)

    def hear(self) -> messages.FromZygote:
        message = self.channel.receive()
        assert message is not None, "the zygote is gone"
        return message

    def order_fork(self, number: int) -> WorkerChannel:
        ours, theirs = pair()
        with theirs:
            stacks = processes.memory_for_stacks()
            self.channel.send(messages.Fork(number, number - 1, theirs.fileno(), stacks))
            os.close(stacks)
        channel = Channel(ours, messages.SUPERVISOR_OF_WORKER)
        channel.socket.settimeout(PATIENCE)
        return channel

    def fork(self, number: int = 1) -> Worker:
        channel = self.order_fork(number)
        message = self.hear()
        assert isinstance(message, messages.Forked)
        assert message.worker == number
        worker = Worker(message.pid, channel)
        self.workers.append(worker)
        return worker

    def reap(self, worker: Worker, number: int = 1) -> int:
        """The wait status of a worker that has ended."""
        worker.ended()
        self.channel.send(messages.Reap(number, worker.pid))
        message = self.hear()
        assert isinstance(message, messages.Exited)
        assert message.worker == number
        self.workers.remove(worker)
        worker.close()
        assert message.status is not None
        return message.status

    def end(self) -> int:
        """Waits for the end of the zygote itself: its exit code, or minus the signal."""
        ready, _, _ = select.select([self.pidfd], [], [], PATIENCE)
        assert ready, "the zygote does not end"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


Start = Callable[..., Zygote]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def start(tmp_path: Path, listener: socket.socket) -> Start:
    def run(app: str, **values: Any) -> Zygote:
        return Zygote(tmp_path, app, listener, **values)

    return run


def get(listener: socket.socket) -> str:
    """The body of an answer to GET /."""
    with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("interpreter", ["the server's", "pypy3"])
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no preload"])
def test_load_fork_serve_reap(start: Start, listener: socket.socket, interpreter: str, preload: bool) -> None:
    python = pypy() if interpreter == "pypy3" else sys.executable
    with start(HELLO, interpreter=python, preload=preload) as zygote:
        assert zygote.hear() == messages.Loaded()
        worker = zygote.fork()
        assert worker.hear() == messages.Ready()
        assert get(listener) == "hello"
        entry = zygote.scoreboard.read(0)
        assert (entry.pid, entry.generation) == (worker.pid, 1)
        assert entry.state in (STARTING, IDLE)
        worker.channel.send(messages.Retire())
        assert worker.hear() == messages.Leaving()
        assert worker.hear() is None
        assert zygote.reap(worker) == 0


def test_workers_share_what_was_loaded_once(start: Start, listener: socket.socket) -> None:
    with start("import os\nloader = os.getpid()\ndef answer(): return loader\n" + ANSWER) as zygote:
        zygote.hear()
        for number in (1, 2):
            zygote.fork(number).hear()
        assert {get(listener) for _ in range(8)} == {str(zygote.pid)}


BROKEN: Mapping[str, tuple[str, str, str]] = {
    "ImportError": ("import nosuchmodule\n", "No module named 'nosuchmodule'", "import nosuchmodule"),
    "SyntaxError": ("def (:\n", "SyntaxError", "def (:"),
    "sys.exit()": ("import sys\nsys.exit(4)\n", "it called sys.exit(4)", "sys.exit(4)"),
    "no application": ("x = 1\n", "neither application nor app", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_application_that_does_not_load(tmp_path: Path, listener: socket.socket, name: str) -> None:
    app, reason, detail = BROKEN[name]
    zygote = Zygote(tmp_path, app, listener)
    message = zygote.hear()
    assert isinstance(message, messages.Failed)
    assert reason in message.reason
    assert detail in message.detail
    assert zygote.channel.receive() is None
    assert zygote.end() == 3
    zygote.channel.close()
    os.close(zygote.pidfd)


def test_certificates_that_are_wrong(tmp_path: Path, listener: socket.socket) -> None:
    """Told as what they are: a mistake in the configuration, before the application is loaded."""
    site = Authority(tmp_path).issue("localhost")
    zygote = Zygote(tmp_path, "raise SystemExit", listener, ssl=True, ssl_cert_file=(str(site.certificate),))
    where = f"command line: ssl-cert-file: {site.certificate}"
    assert zygote.hear() == messages.Misconfigured(f"{where}: it contains no private key in PEM")
    assert zygote.end() == 6
    zygote.channel.close()
    os.close(zygote.pidfd)


@pytest.mark.parametrize("interpreter", [sys.executable, "pypy3"])
def test_workers_share_what_resumes_sessions(
    tmp_path: Path, listener: socket.socket, interpreter: str
) -> None:
    """Contexts are made before the fork: so a ticket of one worker is good at the next."""
    site = Authority(tmp_path).issue("localhost")
    python = pypy() if interpreter == "pypy3" else interpreter
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is there when the handshake is over
    session, resumed = None, []
    with Zygote(tmp_path, HELLO, listener, python, ssl=True, ssl_cert_file=(str(site.both),)) as zygote:
        assert zygote.hear() == messages.Loaded()
        for number in (1, 2):
            worker = zygote.fork(number)
            assert worker.hear() == messages.Ready()
            plain = socket.create_connection(listener.getsockname(), PATIENCE)
            with context.wrap_socket(plain, session=session) as client:
                resumed.append(client.session_reused)
                session = client.session
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            worker.ended()
    assert resumed == [False, True]


def test_directory_that_does_not_exist(tmp_path: Path, listener: socket.socket) -> None:
    zygote = Zygote(tmp_path, HELLO, listener, chdir=str(tmp_path / "nowhere"))
    message = zygote.hear()
    assert zygote.end() == 3
    assert isinstance(message, messages.Failed)
    assert message.reason.startswith("cannot prepare the application's process: ")
    assert str(tmp_path / "nowhere") in message.reason
    zygote.channel.close()
    os.close(zygote.pidfd)


def test_worker_that_cannot_load(start: Start) -> None:
    """preload = false: the zygote is fine, the worker tells why it ends."""
    with start("import nosuchmodule\n", preload=False) as zygote:
        assert zygote.hear() == messages.Loaded()
        worker = zygote.fork()
        message = worker.hear()
        assert isinstance(message, messages.Failed)
        assert "nosuchmodule" in message.reason
        assert worker.hear() is None
        assert os.waitstatus_to_exitcode(zygote.reap(worker)) == 3


def test_how_a_worker_ended_is_told(start: Start) -> None:
    with start(HELLO) as zygote:
        zygote.hear()
        worker = zygote.fork()
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        assert zygote.reap(worker) == signal.SIGKILL


def test_a_worker_s_process_id_is_its_own_until_it_is_reaped(start: Start) -> None:
    """So the supervisor opens its pidfd without a race."""
    with start(HELLO) as zygote:
        zygote.hear()
        worker = zygote.fork()
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        worker.ended()
        os.close(os.pidfd_open(worker.pid))
        zygote.reap(worker)


def test_reaping_where_the_application_ignores_its_children(start: Start) -> None:
    with start("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + HELLO) as zygote:
        zygote.hear()
        worker = zygote.fork()
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        assert zygote.reap(worker) == signal.SIGKILL


def test_fork_that_fails(start: Start) -> None:
    """Here by the application's doing; the zygote says so and lives on."""
    spoilt = "import os\ndef fork(): raise BlockingIOError(11, 'no more processes')\nos.fork = fork\n"
    with start(spoilt + HELLO) as zygote:
        zygote.hear()
        for number in (1, 2):
            channel = zygote.order_fork(number)
            assert zygote.hear() == messages.ForkFailed(number, "no more processes")
            assert channel.receive() is None  # nobody holds the other end
            channel.close()


def test_reopened_log_is_for_workers_to_come(start: Start, tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "access.log"
    with start(HELLO, access_log=path) as zygote:
        zygote.hear()
        path.rename(tmp_path / "access.log.1")
        fresh = open_request_log(str(path))
        zygote.channel.send(messages.Reopen(fresh))
        os.close(fresh)
        worker = zygote.fork()
        worker.hear()
        assert get(listener) == "hello"
        worker.channel.send(messages.Retire())
        assert zygote.reap(worker) == 0
    assert "GET / HTTP/1.0" in path.read_text()
    assert (tmp_path / "access.log.1").read_text() == ""


def test_end_of_file_ends_the_zygote_without_a_word(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the application registered with atexit is for workers: they serve, the zygote never did."""
    said = "import atexit\natexit.register(lambda: open('said', 'a').write('x'))\n"
    with start(said + HELLO, chdir=str(tmp_path)) as zygote:
        zygote.hear()
        worker = zygote.fork()
        worker.hear()
        worker.channel.send(messages.Stop())
        assert zygote.reap(worker) == 0
    assert (tmp_path / "said").read_text() == "x"
    assert capfd.readouterr().err == ""


def test_end_of_file_ends_workers_too(start: Start) -> None:
    """A worker whose supervisor is gone finishes what it holds, and exits."""
    with start(HELLO) as zygote:
        zygote.hear()
        worker = zygote.fork()
        worker.hear()
        worker.channel.close()
        assert zygote.reap(worker) == 0


def test_supervisor_that_dies_before_its_first_word() -> None:
    pid, channel = processes.start_zygote(sys.executable, {})
    channel.close()
    pidfd = os.pidfd_open(pid)
    ready, _, _ = select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)
    assert ready
    assert os.waitpid(pid, 0) == (pid, 0)


INHERITABLE_SOCKETS = """
import os
def answer():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink("/proc/self/fd/" + name)
            if os.get_inheritable(int(name)) and link.startswith("socket:"):
                found.append(name)
        except OSError:
            pass  # it was that of the listing
    return found
"""


@pytest.mark.parametrize("interpreter", ["the server's", "pypy3"])
def test_what_the_application_starts_inherits_no_socket(
    start: Start, listener: socket.socket, interpreter: str
) -> None:
    """A daemon that it leaves behind must not hold listeners or channels open."""
    python = pypy() if interpreter == "pypy3" else sys.executable
    with start(INHERITABLE_SOCKETS + ANSWER, interpreter=python) as zygote:
        zygote.hear()
        zygote.fork().hear()
        assert get(listener) == "[]"


def test_application_finds_what_was_configured(start: Start, tmp_path: Path, listener: socket.socket) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("name = 'helper'\n")
    app = """
import os, sys, helper
def answer():
    mask = os.umask(0)
    return (helper.name, os.getcwd(), oct(mask), sys.stdin.read())
"""
    values = {"chdir": str(tmp_path), "umask": 0o027, "pythonpath": (str(tmp_path / "lib"),)}
    with start(app + ANSWER, **values) as zygote:
        zygote.hear()
        zygote.fork().hear()
        assert get(listener) == str(("helper", str(tmp_path), "0o27", ""))


TICKER = """
import threading
threading.Thread(target=threading.Event().wait, name="ticker", daemon=True).start()
"""


@pytest.mark.parametrize("interpreter", ["the server's", "pypy3"])
def test_what_does_not_survive_a_fork_is_told(start: Start, interpreter: str) -> None:
    """And nothing is forked, unless it was told to; the zygote waits for its end."""
    python = pypy() if interpreter == "pypy3" else sys.executable
    for preload, kind in (("auto", messages.Unforkable), (True, messages.Loaded)):
        with start(TICKER + HELLO, interpreter=python, preload=preload) as zygote:
            message = zygote.hear()
            assert isinstance(message, kind)
            [thread] = message.holds
            assert thread.startswith('thread "ticker"')


def test_children_of_a_zygote_that_is_not_forked_end(start: Start) -> None:
    app = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\n"
    with start(app + HELLO) as zygote:
        message = zygote.hear()
        assert isinstance(message, messages.Unforkable)
        [child] = message.holds
        assert child.startswith("child process ")
        assert child.endswith(" (sleep 1000)")
        # It was asked before it was told, and is a zombie by now or soon.
        pidfd = os.pidfd_open(int(child.split()[2]))
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)


HOOKS = """
import os
calls = []
def begin():
    calls.append("begun")
def end():
    with open("ended", "a") as file:
        file.write(f"{calls}")
def death(pid, cause):
    with open("died", "a") as file:
        file.write(f"{pid} {cause} {calls} {os.getpid() == os.getsid(0)}\\n")
def answer():
    return calls
"""


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("interpreter", ["the server's", "pypy3"])
def test_hooks(
    start: Start, tmp_path: Path, listener: socket.socket, interpreter: str, preload: bool
) -> None:
    python = pypy() if interpreter == "pypy3" else sys.executable
    names = {"after_fork": "shop:begin", "before_exit": "shop:end", "after_death": "shop:death"}
    values = {**names, "chdir": str(tmp_path), "preload": preload}
    with start(HOOKS + ANSWER, interpreter=python, **values) as zygote:
        zygote.hear()
        worker = zygote.fork()
        assert worker.hear() == messages.Ready()
        assert get(listener) == "['begun']"
        worker.channel.send(messages.Retire())
        assert zygote.reap(worker) == 0
        assert (tmp_path / "ended").read_text() == "['begun']"
        told = f"{worker.pid} exit code 0 [] True\n"
        assert (tmp_path / "died").read_text() == told
        worker = zygote.fork(2)
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        zygote.reap(worker, 2)
        told += f"{worker.pid} killed by SIGKILL [] True\n"
        assert (tmp_path / "died").read_text() == told
        zygote.channel.send(messages.Mourn(4711, "request-timeout"))
        zygote.fork(3)  # it does one thing after the other
        assert (tmp_path / "died").read_text() == told + "4711 request-timeout [] True\n"


HOOK_FAILURES = {
    "no such function": ({"before_exit": "shop:nothing"}, "cannot load before-exit = shop:nothing: ", ""),
    "no such module": ({"after_death": "nosuchmodule:f"}, "there is no module nosuchmodule", ""),
    "it raises": (
        {"after_fork": "shop:fails"},
        "after-fork = shop:fails has failed: LookupError: no",
        "fails",
    ),
    "it leaves": ({"after_fork": "shop:leaves"}, "it called sys.exit(3)", "leaves"),
}
FAILS = "import sys\ndef fails(): raise LookupError('no')\ndef leaves(): sys.exit(3)\n"


@pytest.mark.parametrize("name", HOOK_FAILURES)
@pytest.mark.parametrize("preload", [True, False])
def test_hooks_that_fail_are_loads_that_fail(
    tmp_path: Path, listener: socket.socket, name: str, preload: bool
) -> None:
    """In the zygote, if that could know; else in the worker."""
    names, reason, detail = HOOK_FAILURES[name]
    values: dict[str, Any] = {**names, "chdir": str(tmp_path), "preload": preload}
    zygote = Zygote(tmp_path, FAILS + HELLO, listener, **values)
    message: object = zygote.hear()
    worker = None
    if isinstance(message, messages.Loaded):
        worker = zygote.fork()
        message = worker.hear()
        assert worker.hear() is None
        assert os.waitstatus_to_exitcode(zygote.reap(worker)) == 3
    assert isinstance(message, messages.Failed)
    assert reason in message.reason
    assert detail in message.detail
    assert (worker is None) == (preload and not detail)
    zygote.channel.close()
    assert zygote.end() == (3 if worker is None else 0)
    os.close(zygote.pidfd)


def test_hooks_that_fail_at_the_end_are_logged(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = {"before_exit": "shop:fails", "after_death": "shop:fails"}
    with start(FAILS + HELLO, **names, chdir=str(tmp_path)) as zygote:
        zygote.hear()
        worker = zygote.fork()
        worker.hear()
        worker.channel.send(messages.Retire())
        assert zygote.reap(worker) == 0
    log = capfd.readouterr().err
    assert "worker 1: error: before-exit = shop:fails has failed: LookupError: no" in log
    assert "generation 1: error: after-death = shop:fails has failed: TypeError: " in log


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no preload"])
@pytest.mark.parametrize(("rest", "code"), [("pass", 0), ("sys.exit(4)", 4), ("1 / 0", 1)])
def test_a_child_of_the_import_is_no_zygote(
    start: Start, listener: socket.socket, preload: bool, rest: str, code: int
) -> None:
    """It ends when it comes back, and says nothing to the supervisor."""
    forks = f"""
import os, sys
pid = os.fork()
if not pid:
    {rest}
else:
    status = os.waitpid(pid, 0)[1]
def answer(): return os.waitstatus_to_exitcode(status)
"""
    with start(forks + ANSWER, preload=preload) as zygote:
        assert zygote.hear() == messages.Loaded()
        worker = zygote.fork()
        assert worker.hear() == messages.Ready()
        assert get(listener) == str(code)


def test_a_worker_leads_a_group(start: Start) -> None:
    """So what it starts is known to be of its own."""
    with start(HELLO) as zygote:
        zygote.hear()
        worker = zygote.fork()
        assert worker.hear() == messages.Ready()
        assert os.getpgid(worker.pid) == worker.pid
        assert os.getpgid(zygote.pid) == zygote.pid


def test_children_of_the_import_are_not_ended_by_a_worker(start: Start, listener: socket.socket) -> None:
    """`multiprocessing` ends those that are in its book when a process ends."""
    manager = """
import multiprocessing
shared = multiprocessing.get_context("fork").Manager().list()
def answer():
    shared.append(0)
    return len(shared)
"""
    with start(manager + ANSWER, preload=True) as zygote:
        zygote.hear()
        for number in (1, 2):
            worker = zygote.fork(number)
            assert worker.hear() == messages.Ready()
            assert get(listener) == str(number)
            worker.channel.send(messages.Stop())
            assert zygote.reap(worker, number) == 0
        [child] = children(zygote.pid)
        os.kill(child, signal.SIGKILL)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


CHANCE = """
import random
random.seed(1)
def answer():
    return random.random()
"""


def test_chance_differs_in_each_worker(start: Start, listener: socket.socket) -> None:
    with start(CHANCE + ANSWER) as zygote:
        zygote.hear()
        drawn = set()
        for number in (1, 2, 3):
            worker = zygote.fork(number)
            worker.hear()
            drawn.add(get(listener))
            worker.channel.send(messages.Retire())
            zygote.reap(worker, number)
        assert len(drawn) == 3
