"""Env files: what is made of their text. How they become an environment: test_environment.py."""

from __future__ import annotations

import pytest

from stardust.base.errors import ConfigError
from stardust.config import envfile


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("A=1\nB='two words'\n", [("A", "1"), ("B", "two words")], id="values"),
        pytest.param("# nothing\n\nexport A=1", [("A", "1")], id="comments, blank lines, export"),
        pytest.param("A", [("A", None)], id="a name without a value"),
        pytest.param("A=${B}", [("A", "${B}")], id="as written"),
        pytest.param("", [], id="empty"),
    ],
)
def test_bindings(text: str, found: list[tuple[str, str | None]]) -> None:
    assert envfile.bindings(text, "app.env") == found


@pytest.mark.parametrize(
    "text", [pytest.param("A=1\n'B\n", id="a quote that is not closed"), pytest.param("A=1\nB=\0", id="NUL")]
)
def test_a_line_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^app\.env:2: must be NAME=VALUE, as python-dotenv reads it$"):
        envfile.bindings(text, "app.env")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("${A}/${B:-none}", "one/none", id="a name, and one with a default"),
        pytest.param("${B}", "", id="a name that is not there"),
    ],
)
def test_resolved(value: str, text: str) -> None:
    assert envfile.resolved(value, {"A": "one"}) == text
