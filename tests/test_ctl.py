"""stardustctl against a supervisor played by a thread: what it asks, prints, returns, and what it loads."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust import ctl

STATUS = {
    "version": "0.1.0",
    "pid": 4242,
    "generation": 7,
    "state": "running",
    "uptime": 11_532.0,
    "ready": 1,
    "busy": 1,
    "total": 2,
    "reload": {"state": "failed", "generation": 8, "reason": "ImportError: no flask", "at": 0},
    "listeners": [{"name": "http", "address": "127.0.0.1:5000"}],
    "workers": [
        {"id": 0, "pid": 4300, "generation": 7, "state": "idle", "requests": 12, "request": "", "running": 0},
        {
            "id": 1,
            "pid": 4301,
            "generation": 7,
            "state": "busy",
            "requests": 1200,
            "request": "GET /\x1b[2J",
            "running": 1.25,
        },
    ],
}


class Supervisor:
    """Answers one client with the given messages, then leaves. `commands` is what it was asked."""

    def __init__(self, path: Path, messages: list[dict[str, object]]) -> None:
        self.path = str(path)
        self.commands: list[object] = []
        self._messages = messages
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._socket, self._socket.accept()[0] as client, client.makefile("rwb") as stream:
            self.commands.append(json.loads(stream.readline()))
            for message in self._messages:
                stream.write(json.dumps(message).encode() + b"\n")

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


Play = Callable[..., Supervisor]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Start a supervisor at `path`, or at control in the test's directory."""
    played: list[Supervisor] = []

    def start(*messages: dict[str, object], path: Path = tmp_path / "control") -> Supervisor:
        played.append(Supervisor(path, list(messages)))
        return played[-1]

    yield start
    for supervisor in played:
        supervisor.join()


def done(ok: bool, **more: object) -> dict[str, object]:
    return {"done": True, "ok": ok, **more}


