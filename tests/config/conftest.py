"""The directories that tests of configurations start from."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of a test: relative paths of flags start here."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts its configuration file, beside the current directory."""
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "app.toml"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A $CREDENTIALS_DIRECTORY with one credential, app.env."""
    found = tmp_path / "credentials"
    found.mkdir()
    (found / "app.env").write_text("SECRET=1\n")
    return found
