"""The shipped units and drop-ins: systemd reads them without a word; they are sealed as the manual says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.units import AS_SHIPPED, DROP_INS, EXAMPLES, SOCKETS, TOP, UNITS, extended_by, measured, promised

NAMES = ("stardust@.service", "stardust@.socket", "stardust.target")
USER_NAMES = ("stardust@.service", "stardust@.socket")


def analyze(*arguments: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environ},
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def install(source: Path, to: Path) -> None:
    """A copy whose programs exist: verify wants to see them."""
    text = source.read_text()
    to.write_text(re.sub(r"(?m)^(Exec\w+=\+?)/usr/bin/stardust\w*", r"\1/usr/bin/true", text))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    for name in NAMES:
        install(UNITS / name, tmp_path / name)
    for name in SOCKETS:
        install(EXAMPLES / name, tmp_path / name)
    return tmp_path


def extend(installed: Path, drop_in: str) -> None:
    """Put a drop-in where an operator would; AS_SHIPPED is none."""
    if drop_in != AS_SHIPPED:
        place = installed / f"stardust@.{extended_by(drop_in)}.d"
        place.mkdir()
        shutil.copy(EXAMPLES / drop_in, place)


@pytest.mark.parametrize("name", [*NAMES, *SOCKETS])
def test_verify_is_silent(installed: Path, name: str) -> None:
    assert analyze("verify", "--man=no", str(installed / name)) == (0, "")


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_verify_is_silent_with(installed: Path, drop_in: str) -> None:
    extend(installed, drop_in)
    units = [str(installed / f"stardust@.{kind}") for kind in ("service", "socket")]
    assert analyze("verify", "--man=no", *units) == (0, "")


@pytest.mark.parametrize("name", USER_NAMES)
def test_verify_is_silent_for_users(tmp_path: Path, name: str) -> None:
    for each in USER_NAMES:
        install(UNITS / "user" / each, tmp_path / each)
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert analyze("verify", "--user", "--man=no", str(tmp_path / name), **runtime) == (0, "")


@pytest.mark.parametrize("drop_in", [AS_SHIPPED, *DROP_INS])
def test_exposure_is_what_the_manual_says(installed: Path, drop_in: str) -> None:
    extend(installed, drop_in)
    service = str(installed / "stardust@.service")
    _, report = analyze("security", "--offline=true", "--no-pager", service)
    assert measured(report) == promised()[drop_in]


def test_the_manual_has_every_drop_in() -> None:
    assert sorted(promised()) == sorted([AS_SHIPPED, *DROP_INS])


def test_the_bars_of_exposure() -> None:
    assert float(promised()[AS_SHIPPED]) <= 1.1
    assert float(promised()["sealed.conf"]) <= 0.2


@pytest.mark.parametrize("name", [*DROP_INS, *SOCKETS])
def test_an_example_begins_with_what_it_is_for(name: str) -> None:
    """And with where it goes: it is copied, and what is left then is the file."""
    first = (EXAMPLES / name).read_text().splitlines()[0]
    place = "" if name in SOCKETS else f"stardust@NAME.{extended_by(name)}.d/"
    assert re.fullmatch(rf"# \S.+: /etc/systemd/system/{place}{re.escape(name)}", first)


@pytest.mark.parametrize("name", [*DROP_INS, *SOCKETS])
def test_an_example_is_tried_on_a_machine(name: str) -> None:
    tests = [TOP / "tests/machine" / f"test_{name}.py" for name in ("dropins", "listeners")]
    assert any(f'"{name}"' in test.read_text() for test in tests)


@pytest.mark.parametrize("folder", [UNITS, UNITS / "user"], ids=["system", "user"])
def test_every_program_is_one_we_install(folder: Path) -> None:
    lines = re.findall(r"(?m)^Exec\w+=\+?(\S+)", (folder / NAMES[0]).read_text())
    assert lines == ["/usr/bin/stardust", "/usr/bin/stardustctl"]
