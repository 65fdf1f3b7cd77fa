"""The first lines in the application's interpreter: it finds its own modules, and none of the server's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stardust.ipc.channel import pair
from stardust.zygote import boot

PATIENCE = 30.0  # s
PACKAGE = Path(boot.__file__).parents[1]

# In place of the zygote: boot.py runs whatever stands beside it as the package's `zygote.main`.
WITNESS = """
import importlib.util, json, os, sys
from stardust import __version__

def main(descriptor):
    seen = {
        "descriptor": descriptor,
        "path": sys.path,
        "version": __version__,
        "package": sys.modules["stardust"].__path__,
        "found": [name for name in ("load", "beside", "dotenv", "systemd") if importlib.util.find_spec(name)],
    }
    os.write(descriptor, json.dumps(seen).encode())
    return 5
"""


def interpreters() -> dict[str, str]:
    """Without the server's own third-party packages: what its virtual environment was made from, and PyPy."""
    pypy = shutil.which("pypy3")
    assert pypy is not None, "pypy3 is missing: apt-get install pypy3"
    return {"cpython": os.path.realpath(sys.executable), "pypy3": pypy}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Where the server might be installed: a package directory with other packages beside it."""
    home = tmp_path / "site-packages"
    package = home / "stardust"
    (package / "zygote").mkdir(parents=True)
    for name in ("__init__.py", "zygote/__init__.py", "zygote/boot.py", "zygote/load.py"):
        shutil.copy(PACKAGE / name, package / name)
    (package / "zygote/main.py").write_text(WITNESS)
    (home / "beside.py").write_text("")
    return package


@pytest.mark.parametrize("name", ["cpython", "pypy3"])
def test_only_this_package_is_found(installed: Path, name: str) -> None:
    """Neither the server's packages nor, as a script's directory would have it, its modules."""
    reader, writer = os.pipe()
    command = [interpreters()[name], str(installed / "zygote/boot.py"), str(writer)]
    done = subprocess.run(command, pass_fds=[writer], env={}, timeout=PATIENCE, check=False)
    os.close(writer)
    with os.fdopen(reader) as answer:
        seen = json.load(answer)
    assert done.returncode == 5
    assert seen["descriptor"] == writer
    assert seen["package"] == [str(installed)]
    assert not {str(installed), str(installed.parent), ""} & set(seen["path"])
    assert "load" not in seen["found"]
    assert "beside" not in seen["found"]


@pytest.mark.parametrize("name", ["cpython", "pypy3"])
def test_the_real_zygote_runs(name: str) -> None:
    """It imports with the standard library alone (-S: no site-packages), and ends with its supervisor."""
    ours, theirs = pair()
    with theirs:
        descriptor = theirs.fileno()
        command = [
            interpreters()[name],
            "-S",
            "-W",
            "error",
            str(PACKAGE / "zygote/boot.py"),
            str(descriptor),
        ]
        process = subprocess.Popen(command, pass_fds=[descriptor], env={})
    ours.close()
    assert process.wait(PATIENCE) == 0
