"""The command `stardust` as a process: exit codes and texts. What it serves then is for tests/live."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stardust import __version__
from tests.certificates import Authority

PATIENCE = 60.0  # s

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stardust", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what a service manager may have put into it."""
    private = ("LISTEN_", "NOTIFY_", "WATCHDOG_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    return {**ours, **(extra or {})}


def stardust(
    directory: Path, *arguments: str, extra: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run it until it ends: exit code, standard output, standard error."""
    done = subprocess.run(
        command(*arguments),
        cwd=directory,
        env=environment(extra),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with an application, `shop:application`."""
    (tmp_path / "shop.py").write_text(HELLO)
    return tmp_path


def test_help(home: Path) -> None:
    code, out, err = stardust(home, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: stardust ")
    assert "--max-workers" in out


def test_version(home: Path) -> None:
    assert stardust(home, "--version") == (0, f"stardust {__version__}\n", "")


def test_check_config(home: Path) -> None:
    file = home / "stardust.toml"
    file.write_text('app = "shop:application"\nmax-workers = 3\n')
    assert stardust(home, "--config", str(file), "--check-config") == (
        0,
        f"stardust: {file}: no mistakes\n",
        "",
    )
    assert stardust(home, "shop:application", "--check-config") == (
        0,
        "stardust: the command line: no mistakes\n",
        "",
    )


CHECKS = {
    "fine": ("", [], 0, "stardust: shop: it loads\n", ""),
    "not preloaded": (
        "",
        ["--no-preload"],
        0,
        "stardust: each worker loads the application for itself, as",
        "",
    ),
    "it holds something": ("import select\nheld = select.epoll()\n", [], 0, "\neach worker loads it for", ""),
    "held all the same": (
        "import select\nheld = select.epoll()\n",
        ["--preload"],
        0,
        "as preload = true",
        "",
    ),
    "one process": ("import select\nheld = select.epoll()\n", ["--max-workers=0"], 0, "it loads\n", ""),
    "broken": ("import nosuchmodule\n", [], 3, "no mistakes\n", "in <module>\n    import nosuchmodule\n"),
    "broken, not preloaded": ("import nosuchmodule\n", ["--no-preload"], 3, "no mistakes\n", "nosuchmodule"),
    "it ends": ("import os\nos._exit(7)\n", [], 3, "no mistakes\n", "ended: exit code 7\n"),
    "it hangs": ("import signal\nsignal.pause()\n", ["--boot-timeout=1"], 3, "", "within boot-timeout = 1 s"),
    "a hook is missing": ("", ["--after-fork=shop:nothing"], 3, "", "after-fork = shop:nothing"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_check_that_loads(home: Path, name: str) -> None:
    """What a start would say. The ports may be taken: a server runs."""
    code, flags, expected, said, complained = CHECKS[name]
    (home / "shop.py").write_text(code + HELLO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"--listen=127.0.0.1:{taken.getsockname()[1]}"
        done = stardust(home, "shop", "--check-config", "--load", address, *flags)
    assert done[0] == expected
    assert said in done[1]
    assert done[1].startswith("stardust: the command line: no mistakes\n")
    assert complained in done[2]
    if name in ("fine", "one process"):
        assert done == (0, "stardust: the command line: no mistakes\nstardust: shop: it loads\n", "")


def test_print_config_says_where_each_value_comes_from(home: Path) -> None:
    file = home / "stardust.toml"
    file.write_text('app = "shop:application"\nmax-workers = 3\n')
    code, out, err = stardust(home, "--config", str(file), "--timeout", "7", "--print-config")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert any(line[:3] == ["max-workers", "=", "3"] and f"{file}:2" in line for line in lines)
    assert any(line[:2] == ["timeout", "="] and "--timeout" in line for line in lines)
    assert any(line[:3] == ["threads", "=", "1"] and "default" in line for line in lines)


# name: the arguments, the exit code, what the message must name
REFUSED: dict[str, tuple[list[str], int, list[str]]] = {
    "unknown flag": (["shop", "--max-worker", "3"], 2, ["--max-worker", "--max-workers"]),
    "flag without its value": (["shop", "--max-workers"], 2, ["--max-workers"]),
    "value out of bounds": (["shop", "--max-workers", "-1"], 6, ["max-workers", "-1"]),
    "no such file": (["--config", "nowhere.toml"], 6, ["nowhere.toml"]),
    "no application": ([], 6, ["app"]),
    "application that cannot be imported": (["nosuchmodule", "--port", "0"], 3, ["nosuchmodule"]),
    "interpreter that does not exist": (["shop", "--python", "/no/such/python"], 6, ["/no/such/python"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(home: Path, name: str) -> None:
    arguments, expected, named = REFUSED[name]
    extra = [] if expected == 2 else ["--control-socket", str(home / "control")]
    code, out, err = stardust(home, *arguments, *(extra if arguments else []))
    assert (code, out) == (expected, "")
    assert all(word in err for word in named), err
    assert "Traceback" not in err


def test_bad_file_is_refused_with_place_and_nearest_name(home: Path) -> None:
    file = home / "stardust.toml"
    file.write_text('app = "shop"\nmax-wrokers = 3\n')
    code, out, err = stardust(home, "--config", str(file))
    assert (code, out) == (6, "")
    assert err.startswith(f"stardust: {file}:2: max-wrokers: ")
    assert "max-workers" in err


def test_address_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        control = str(home / "control")
        code, out, err = stardust(home, "shop", "--port", port, "--control-socket", control)
    assert (code, out) == (1, "")
    assert f":{port}" in err


def test_descriptors_meant_for_another_process(home: Path) -> None:
    extra = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    code, out, err = stardust(home, "shop", extra=extra)
    assert (code, out) == (6, "")
    assert "LISTEN_PID" in err


def test_no_workers_but_one_process(home: Path) -> None:
    """max-workers = 0: the very process that was started serves, and leaves on SIGTERM."""
    path = str(home / "http.sock")
    with (
        subprocess.Popen(
            command("shop", "--max-workers", "0", "--socket", path, "--idle-timeout", "5"),
            cwd=home,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        socket.socket(socket.AF_UNIX) as client,
    ):
        try:
            assert process.stderr is not None
            assert "idle-timeout = 5 has no effect with max-workers = 0" in process.stderr.readline()
            assert process.stderr.readline() == f"stardust: one process, no workers: listen-1 {path}\n"
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.endswith(b"\r\n\r\nhello")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


# ── Certificates ──────────────────────────────────────────────────────────────────────────────────────


def test_check_config_looks_into_certificates(home: Path) -> None:
    """And says where the setting stands."""
    authority = Authority(home)
    site, old = authority.issue("localhost"), authority.issue("old.example", days=-1)
    file = home / "stardust.toml"
    text = 'app = "shop:application"\nssl = true\nssl-cert-file = "{}"\nssl-key-file = "{}"\n'
    file.write_text(text.format(site.certificate, site.key))
    check = ("--config", str(file), "--check-config")
    assert stardust(home, *check) == (0, f"stardust: {file}: no mistakes\n", "")
    file.write_text(text.format(site.certificate, old.key))
    reason = f"{old.key}: this key does not belong to the certificate in {site.certificate}"
    assert stardust(home, *check) == (6, "", f"stardust: {file}:4: ssl-key-file: {reason}\n")
    file.write_text(text.format(old.certificate, old.key))
    code, out, err = stardust(home, *check)
    assert (code, out) == (0, f"stardust: {file}: no mistakes\n")
    assert err.startswith(f"stardust: warning: {old.certificate}: the certificate has expired on ")
