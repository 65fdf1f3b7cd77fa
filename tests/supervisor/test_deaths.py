"""How a worker ended: what the kernel's count says, and what is said without one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.logs.events import OUT_OF_MEMORY, WORKER_DIED
from stardust.supervisor import deaths
from stardust.supervisor.deaths import Death, Kills

KILLED = int(signal.SIGKILL)  # wait(2): the status of a process that a signal ended is its number
EXITED = 3 << 8

OF_MEMORY = Death("killed by SIGKILL: out of memory", OUT_OF_MEMORY)
BY_SOMEBODY = Death("killed by SIGKILL", WORKER_DIED)


class Group:
    """A control group, where the test plays the kernel."""

    def __init__(self, directory: Path) -> None:
        self.events = directory / "memory.events"
        self.count = 5  # in earlier lives of the unit
        self.kill(0)
        self.kills = Kills(self.events)

    def kill(self, more: int = 1) -> None:
        self.count += more
        self.events.write_text(f"low 0\nhigh 0\nmax 9\noom 7\noom_kill {self.count}\noom_group_kill 0\n")


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


def test_out_of_memory(group: Group) -> None:
    group.kill()
    assert group.kills.explain(KILLED, ours=False) == OF_MEMORY


def test_two_at_once(group: Group) -> None:
    """Each kill explains one death."""
    group.kill(2)
    ends = [group.kills.explain(KILLED, ours=False) for _ in range(3)]
    assert ends == [OF_MEMORY, OF_MEMORY, BY_SOMEBODY]


def test_killed_by_somebody(group: Group) -> None:
    assert group.kills.explain(KILLED, ours=False) == BY_SOMEBODY


def test_killed_by_us(group: Group) -> None:
    group.kill()
    assert group.kills.explain(KILLED, ours=True) == BY_SOMEBODY
    assert group.kills.explain(KILLED, ours=False) == BY_SOMEBODY


def test_the_kernel_killed_something_else(group: Group) -> None:
    """A child of the application's, before a worker ended in peace: no news for later deaths."""
    group.kill()
    assert group.kills.explain(EXITED, ours=False) == Death("exit code 3", WORKER_DIED)
    assert group.kills.explain(KILLED, ours=False) == BY_SOMEBODY


@pytest.mark.parametrize("text", [None, "", "oom 3\n"], ids=["no file", "empty", "an old kernel"])
def test_nothing_is_counted(tmp_path: Path, text: str | None) -> None:
    events = tmp_path / "memory.events"
    if text is not None:
        events.write_text(text)
    kills = Kills(events)
    assert kills.explain(KILLED, ours=False) == Death("killed by SIGKILL, perhaps out of memory", WORKER_DIED)
    assert kills.explain(KILLED, ours=True) == BY_SOMEBODY
    assert kills.explain(EXITED, ours=False).how == "exit code 3"


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        (
            "0::/system.slice/system-stardust.slice/stardust@a.service\n",
            "/sys/fs/cgroup/system.slice/system-stardust.slice/stardust@a.service/memory.events",
        ),
        ("9:name=systemd:/a\n4:memory:/b\n0::/c\n", "/sys/fs/cgroup/c/memory.events"),
        ("0::/\n", "/sys/fs/cgroup/memory.events"),
        ("4:memory:/b\n", None),
        ("", None),
    ],
    ids=["a unit", "both versions", "a namespace of its own", "version 1", "nothing"],
)
def test_the_file_of_a_group(groups: str, file: str | None) -> None:
    assert deaths.events_file(groups) == (None if file is None else Path(file))


@given(st.text())
def test_no_text_is_an_accident(text: str) -> None:
    deaths.events_file(text)
    deaths.oom_kills(text)


def test_the_group_of_this_process() -> None:
    """Wherever the tests run, there is an answer."""
    assert deaths.own_kills().explain(EXITED, ours=False) == Death("exit code 3", WORKER_DIED)
