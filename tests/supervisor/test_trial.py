"""Loading without serving, in this process; what is printed of it is for test_cli."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stardust.base.errors import AppLoadError
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.supervisor import trial
from tests.descriptors import open_descriptors

HELLO = "def application(environ, start_response): ...\n"
LOG = Log("test")


def config(directory: Path, code: str, **values: object) -> Config:
    (directory / "shop.py").write_text(code + HELLO)
    given: dict[str, object] = {"app": str(directory / "shop.py"), **values}
    return Config(**given)  # type: ignore[arg-type]


def test_nothing_is_left(tmp_path: Path) -> None:
    """No descriptor, no process, also none that the application has started."""
    before = open_descriptors()
    code = "import subprocess, sys\nchild = subprocess.Popen(['sleep', '1000'])\n"
    verdict = trial.load(config(tmp_path, code), {"PATH": os.environ["PATH"]}, LOG)
    [child] = verdict.holds
    assert not verdict.preloaded
    status = Path(f"/proc/{child.split()[2]}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_environment_of_the_application(tmp_path: Path) -> None:
    code = "import os\nassert os.environ['SHOP'] == 'open'\n"
    trial.load(config(tmp_path, code, environment=(("SHOP", "open"),)), {}, LOG)
    with pytest.raises(AppLoadError, match="KeyError"):
        trial.load(config(tmp_path, code), {}, LOG)
