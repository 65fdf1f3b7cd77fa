"""A row of the table judges a value: what it is read as, or why not, and what would be right."""

from __future__ import annotations

import pytest

from stardust.settings.kinds import GIB, KIB, MIB
from stardust.settings.table import LISTEN_SETTINGS, SETTINGS

ROWS = {row.key: row for row in SETTINGS}
LISTEN_ROWS = {row.key: row for row in LISTEN_SETTINGS}

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
    ("preload", "auto", "auto"),
    ("after-fork", "shop.hooks:Pool.connect", "shop.hooks:Pool.connect"),
    ("after-fork", "", ""),
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
    ("timeout", "5 weeks", 'unknown unit "weeks"; use one of ms, s, min, h'),
    ("max-body", "1.5B", "it is not a whole number of bytes"),
    ("max-body", "1mb", 'unknown unit "mb"; use one of B, kB, MB, GB, KiB, MiB, GiB'),
    ("max-request-line", 1, "must be a size from 64 to 1MiB"),
    ("store-connections", 1, "must be true or false, not 1"),
    ("store-connections", "yes", 'must be true or false, not "yes"'),
    ("preload", 1, 'must be true, false or "auto", not 1'),
    ("preload", "yes", 'must be true, false or "auto", not "yes"'),
    ("after-fork", "shop", 'must be a function (text such as "module:function"), not "shop"'),
    ("before-exit", "shop:f()", 'must be a function (text such as "module:function"), not "shop:f()"'),
    ("after-death", 1, 'must be a function (text such as "module:function"), not 1'),
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
    ("environment", {"A=B": ""}, '"A=B" cannot be the name of a variable'),
    ("environment", {"": ""}, '"" cannot be the name of a variable'),
]


@pytest.mark.parametrize(("key", "value", "reason"), WRONG)
def test_a_wrong_value_is_refused_with_what_would_be_right(key: str, value: object, reason: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        ROWS[key].read(value)
    assert reason in str(caught.value)


def test_an_address_is_refused_with_its_own_reason() -> None:
    with pytest.raises(ValueError, match=r'must be an address \(.*\), not "x:y": port "y" is not a number'):
        LISTEN_ROWS["address"].read("x:y")
