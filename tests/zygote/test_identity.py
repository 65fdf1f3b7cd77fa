"""As whom the application runs. That it does so in a real zygote: test_main.py, tests/applications."""

from __future__ import annotations

import pwd

import pytest

from stardust.base.errors import AppLoadError
from stardust.settings.table import Config
from stardust.zygote import identity

NOBODY = 4_000_000  # a number that no account of a test machine has


def test_an_account_by_name_and_by_number() -> None:
    root = pwd.getpwnam("root")
    assert identity.account_of("root") == identity.account_of("0") == root


def test_a_number_without_an_account() -> None:
    found = identity.account_of(str(NOBODY))
    assert (found.pw_uid, found.pw_gid, found.pw_dir) == (NOBODY, NOBODY, "/")


@pytest.mark.parametrize(
    "config", [Config(user="nosuchname"), Config(group="nosuchname")], ids=["user", "group"]
)
def test_a_name_without_an_account(config: Config) -> None:
    with pytest.raises(AppLoadError, match=r"cannot prepare the application's process: .*nosuchname"):
        identity.become(config)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ((), {"HOME", "USER", "LOGNAME"}),
        ((("HOME", "/srv"),), {"USER", "LOGNAME"}),
        ((("HOME", "/srv"), ("USER", "jo"), ("LOGNAME", "jo"), ("X", "y")), set()),
    ],
    ids=["nothing given", "a home", "all"],
)
def test_environment_wins_over_the_account(given: tuple[tuple[str, str], ...], left: set[str]) -> None:
    root = pwd.getpwnam("root")
    assert set(identity.own_variables(root, Config(environment=given))) == left
