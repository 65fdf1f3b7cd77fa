from __future__ import annotations

import pytest
import run
from recorded import Record, Used, merged, parsed, written

OLD = Record({"date": "old"}, {"stardust": Used("1", "as it is", "stardust {app}")}, [{"server": "stardust"}])
NEW = OLD._replace(facts={"date": "new"})


def test_a_run_replaces_the_loads_that_it_measured_and_no_other() -> None:
    assert merged({"waits": OLD, "idle": OLD}, {"idle": NEW, "more": NEW}) == {
        "waits": OLD,
        "idle": NEW,
        "more": NEW,
    }


@pytest.mark.parametrize(
    "records",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"idle": OLD}, id="a load"),
        pytest.param({"idle": OLD, "none": OLD._replace(measurements=[])}, id="a load without measurements"),
        pytest.param({"ü": OLD._replace(facts={"µs": 'a "quoted"\nline'})}, id="any text"),
    ],
)
def test_what_is_written_is_what_is_read(records: dict[str, Record]) -> None:
    assert parsed(written(records)) == records


def test_the_recorded_results_are_of_loads_and_fields_that_are_known() -> None:
    records = parsed(run.RESULTS.read_text())
    assert records.keys() <= run.KIND_OF.keys()
    for load, record in records.items():
        results = [run.KIND_OF[load].RESULT(**one) for one in record.measurements]
        assert {one.server for one in results} == record.servers.keys()
