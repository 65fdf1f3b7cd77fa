"""A TOML file: what it is refused for, and where its keys stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ConfigError
from stardust.config.document import places
from tests.config.given import loaded, refusal

FILE_ERRORS = [
    pytest.param("a = 1\nb =\n", ["app.toml:2: not TOML: Invalid value"], id="no TOML"),
    pytest.param(
        'a = 1\nb = """\n\n', ["app.toml:3: not TOML: Unterminated string"], id="no TOML at the end"
    ),
]


@pytest.mark.parametrize(("text", "lines"), FILE_ERRORS)
def test_wrong_files(file: Path, text: str, lines: list[str]) -> None:
    assert refusal(file, text, "app") == lines


def test_a_missing_file_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"app\.toml: cannot be read: No such file or directory"):
        loaded("--config", str(file), "app")


def test_a_directory_is_no_file(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        loaded("--config", str(file.parent), "app")


def test_a_file_is_text(file: Path) -> None:
    file.write_bytes(b'app = "a"\n# \xff\n')
    with pytest.raises(ConfigError, match=r"app\.toml:2: not text in UTF-8"):
        loaded("--config", str(file))


TRICKY = '''\
# [comment]
a = """
b = 1
\\""" ""[x]"""""
c = \'\'\'
d = "\'\'\'\'\'
"e.f" . g = [ # ] , [
  1, "]", { h = 1 },
  \'[\',
]
i = { j = 1, "k" = { l = [1, { m = 1 }], n = 2 }, o = {} }

[p . "q.r"]
s = 1979-05-27T07:32:00Z\r
t.u = 1.5e-3
[[v]]
w = 0o17
x = ""
'''


def test_keys_are_found_among_everything_toml_has() -> None:
    found = {".".join(path): place.line for path, place in places(TRICKY).items()}
    assert found == {
        "a": 2,
        "c": 5,
        "e.f": 7,
        "e.f.g": 7,
        "i": 11,
        "i.j": 11,
        "i.k": 11,
        "i.k.l": 11,
        "i.k.n": 11,
        "i.o": 11,
        "p": 13,
        "p.q.r": 13,
        "p.q.r.s": 14,
        "p.q.r.t": 15,
        "p.q.r.t.u": 15,
        "v": 16,
        "v.w": 17,
        "v.x": 18,
    }


def test_numbers_keep_how_they_were_written() -> None:
    assert places("a = 0o17\nb = [1]")["a",].token == "0o17"


NOISE = st.sampled_from(["", "\n", "# [x] = '''\n", " \t\n", "\r\n"])


VALUES = st.sampled_from(
    [
        "1",
        "true",
        "'a#='",
        '"\\"]"',
        "[\n1, [2],\n]",
        '"""\n[x]\n"""',
        "'''\n\n'''''",
        "{ }",
        "{ x = [{ y = 1 }] }",
        "1.5",
    ]
)


@given(
    st.lists(st.tuples(NOISE, st.sampled_from(["{}", "'{}'", '"{}"', "[{}]", "[ '{}' ]", "[[{}]]"]), VALUES))
)
def test_lines_are_right_whatever_stands_between(parts: list[tuple[str, str, str]]) -> None:
    text, expected = "", {}
    table: tuple[str, ...] = ()
    path: tuple[str, ...]
    for number, (noise, form, value) in enumerate(parts):
        text += noise
        name = f"k{number}"
        if form.startswith("["):
            table = (name,)
            path, statement = table, form.format(name)
        else:
            path, statement = (*table, name), f"{form.format(name)} = {value}"
        expected[path] = text.count("\n") + 1
        text += f"{statement} # end\n"
    found = {path: place.line for path, place in places(text).items() if path[-1].startswith("k")}
    assert found == expected
