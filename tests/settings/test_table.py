"""The table of settings: whole and right by itself; the way of a configuration to another interpreter."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address, parse
from stardust.base.records import fields, replace
from stardust.settings import table as settings
from stardust.settings.kinds import toml
from stardust.settings.row import Setting
from stardust.settings.table import Config, Listen, dump, load

EVERY_ROW = [pytest.param(row, id=row.key) for row in settings.SETTINGS] + [
    pytest.param(row, id=f"listen.{row.key}") for row in settings.LISTEN_SETTINGS
]


@pytest.mark.parametrize("row", EVERY_ROW)
def test_every_row_is_whole(row: Setting) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", row.name)
    assert row.section in settings.SECTIONS
    assert row.help
    assert not row.help.endswith(".")
    assert row.text == "" or row.text.endswith((".", "`"))
    assert row.text.count("`") % 2 == 0
    # An empty default says nothing by itself: the row says what it means, or the list is plainly empty.
    assert row.default not in ("", None) or row.unset or "Unset" in row.text


@pytest.mark.parametrize("row", EVERY_ROW)
def test_every_default_is_right_by_its_own_row(row: Setting) -> None:
    assert row.read(tomllib.loads(f"value = {toml(row.default, row.kind)}")["value"]) == row.default


def test_the_rows_are_all_fields_but_those_that_no_key_sets() -> None:
    names = {field.name for field in fields(Config)}
    assert names - {row.name for row in settings.SETTINGS} == {"listen", "source"}
    names = {field.name for field in fields(Listen)}
    assert names - {row.name for row in settings.LISTEN_SETTINGS} == {"name"}


def test_the_rows_follow_the_sections() -> None:
    sections = [settings.SECTIONS.index(row.section) for row in settings.SETTINGS]
    assert sections == sorted(sections)


DEFAULTS_OF_THE_ORIGINAL = {
    "max_workers": 10,
    "timeout": 300,
    "keepalive_timeout": 2,
    "max_keepalive_reqs": 1,
    "max_reqs_per_child": 1000,
    "min_reqs_per_child": 0,
    "spawn_interval": 0,
    "main_process_delay": 0.1,
}


@pytest.mark.parametrize("name", DEFAULTS_OF_THE_ORIGINAL)
def test_defaults_are_those_of_the_original(name: str) -> None:
    assert getattr(Config(), name) == DEFAULTS_OF_THE_ORIGINAL[name]


MODES = st.none() | st.integers(0, 0o777)
LISTENS = st.builds(
    Listen,
    name=st.text(),
    address=st.none() | st.sampled_from([":80", "[::1]:80", "/x", "@x"]).map(parse),
    mode=MODES,
    owner=st.text(),
    group=st.text(),
)
CONFIGS = st.builds(
    Config,
    app=st.text(),
    env_file=st.lists(st.text()).map(tuple),
    environment=st.lists(st.tuples(st.text(), st.text())).map(tuple),
    preload=st.sampled_from([True, False, "auto"]),
    timeout=st.floats(0.01, 1e5),
    umask=MODES,
    listen=st.lists(LISTENS).map(tuple),
    source=st.text(),
)


@given(CONFIGS)
def test_a_config_travels_unchanged(config: Config) -> None:
    arrived = load(dump(config))
    assert arrived == config
    assert hash(arrived) == hash(config)
    assert all(isinstance(each.address, (Address, type(None))) for each in arrived.listen)


def test_what_needs_a_restart() -> None:
    old = Config()
    assert settings.needs_restart(old, replace(old, max_workers=3, listen=(Listen("x"),))) == ()
    assert settings.needs_restart(old, replace(old, control_socket="/x")) == ("control-socket",)


@pytest.mark.parametrize(
    ("server", "own", "takes"),
    [
        (False, None, False),
        (True, None, True),
        (True, False, False),
        (False, True, True),
    ],
)
def test_l14_a_listener_may_have_its_own_proxy_protocol(server: bool, own: bool | None, takes: bool) -> None:
    config = Config(proxy_protocol=server, listen=(Listen("other"), Listen("http", proxy_protocol=own)))
    assert config.takes_introductions("http") is takes
    assert config.takes_introductions("other") is server
    # One of systemd's that no table names.
    assert config.takes_introductions("default") is server
