from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest
import recorded
import report
import run
from processes import BenchError
from servers import SERVERS, Server


def test_the_page_of_the_recorded_results_is_the_one_in_the_document() -> None:
    """Nobody has edited the page by hand, or changed how it is rendered without rendering it."""
    document = run.DOCUMENT.read_text()
    page = report.page(run.sections(recorded.parsed(run.RESULTS.read_text())))
    assert report.embedded(document, page) == document


def test_the_charts_of_the_recorded_results_are_those_beside_the_document() -> None:
    kept = {path.stem: path.read_text() for path in run.CHARTS.glob("*.svg")}
    assert run.charts(recorded.parsed(run.RESULTS.read_text())) == kept


def test_every_load_has_one_kind_and_a_server_that_bears_it() -> None:
    assert len(run.KIND_OF) == sum(len(kind.LOADS) for kind in run.KINDS)
    borne = {load for server in SERVERS for load in server.loads}
    assert borne == run.KIND_OF.keys()


class One(NamedTuple):
    server: str
    foreign: float


class Fake:
    """A kind that measures nothing: load "broken" fails at the second server."""

    LOADS = {"whole": "all is well", "broken": "it is not"}  # noqa: RUF012
    RESULT = One

    def __init__(self) -> None:
        self.asked: list[str] = []

    def measure(self, server: Server, load: str, seconds: int) -> list[One]:
        self.asked.append(f"{load} {server.name}")
        if load == "broken" and server.name == "b":
            raise BenchError("b does not answer")
        return [One(server.name, 0.25)]

    def told(self, measured: Sequence[One]) -> str:
        return "told"

    def tables(self, measured: Sequence[One]) -> Iterator[str]:
        yield ", ".join(one.server for one in measured)


def server(name: str) -> Server:
    return Server(name, "note", ("true",), (name, "{app}"), ("whole", "broken"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(run, "KIND_OF", dict.fromkeys(fake.LOADS, fake))
    return fake


def test_another_server_begins_each_round(fake: Fake) -> None:
    measured, errors = run.measured([server("a"), server("c")], ["whole"], rounds=2, seconds=1)
    assert fake.asked == ["whole a", "whole c", "whole c", "whole a"]
    assert len(measured["whole"]) == 4
    assert not errors


def test_what_fails_ends_its_load_but_not_the_run(fake: Fake) -> None:
    measured, errors = run.measured([server("a"), server("b")], ["broken", "whole"], rounds=2, seconds=1)
    assert fake.asked == ["broken a", "broken b", "whole a", "whole b", "whole b", "whole a"]
    assert measured.keys() == {"whole"}
    assert [str(error) for error in errors] == ["b does not answer"]


def test_a_record_says_how_its_load_was_measured(fake: Fake) -> None:
    measured, _ = run.measured([server("a")], ["whole"], rounds=1, seconds=1)
    record = run.records([server("a")], measured, {"date": "today"})["whole"]
    assert record.facts["date"] == "today"
    assert record.facts["other work on the server's core"] == "25% of the time (median), 25% (worst)"
    assert record.servers["a"].command == "a {app}"
    [section] = run.sections({"whole": record})
    assert (section.title, section.lines) == ("all is well", ["a"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            ["--record", "--only", "floor"], "leave out --only", id="a part of a load is not recorded"
        ),
        pytest.param(["--load", "nothing"], "must be one of keep-alive", id="unknown load"),
        pytest.param(["--rounds", "0"], "at least 1", id="no round"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *given])
    with pytest.raises(SystemExit):
        run.options()
    assert said in capsys.readouterr().err