def test_reload(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = play({"progress": "worker 1 of 2"}, done(True, reason="generation 8 serves"))
    assert ctl.main(["--socket", supervisor.path, "reload"]) == 0
    out, err = capsys.readouterr()
    assert out == "generation 8 serves\n"
    assert err == "worker 1 of 2\n"
    assert supervisor.commands == [{"command": "reload"}]


def test_reload_failed(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    detail = "Traceback (most recent call last):\n\tFile …\nImportError: \x1b]0;x\x07\n"
    supervisor = play(done(False, reason="the application cannot be loaded", detail=detail))
    assert ctl.main(["reload", "--socket", supervisor.path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "stardustctl: reload failed: the application cannot be loaded\n"
        "Traceback (most recent call last):\n\tFile …\nImportError: \\x1b]0;x\\x07\n"
    )


@pytest.mark.parametrize(
    ("verdict", "out", "err"),
    [
        (done(True, reason="generation 8 serves"), "generation 8 serves\n", ""),
        (done(False, reason="no", detail="Traceback …\n"), "", "stardustctl: reload failed: no\n"),
    ],
    ids=["done", "failed"],
)
def test_run_by_the_unit_it_prints_the_verdict_alone(
    play: Play,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verdict: dict[str, object],
    out: str,
    err: str,
) -> None:
    monkeypatch.setenv("MAINPID", str(os.getpid()))
    supervisor = play({"progress": "worker 1 of 2"}, verdict)
    ctl.main(["--socket", supervisor.path, "reload"])
    assert capsys.readouterr() == (out, err)


def test_stop_waits_for_the_end(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = play(done(True, reason="stopped"), {"progress": "what comes now is waited for, and ignored"})
    assert ctl.main(["--socket", supervisor.path, "stop"]) == 0
    assert supervisor.commands == [{"command": "stop"}]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_status(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = play(done(True, data=STATUS))
    assert ctl.main(["--socket", supervisor.path, "status"]) == 0
    assert capsys.readouterr().out == (
        "stardust 0.1.0 running\n"
        "  pid:         4242\n"
        "  generation:  7\n"
        "  uptime:      3 h 12 min\n"
        "  workers:     1 ready, 1 busy, 2 total\n"
        "  reload:      failed, 1970-01-01 00:00:00, ImportError: no flask\n"
        "  listener:    http 127.0.0.1:5000\n"
        "\n"
        "ID  PID   GEN  STATE  REQUESTS  FOR    REQUEST\n"
        "0   4300  7    idle   12\n"
        "1   4301  7    busy   1200      1.2 s  GET /\\x1b[2J\n"
    )


def test_status_as_json(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = play(done(True, data=STATUS))
    assert ctl.main(["--socket", supervisor.path, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_of_another_version() -> None:
    assert ctl.table({}).splitlines() == [
        "stardust",
        "  pid:",
        "  generation:",
        "  uptime:",
        "  workers:     ? ready, ? busy, ? total",
        "  reload:      none yet",
    ]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(0, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(STATUS)), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*STATUS, "at", "request", "running"]), anything))
def test_no_status_breaks_the_table_or_the_terminal(status: dict[str, object]) -> None:
    assert ctl.table(status).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (125, "2 min 5 s"),
        (11_532, "3 h 12 min"),
        (349_300, "4 d 1 h"),
        ("x", ""),
    ],
)
def test_duration(seconds: object, text: str) -> None:
    assert ctl.duration(seconds) == text


# ── Finding the server ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime directory but the test's own."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_by_the_files_setting(play: Play, tmp_path: Path) -> None:
    config = tmp_path / "stardust.toml"
    config.write_text('app = "x"\ncontrol-socket = "here"\n')
    play(done(True), path=tmp_path / "here")
    assert ctl.main(["--config", str(config), "reload"]) == 0


def test_by_the_runtime_directory(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    play(done(True))
    assert ctl.main(["reload"]) == 0


def test_by_the_units_directory(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "stardust" / "myapp").mkdir(parents=True)
    play(done(True), path=tmp_path / "stardust" / "myapp" / "control")
    assert ctl.main(["--config", "/etc/stardust/myapp.toml", "reload"]) == 0


@pytest.mark.parametrize("text", ["not TOML", "control-socket = 7"])
def test_a_broken_file_does_not_stop_it(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    (tmp_path / "stardust.toml").write_text(text)
    play(done(True))
    assert ctl.main(["--config", str(tmp_path / "stardust.toml"), "reload"]) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status"], "which server? Give --config FILE or --socket PATH"),
        (["--config", "/none.toml", "status"], "/none.toml: it sets no control-socket, and $XDG_RUNTIME_DIR"),
        (["--socket", "/none/control", "status"], "no server listens at /none/control"),
    ],
)
def test_not_found(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"stardustctl: {text}")


def test_a_server_that_dies(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = play({"progress": "worker 1 of 2"})
    assert ctl.main(["--socket", supervisor.path, "reload"]) == 1
    assert "stardustctl: the server closed the connection without an answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["--sock", "x", "stop"], ["--config", "a", "--socket", "b", "stop"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ctl.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("environ", "pid"),
    [({}, None), ({"MAINPID": "42"}, 42), ({"MAINPID": ""}, None), ({"MAINPID": "-1"}, None)],
    ids=["from a shell", "from systemd", "empty", "malformed"],
)
def test_whom_it_believes(environ: dict[str, str], pid: int | None) -> None:
    assert ctl._main_process(environ) == pid


def test_it_loads_no_server_code() -> None:
    program = "import sys, stardust.ctl; print(*sorted(name for name in sys.modules if 'stardust' in name))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    # An editable install brings a finder of its own.
    assert [name for name in done.stdout.split() if not name.startswith("__editable__")] == [
        "stardust",
        "stardust.base",
        "stardust.base.errors",
        "stardust.base.pristine",
        "stardust.base.streams",
        "stardust.base.system",
        "stardust.control",
        "stardust.control.address",
        "stardust.control.client",
        "stardust.control.trust",
        "stardust.ctl",
    ]
