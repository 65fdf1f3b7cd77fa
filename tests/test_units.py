"""The shipped units: systemd reads them without a word, and the service is as sealed as it claims."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "packaging" / "systemd"
NAMES = ("stardust@.service", "stardust@.socket", "stardust.target")


def analyze(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose programs exist: verify wants to see them."""
    copy = tmp_path_factory.mktemp("units")
    for name in NAMES:
        text = (UNITS / name).read_text()
        (copy / name).write_text(re.sub(r"(?m)^(Exec\w+=\+?)/usr/bin/stardust\w*", r"\1/usr/bin/true", text))
    return copy


@pytest.mark.parametrize("name", NAMES)
def test_verify_is_silent(installed: Path, name: str) -> None:
    assert analyze("verify", "--man=no", str(installed / name)) == (0, "")


def test_exposure() -> None:
    code, report = analyze(
        "security", "--offline=true", "--threshold=12", "--no-pager", str(UNITS / NAMES[0])
    )
    assert code == 0, report


def test_every_program_is_one_we_install() -> None:
    lines = re.findall(r"(?m)^Exec\w+=\+?(\S+)", (UNITS / NAMES[0]).read_text())
    assert lines == ["/usr/bin/stardust", "/usr/bin/stardustctl"]
