"""stardust.settings: the table, its kinds, and the way of a configuration to another interpreter."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address, parse
from stardust.base.records import fields, replace
from stardust.settings import table as settings
from stardust.settings.table import GIB, KIB, MIB, Config, Kind, Listen, Setting, amount, dump, load, toml

ROWS = {row.key: row for row in settings.SETTINGS}
LISTEN_ROWS = {row.key: row for row in settings.LISTEN_SETTINGS}
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


RIGHT = [
    ("max-workers", 0, 0),
    ("max-workers", 1000, 1000),
    ("timeout", 5, 5.0),
    ("timeout", 0.25, 0.25),
    ("timeout", "500ms", 0.5),
    ("timeout", "300ms", 0.3),
    ("timeout", "30s", 30.0),
    ("timeout", "5min", 300.0),
    ("timeout", "1.5h", 5400.0),
    ("timeout", " 30 s ", 30.0),
    ("timeout", "30", 30.0),
    ("max-body", 5, 5),
    ("max-body", "5", 5),
    ("max-body", "5B", 5),
    ("max-body", "10kB", 10_000),
    ("max-body", "1KiB", KIB),
    ("max-body", "1.5MiB", 3 * MIB // 2),
    ("max-body", "2GiB", 2 * GIB),
    ("preload", False, False),
    ("log-level", "debug", "debug"),
    ("umask", "022", 0o22),
    ("umask", "0o022", 0o22),
    ("umask", "777", 0o777),
    ("umask", "", None),
    ("env-file", "one", ("one",)),
    ("env-file", ["one", "two"], ("one", "two")),
    ("environment", {"A": "x", "B": 1, "C": True}, (("A", "x"), ("B", "1"), ("C", "true"))),
]


@pytest.mark.parametrize(("key", "value", "result"), RIGHT)
def test_a_right_value_is_read(key: str, value: object, result: object) -> None:
    read = ROWS[key].read(value)
    assert read == result
    assert type(read) is type(result)


WRONG = [
    ("max-workers", -1, "must be a whole number from 0 to 1000, not -1"),
    ("max-workers", 1001, "must be a whole number from 0 to 1000, not 1001"),
    ("max-workers", "many", 'must be a whole number from 0 to 1000, not "many"'),
    ("max-workers", 1.0, "must be a whole number from 0 to 1000, not 1"),
    ("max-workers", True, "must be a whole number from 0 to 1000, not true"),
    ("max-reqs-per-child", -1, "must be a whole number of at least 0, not -1"),
    ("timeout", 0, "must be a duration from 10ms to 24h (seconds, or text such as"),
    ("timeout", float("inf"), "not inf"),
    ("timeout", float("nan"), "not nan"),
    ("timeout", True, "not true"),
    ("timeout", "soon", 'not "soon"'),
    ("timeout", "5 weeks", '"weeks" is none of ms, s, min, h'),
    ("max-body", "1.5B", "it is no whole number of bytes"),
    ("max-body", "1mb", '"mb" is none of B, kB, MB, GB, KiB, MiB, GiB'),
    ("max-request-line", 1, "must be a size from 64 to 1MiB"),
    ("preload", 1, "must be true or false, not 1"),
    ("preload", "yes", 'must be true or false, not "yes"'),
    ("log-level", "loud", 'must be one of debug, info, warning, error, critical, not "loud"'),
    ("app", 5, "must be text, not 5"),
    ("app", "a\0b", "it contains a NUL character"),
    ("app", "a\udcff", "it is not valid UTF-8"),
    ("app", "x\0" * 60, "…: it contains"),
    ("umask", 22, 'must be an octal mode from 0000 to 0777 (text such as "0660", or 0o660), not 22'),
    ("umask", "0888", 'not "0888"'),
    ("umask", "1777", 'not "1777"'),
    ("env-file", [1], 'must be a file or a list of files (a path, or "credential:NAME"), not [1]'),
    ("env-file", {}, 'must be a file or a list of files (a path, or "credential:NAME"), not {}'),
    ("environment", "A=x", 'must be a table of texts by name, not "A=x"'),
    ("environment", {"A": []}, "must be a table of texts by name, not { A = [] }"),
    ("environment", {"A=B": ""}, '"A=B" is no name of a variable'),
    ("environment", {"": ""}, '"" is no name of a variable'),
]


@pytest.mark.parametrize(("key", "value", "reason"), WRONG)
def test_a_wrong_value_is_refused_with_what_would_be_right(key: str, value: object, reason: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        ROWS[key].read(value)
    assert reason in str(caught.value)


def test_an_address_is_refused_with_its_own_reason() -> None:
    with pytest.raises(ValueError, match=r'must be an address \(.*\), not "x:y": port "y" is not a number'):
        LISTEN_ROWS["address"].read("x:y")


FLAG_TEXTS = [
    (settings.COUNT, "10", 10),
    (settings.COUNT, "-1", -1),
    (settings.COUNT, "ten", "ten"),
    (settings.COUNT, 100 * "9", 100 * "9"),
    (settings.SWITCH, "1", True),
    (settings.SWITCH, "ON", True),
    (settings.SWITCH, "0", False),
    (settings.SWITCH, "no", False),
    (settings.SWITCH, "maybe", "maybe"),
    (settings.SECONDS, "30", "30"),
    (settings.BYTES, "64", 64),
    (settings.BYTES, "64KiB", "64KiB"),
    (settings.PAIRS, "A=b=c", {"A": "b=c"}),
    (settings.PAIRS, "A", "A"),
]


@pytest.mark.parametrize(("kind", "text", "value"), FLAG_TEXTS)
def test_the_text_of_a_flag_stands_for_a_toml_value(kind: Kind, text: str, value: object) -> None:
    assert kind.plain(text) == value


AMOUNTS = [
    (settings.SECONDS, 0, "0"),
    (settings.SECONDS, 0.01, "10ms"),
    (settings.SECONDS, 90, "90s"),
    (settings.SECONDS, 86400, "24h"),
    (settings.BYTES, 64, "64"),
    (settings.BYTES, 1536 * KIB, "1536KiB"),
    (settings.BYTES, GIB, "1GiB"),
    (settings.COUNT, 1024, "1024"),
    (settings.MODE, 0o777, "0777"),
]


@pytest.mark.parametrize(("kind", "number", "text"), AMOUNTS)
def test_amounts_are_told_in_their_largest_unit(kind: Kind, number: float, text: str) -> None:
    assert amount(kind, number) == text


TOML_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MODES = st.none() | st.integers(0, 0o777)


@given(TOML_TEXT)
def test_text_reads_back_from_toml(text: str) -> None:
    assert tomllib.loads(f"{settings.toml_key(text)} = {toml(text)}") == {text: text}


@given(
    st.one_of(
        st.tuples(st.just(ROWS["umask"]), MODES),
        st.tuples(st.just(ROWS["max-body"]), st.integers(0, settings.PIB)),
        st.tuples(st.just(ROWS["timeout"]), st.floats(settings.SHORTEST, settings.DAY)),
        st.tuples(st.just(ROWS["pythonpath"]), st.lists(TOML_TEXT).map(tuple)),
        st.tuples(
            st.just(ROWS["environment"]),
            st.dictionaries(TOML_TEXT.filter(lambda name: name and "=" not in name), TOML_TEXT).map(
                lambda pairs: tuple(pairs.items())
            ),
        ),
    )
)
def test_values_read_back_from_toml(case: tuple[Setting, object]) -> None:
    row, value = case
    assert row.read(tomllib.loads(f"value = {toml(value, row.kind)}")["value"]) == value


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
    preload=st.booleans(),
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
