"""Real processes, each as small as it can be, and pidfds instead of waiting."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stardust.base import process, system
from stardust.ipc.channel import Channel
from stardust.supervisor import processes
from tests.descriptors import open_descriptors

PATIENCE = 30.0  # s
DEAD_PID = 2**22  # no process can have it: the kernel's highest pid_max


def run_python(code: str) -> int:
    """Its process id. posix_spawn(3) returns when the child has left our memory, which is a moment before the
    kernel shows the new command line."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", code], {})
    deadline = time.monotonic() + PATIENCE
    while not Path(f"/proc/{pid}/cmdline").read_bytes() and not processes.has_ended(pid):
        assert time.monotonic() < deadline
    return pid


def until_readable(descriptor: int) -> None:
    ready, _, _ = select.select([descriptor], [], [], PATIENCE)
    assert ready, "it does not end"


@pytest.fixture
def sleeper() -> Iterator[tuple[int, int]]:
    """A process that sleeps for ever, and its pidfd. Whoever uses it ends it."""
    pid = run_python("import signal; signal.pause()")
    pidfd = os.pidfd_open(pid)
    yield pid, pidfd
    os.close(pidfd)


STATUSES = {
    "success": (0, "exit code 0"),
    "failure": (3 << 8, "exit code 3"),
    "killed": (signal.SIGKILL, "killed by SIGKILL"),
    "crashed with a core dump": (signal.SIGSEGV | 0x80, "killed by SIGSEGV"),
    "a real-time signal": (signal.SIGRTMIN + 5, f"killed by signal {signal.SIGRTMIN + 5}"),
}


@pytest.mark.parametrize("name", STATUSES)
def test_described(name: str) -> None:
    status, words = STATUSES[name]
    assert process.described(status) == words


def test_pidfd_signals_the_very_process(sleeper: tuple[int, int]) -> None:
    pid, _ = sleeper
    ours = processes.open_pidfd(pid, os.getpid())
    assert ours is not None
    processes.signal_process(ours, signal.SIGKILL)
    until_readable(ours)
    assert processes.ended_children() == [(pid, signal.SIGKILL)]
    processes.signal_process(ours, signal.SIGKILL)  # it has ended: nobody is hit
    os.close(ours)


def test_no_pidfd_of_a_process_that_is_gone() -> None:
    assert processes.open_pidfd(DEAD_PID, 0) is None


@pytest.mark.parametrize("zygote", [0, 1, os.getpid()], ids=["dead", "another", "none"])
@pytest.mark.parametrize("pid", [-1, 0, 1, 2**40, 2**80], ids=str)
def test_no_pidfd_of_a_stranger(pid: int, zygote: int) -> None:
    """Or of what is no process at all."""
    before = open_descriptors()
    assert processes.open_pidfd(pid, zygote) is None
    assert open_descriptors() == before


def test_pidfd_of_a_grandchild() -> None:
    """Its parent is known to be its zygote."""
    code = "import os, signal, sys; pid = os.fork(); pid and print(pid, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE) as zygote:
        assert zygote.stdout is not None
        pid = int(zygote.stdout.readline())
        assert processes.open_pidfd(pid, 1) is None
        pidfd = processes.open_pidfd(pid, zygote.pid)
        assert pidfd is not None
        processes.signal_process(pidfd, signal.SIGKILL)
        until_readable(pidfd)
        os.close(pidfd)
        zygote.kill()


def test_no_children_have_ended() -> None:
    assert processes.ended_children() == []


def test_ended_children_are_reaped_all_at_once() -> None:
    pids = [run_python(f"raise SystemExit({code})") for code in (0, 4)]
    pidfds = [os.pidfd_open(pid) for pid in pids]
    for pidfd in pidfds:
        until_readable(pidfd)
        os.close(pidfd)
    assert sorted(processes.ended_children()) == sorted([(pids[0], 0), (pids[1], 4 << 8)])
    assert processes.ended_children() == []


def test_a_running_child_has_not_ended(sleeper: tuple[int, int]) -> None:
    pid, pidfd = sleeper
    assert processes.ended_children() == []
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)


def fake_interpreter(directory: Path, code: str) -> str:
    """Something that can be executed as `python boot.py DESCRIPTOR`."""
    path = directory / "python"
    path.write_text(f"#!{sys.executable} -IS\n{code}")
    path.chmod(0o755)
    return str(path)


REPORTER = """
import os, socket, sys
channel = socket.socket(fileno=int(sys.argv[2]))
lines = [sys.argv[1], os.environ["WHO"], str(os.getpgid(0) == os.getpid()), os.readlink("/proc/self/fd/0")]
lines += sorted(os.listdir("/proc/self/fd"))[:-1]
channel.send("\\n".join(lines).encode())
"""


