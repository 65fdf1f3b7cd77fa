"""A real PostgreSQL of its own: a cluster in a directory, which listens on a UNIX socket there.

Debian's, whatever its version; it refuses to run as root, so that starts it as Debian's user `postgres`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.live.client import PATIENCE

USER = "postgres"


class Cluster:
    """It runs while this context manager is entered. `directory` has its socket."""

    def __enter__(self) -> Self:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        assert found, "PostgreSQL is missing: apt-get install postgresql"
        self._bin = found[-1]
        # Not below pytest's own directory, which nobody else may enter; and short, for a socket's name.
        self.directory = Path(tempfile.mkdtemp(prefix="stardust-postgres-"))
        if os.getuid() == 0:
            shutil.chown(self.directory, USER)
        data = self.directory / "data"
        self._run("initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync")
        self._log = (self.directory / "log").open("wb")
        self._process = subprocess.Popen(
            [
                self._bin / "postgres",
                "-D",
                data,
                "-k",
                self.directory,
                "-h",
                "",
                "-F",
                "-c",
                "max_connections=50",
            ],
            stdout=self._log,
            stderr=self._log,
            user=self._user,
        )
        deadline = time.monotonic() + PATIENCE
        while self._ready().returncode:
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            assert self._process.poll() is None, (self.directory / "log").read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # "smart shutdown": clients are gone by now
        self._process.wait(PATIENCE)
        self._log.close()
        shutil.rmtree(self.directory)

    @property
    def _user(self) -> str | None:
        return USER if os.getuid() == 0 else None

    def _run(self, name: str, *arguments: str | Path) -> None:
        command = [str(self._bin / name), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd=self.directory)

    def _ready(self) -> subprocess.CompletedProcess[bytes]:
        command = [str(self._bin / "pg_isready"), "-q", "-h", str(self.directory)]
        return subprocess.run(command, check=False, capture_output=True)
