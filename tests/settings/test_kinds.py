"""The kinds of values: the text of a flag, amounts with units, and values as TOML, which read back."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.settings import kinds
from stardust.settings.kinds import GIB, KIB, Kind, amount, toml
from stardust.settings.row import Setting
from stardust.settings.table import SETTINGS, SHORTEST

ROWS = {row.key: row for row in SETTINGS}

FLAG_TEXTS = [
    (kinds.COUNT, "10", 10),
    (kinds.COUNT, "-1", -1),
    (kinds.COUNT, "ten", "ten"),
    (kinds.COUNT, 100 * "9", 100 * "9"),
    (kinds.SWITCH, "1", True),
    (kinds.SWITCH, "ON", True),
    (kinds.SWITCH, "0", False),
    (kinds.SWITCH, "no", False),
    (kinds.SWITCH, "maybe", "maybe"),
    (kinds.SECONDS, "30", "30"),
    (kinds.BYTES, "64", 64),
    (kinds.BYTES, "64KiB", "64KiB"),
    (kinds.PAIRS, "A=b=c", {"A": "b=c"}),
    (kinds.PAIRS, "A", "A"),
]


@pytest.mark.parametrize(("kind", "text", "value"), FLAG_TEXTS)
def test_the_text_of_a_flag_stands_for_a_toml_value(kind: Kind[Any], text: str, value: object) -> None:
    assert kind.plain(text) == value


AMOUNTS = [
    (kinds.SECONDS, 0, "0"),
    (kinds.SECONDS, 0.01, "10ms"),
    (kinds.SECONDS, 90, "90s"),
    (kinds.SECONDS, 86400, "24h"),
    (kinds.BYTES, 64, "64"),
    (kinds.BYTES, 1536 * KIB, "1536KiB"),
    (kinds.BYTES, GIB, "1GiB"),
    (kinds.COUNT, 1024, "1024"),
    (kinds.MODE, 0o777, "0777"),
]


@pytest.mark.parametrize(("kind", "number", "text"), AMOUNTS)
def test_amounts_are_told_in_their_largest_unit(kind: Kind[Any], number: float, text: str) -> None:
    assert amount(kind, number) == text


TOML_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MODES = st.none() | st.integers(0, 0o777)


@given(TOML_TEXT)
def test_text_reads_back_from_toml(text: str) -> None:
    assert tomllib.loads(f"{kinds.toml_key(text)} = {toml(text)}") == {text: text}


@given(
    st.one_of(
        st.tuples(st.just(ROWS["umask"]), MODES),
        st.tuples(st.just(ROWS["max-body"]), st.integers(0, kinds.PIB)),
        st.tuples(st.just(ROWS["timeout"]), st.floats(SHORTEST, kinds.DAY)),
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
