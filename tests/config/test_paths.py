"""Paths: where relative ones start; commands that are looked up; credentials."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stardust.base.errors import ConfigError
from stardust.config.environment import application_environment
from stardust.config.printing import printed
from tests.config.given import config, from_file, refusal, with_credentials


def test_relative_paths_of_flags_start_at_the_current_directory(directory: Path) -> None:
    found = config("--socket=x.sock", "-l", "./y.sock", "--access-log", "log/a", "--chdir", "..")
    assert [str(each.address) for each in found.listen] == [f"{directory}/y.sock", f"{directory}/x.sock"]
    assert found.access_log == f"{directory}/log/a"
    assert found.chdir == str(directory.parent)


def test_relative_paths_of_the_file_start_at_its_directory(file: Path) -> None:
    (file.parent / "one.env").touch()
    (file.parent / "python").symlink_to(sys.executable)
    found = from_file(
        file,
        """
        app = "web/app.py"
        access-log = "log/a"
        env-file = "one.env"
        chdir = "."
        control-socket = "../run/control"
        python = "./python"
        pythonpath = ["lib"]
        """,
    ).config
    assert found.app == "web/app.py"
    assert found.access_log == f"{file.parent}/log/a"
    assert found.env_file == (f"{file.parent}/one.env",)
    assert found.chdir == str(file.parent)
    assert found.control_socket == f"{file.parent.parent}/run/control"
    # Not resolved: the interpreter of a virtual environment is a symbolic link, and must be called by it.
    assert found.python == f"{file.parent}/python"
    assert found.pythonpath == ("lib",)


def test_a_python_without_a_slash_is_looked_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(directory))
    assert config("--python=python").python == f"{directory}/python"


FILE_ERRORS = [
    pytest.param(
        "python = '/nowhere'",
        [
            "app.toml:1: python: must be an executable file (a path, or a name to look up on PATH), not "
            '"/nowhere": there is no such file'
        ],
        id="python",
    ),
]


@pytest.mark.parametrize(("text", "lines"), FILE_ERRORS)
def test_wrong_files(file: Path, text: str, lines: list[str]) -> None:
    assert refusal(file, text, "app") == lines


def test_a_file_that_is_read_may_be_a_credential(file: Path, credentials: Path) -> None:
    (file.parent / "own.env").touch()
    file.write_text('env-file = ["own.env", "credential:app.env"]')
    found = with_credentials(str(credentials), "--config", str(file), "app").config
    assert found.env_file == (f"{file.parent}/own.env", f"{credentials}/app.env")
    assert application_environment(found, {})["SECRET"] == "1"
    flag = with_credentials(str(credentials), "--env-file=credential:app.env", "app")
    assert flag.config.env_file == (f"{credentials}/app.env",)
    assert f'env-file = ["{credentials}/app.env"]  # flag --env-file' in printed(flag)


def test_a_path_may_look_like_a_credential(directory: Path) -> None:
    """A "./" before it says that it is none."""
    (directory / "credential:app.env").touch()
    assert config("--env-file", "./credential:app.env").env_file == (f"{directory}/credential:app.env",)


def test_a_key_may_be_a_credential(file: Path, credentials: Path) -> None:
    """As systemd makes them: its group, and who is named in the list behind that, may read."""
    for name in ("crt", "key", "password"):
        (credentials / name).touch()
        (credentials / name).chmod(0o440)
    file.write_text(
        """
        app = "app"
        ssl = true
        ssl-cert-file = "credential:crt"
        ssl-key-file = "credential:key"
        ssl-key-password-file = "credential:password"
        """
    )
    found = with_credentials(str(credentials), "--config", str(file)).config
    assert found.ssl_cert_file == (f"{credentials}/crt",)
    assert found.ssl_key_file == (f"{credentials}/key",)
    assert found.ssl_key_password_file == f"{credentials}/password"


FILE_IS = 'must be a file or a list of files (a path, or "credential:NAME"), not '


NAME_IS = 'the name must have 1 to 255 printable ASCII characters, none of them "/" or ":"'


NO_CREDENTIALS = [
    pytest.param(
        "env-file = 'credential:app.env'",
        "",
        f'env-file: {FILE_IS}"credential:app.env": only a service has credentials; '
        "start its unit with LoadCredential=app.env:PATH",
        id="outside of a service",
    ),
    pytest.param(
        "env-file = ['credential:app.evn']",
        "/nowhere",
        f'env-file: {FILE_IS}"credential:app.evn": there is no /nowhere/app.evn; '
        "start its unit with LoadCredential=app.evn:PATH",
        id="the unit passes none of this name",
    ),
    *(
        pytest.param(
            f'env-file = "credential:{name}"',
            "/nowhere",
            f'env-file: {FILE_IS}"credential:{name}": {NAME_IS}',
            id=f'no name: "{name}"',
        )
        for name in ("", ".", "..", "../x", "a:b", "é")
    ),
    *(
        pytest.param(
            f"{key} = 'credential:x'",
            "/nowhere",
            f'{key}: must be a path, not "credential:x": '
            "only a file that the server reads can be a credential",
            id=f"not for {key}",
        )
        for key in ("access-log", "chdir", "control-socket")
    ),
]


@pytest.mark.parametrize(("text", "directory", "message"), NO_CREDENTIALS)
def test_wrong_credentials(file: Path, text: str, directory: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        with_credentials(directory, "--config", str(file), "app")
    assert str(caught.value) == f"{file}:1: {message}"