def test_zygote_is_started_with_its_channel_and_nothing_else(tmp_path: Path) -> None:
    """A process group of its own, no standard input, and the environment that was given."""
    interpreter = fake_interpreter(tmp_path, REPORTER)
    with socket.socket() as other:  # not inheritable, as all that Python opens
        pid, channel = processes.start_zygote(interpreter, {"WHO": "the application"})
        until_readable(channel.fileno())
        data = channel.socket.recv(4096).decode()
        script, who, leads_group, stdin, *descriptors = data.split("\n")
        assert os.waitpid(pid, 0) == (pid, 0)
        assert str(other.fileno()) not in descriptors
    assert Path(script).name == "boot.py"
    assert Path(script).is_file()
    assert (who, leads_group, stdin) == ("the application", "True", os.devnull)
    assert {"0", "1", "2"} < set(descriptors)
    assert channel.receive() is None
    channel.close()


def test_interpreter_that_cannot_be_executed(tmp_path: Path) -> None:
    """Nothing is left open: a leaked socket fails the test."""
    missing = str(tmp_path / "python")
    with pytest.raises(FileNotFoundError) as caught:
        processes.start_zygote(missing, {})
    assert caught.value.filename == missing


def in_a_fork(act: object) -> int:
    """What `act` does to its process must not happen to this one. The exit code."""
    assert callable(act)
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(99)
    pidfd = os.pidfd_open(pid)
    until_readable(pidfd)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_subreaper_adopts_orphans() -> None:
    def adopt() -> None:
        processes.become_subreaper()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:  # the parent of the orphan
            if os.fork() == 0:
                theirs.send(str(os.getpid()).encode())
                ours.close()
                theirs.recv(1)
                os._exit(7)
            os._exit(0)
        theirs.close()
        orphan = int(ours.recv(32))
        _, _ = os.wait()
        ours.close()
        pid, status = os.wait()
        os._exit(0 if (pid, os.waitstatus_to_exitcode(status)) == (orphan, 7) else 1)

    assert in_a_fork(adopt) == 0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"", ""),
        (b"Thread 0x1:\n  File a\n", "Thread 0x1:\n  File a\n"),
        (b"caf\xff\n", "caf\N{REPLACEMENT CHARACTER}\n"),
        (b"x" * 70_000 + b"\n  File a\n", "  File a\n"),
    ],
    ids=["nothing", "stacks", "not UTF-8", "too much"],
)
def test_stacks(written: bytes, read: str) -> None:
    """Whoever reads leaves the offset alone, which is the writer's too."""
    memory = processes.memory_for_stacks()
    assert not os.get_inheritable(memory)
    os.write(memory, written)
    assert [processes.read_stacks(memory) for _ in range(2)] == [read, read]
    assert os.lseek(memory, 0, os.SEEK_CUR) == len(written)
    os.close(memory)


def test_becoming_the_application_s_interpreter(tmp_path: Path) -> None:
    """max-workers = 0: the process stays the same, and finds what was sent before."""
    interpreter = fake_interpreter(
        tmp_path, "import socket, sys; sys.exit(socket.socket(fileno=int(sys.argv[2])).recv(9) != b'serve')"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert ours.send(b"serve") == 5
        assert in_a_fork(lambda: processes.replace_by_server(interpreter, {}, theirs)) == 0


def test_channel_of_a_zygote_does_not_block(tmp_path: Path) -> None:
    pid, channel = processes.start_zygote(fake_interpreter(tmp_path, "import sys; sys.stdin.read()"), {})
    assert isinstance(channel, Channel)
    assert not channel.socket.getblocking()
    until_readable(channel.fileno())
    assert channel.receive() is None
    channel.close()
    assert os.waitpid(pid, 0) == (pid, 0)


def test_own_children_and_their_commands(sleeper: tuple[int, int]) -> None:
    """A zombie is one still, and has no command but its name."""
    pid, pidfd = sleeper
    assert pid in processes.own_children()
    assert processes.command_of(pid) == f"{sys.executable} -I -S -c import signal; signal.pause()"
    assert not processes.has_ended(pid)
    os.kill(pid, signal.SIGKILL)
    until_readable(pidfd)
    assert processes.has_ended(pid)
    assert pid in processes.own_children()
    assert processes.command_of(pid).startswith("python")
    os.waitpid(pid, 0)
    assert pid not in processes.own_children()


def test_who_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not processes.has_ended(DEAD_PID)
    assert processes.command_of(DEAD_PID) == "?"

    def read_file(path: str, most: int = -1) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(system, "read_file", read_file)
    assert processes.own_children() == []


def test_a_command_that_would_spoil_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "read_file", lambda path, most=-1: b"a\nb\0c\0")
    assert processes.command_of(1) == "'a\\nb c'"
