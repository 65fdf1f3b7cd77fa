from __future__ import annotations

import recorded
import report
import run
from servers import SERVERS


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
