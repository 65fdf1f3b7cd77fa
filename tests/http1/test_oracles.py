"""Head and body together: whole conversations, from a corpus, mutated, and beside h11 and llhttp.

h11 and llhttp (through httptools) are oracles: what stardust accepts, one of them accepts, and reads alike.
Wherever one says otherwise, differences.py has a row with the reason.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.streams import FRAGMENTS, Client
from tests.http1.advisories import ADVISORIES
from tests.http1.conversations import (
    ACCEPT,
    REJECT,
    SEEDS,
    conversation,
    cut,
    every_byte,
    lines,
    summary,
)
from tests.http1.differences import ROWS, Row, differences, page
from tests.http1.oracles import compared

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("path", ACCEPT, ids=lambda path: path.stem)
def test_corpus_accept(path: Path) -> None:
    talk = conversation([path.read_bytes()])
    assert talk.status is None
    assert [
        {
            "method": head.method,
            "target": head.target,
            "path": head.path,
            "query": head.query,
            "version": head.version,
            "fields": head.fields,
            "persistent": head.persistent,
            "expects_continue": head.expects_continue,
            "body": content.decode("latin-1"),
        }
        for head, content, _ in talk.requests
    ] == json.loads(path.with_suffix(".json").read_text())
    assert b"".join(request.raw for request in talk.requests) == path.read_bytes()


@pytest.mark.parametrize("path", REJECT, ids=lambda path: path.stem)
def test_corpus_reject(path: Path) -> None:
    talk = conversation([path.read_bytes()])
    assert {"status": talk.status, "before": len(talk.requests)} == json.loads(
        path.with_suffix(".json").read_text()
    )


@pytest.mark.parametrize("path", ACCEPT + REJECT, ids=lambda path: path.stem)
def test_l13_cut_anywhere(path: Path) -> None:
    """L13: whole, byte by byte, by line, and in two at every position, or at twenty of a long one."""
    data = path.read_bytes()
    whole = summary(conversation([data]))
    assert summary(conversation(every_byte(data))) == whole
    assert summary(conversation(lines(data))) == whole
    for position in range(0, len(data), 1 if len(data) < 1000 else len(data) // 20):
        assert summary(conversation([data[:position], data[position:]])) == whole


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Bytes of the corpus with a few pieces removed, doubled, or put between."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 6))
        middle = draw(
            st.one_of(st.sampled_from(FRAGMENTS), st.just(data[start:end] * 2), st.binary(max_size=2))
        )
        data = data[:start] + middle + data[draw(st.sampled_from((start, end))) :]
    return data


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Pipelines made by the grammar, with odd parts here and there, whole or damaged."""
    return Client(random.Random(draw(st.integers(0, 1 << 32)))).stream(draw(st.integers(1, 4)))


@given(
    data=st.one_of(mutants(), streams(), st.binary(max_size=200)),
    positions=st.lists(st.integers(0, 2000), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_l13_no_cut_changes_the_outcome(data: bytes, positions: list[int]) -> None:
    """Nothing but ProtocolError is ever raised, and however the bytes are cut, the outcome is the same."""
    whole = summary(conversation([data]))
    assert summary(conversation(cut(data, positions))) == whole
    assert summary(conversation(every_byte(data))) == whole


@pytest.mark.parametrize("path", ACCEPT, ids=lambda path: path.stem)
def test_oracles_accept_the_corpus(path: Path) -> None:
    differences(path.read_bytes())
    assert compared(path.read_bytes())[0] >= 1


@pytest.mark.parametrize("path", REJECT, ids=lambda path: path.stem)
def test_oracles_refuse_the_corpus_or_a_row_says_why_not(path: Path) -> None:
    differences(path.read_bytes())
    assert compared(path.read_bytes())[0] == json.loads(path.with_suffix(".json").read_text())["before"]


@given(data=st.one_of(mutants(), streams()))
@example(data=b"\r\nGGGET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
@settings(max_examples=500, deadline=None)
def test_oracles_accept_what_stardust_accepts(data: bytes) -> None:
    differences(data)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}-{row.what:.40}" for row in ROWS])
def test_a_row_has_its_example(row: Row) -> None:
    found = differences(row.example)
    assert {each.oracle for each in found if row.covers(each)} == {*row.oracles}


def test_the_page_says_the_same() -> None:
    assert page() in PAGE.read_text()


@pytest.mark.parametrize("name", ADVISORIES)
def test_an_advisory_has_its_bytes_or_its_test(name: str) -> None:
    stems = [path.stem for path in ACCEPT + REJECT]
    for each in ADVISORIES[name]:
        module, _, test = each.partition("::")
        if test:
            assert f"def {test}" in (TESTS / f"{module}.py").read_text(), each
        else:
            assert any(stem.startswith(each) for stem in stems), each
