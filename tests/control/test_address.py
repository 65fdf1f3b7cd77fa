"""Where the control socket is: supervisor and stardustctl must come to the same answer."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from stardust.control import address

CONFIG = "/etc/stardust/myapp.toml"
DIGEST = f"{zlib.crc32(CONFIG.encode()):08x}"
RUNTIME = {"RUNTIME_DIRECTORY": "/run/stardust/myapp:/run/other"}
USER = {"XDG_RUNTIME_DIR": "/run/user/1000"}


@pytest.mark.parametrize(
    ("config", "setting", "environ", "uid", "path"),
    [
        pytest.param(CONFIG, "/run/my.control", RUNTIME, 0, "/run/my.control", id="the setting first"),
        pytest.param(CONFIG, "my.control", {}, 0, "/etc/stardust/my.control", id="relative to the file"),
        pytest.param("", "my.control", {}, 0, "my.control", id="relative to where we are, without a file"),
        pytest.param(CONFIG, "", RUNTIME, 1000, "/run/stardust/myapp/control", id="the first of the unit's"),
        pytest.param(CONFIG, "", {}, 0, f"/run/stardust/myapp-{DIGEST}.control", id="root"),
        pytest.param(
            CONFIG, "", USER, 1000, f"/run/user/1000/stardust/myapp-{DIGEST}.control", id="another user"
        ),
        pytest.param(CONFIG, "", {}, 1000, None, id="a user without a runtime directory"),
        pytest.param("", "", {}, 0, None, id="flags alone"),
        pytest.param("", "", {"RUNTIME_DIRECTORY": ""}, 0, None, id="an empty variable counts as none"),
    ],
)
def test_default(config: str, setting: str, environ: dict[str, str], uid: int, path: str | None) -> None:
    assert address.default(config, setting, environ, uid) == path


def test_a_relative_file_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert address.default("a.toml", "", {}, 0) == address.default(f"{tmp_path}/a.toml", "", {}, 0)


def test_files_of_one_name_differ() -> None:
    assert address.default("/a/x.toml", "", {}, 0) != address.default("/b/x.toml", "", {}, 0)


def test_a_long_name_leaves_room() -> None:
    path = address.default(f"/etc/{'x' * 250}.toml", "", USER, 1000)
    assert path is not None
    assert len(path) < 100


@pytest.mark.parametrize(
    ("config", "setting", "environ", "paths"),
    [
        pytest.param("", "", {}, [], id="nothing known"),
        pytest.param("", "", RUNTIME, ["/run/stardust/myapp/control"], id="inside the unit"),
        pytest.param(CONFIG, "/x", RUNTIME, ["/x"], id="the setting only"),
        pytest.param(
            CONFIG,
            "",
            {},
            [f"/run/stardust/myapp-{DIGEST}.control", "/run/stardust/myapp/control"],
            id="an administrator's shell",
        ),
        pytest.param(
            CONFIG,
            "",
            {"RUNTIME_DIRECTORY": "/run/stardust/myapp"},
            ["/run/stardust/myapp/control", f"/run/stardust/myapp-{DIGEST}.control"],
            id="ExecReload=",
        ),
        pytest.param(
            CONFIG,
            "",
            {"RUNTIME_DIRECTORY": "/run/cron"},
            [
                "/run/cron/control",
                "/run/stardust/myapp/control",
                f"/run/stardust/myapp-{DIGEST}.control",
            ],
            id="another unit",
        ),
    ],
)
def test_candidates(config: str, setting: str, environ: dict[str, str], paths: list[str]) -> None:
    assert address.candidates(config, setting, environ, 0) == paths
