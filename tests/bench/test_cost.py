from __future__ import annotations

import pytest
from cost import BARS, LOADS, Measurement, Row, absent, drawn, rows, tables, verdicts

ONE = Measurement(
    server="stardust",
    load="keep-alive",
    requests=1000,
    failed=1,
    seconds=2.0,
    cpu=0.02,
    system=0.01,
    p50_ms=1.0,
    p99_ms=3.0,
    rss=2 << 20,
    pss=1 << 20,
    foreign=0.0,
)
NOTHING = ONE._replace(server="waitress", requests=0, cpu=0.5)


def row(cpu_us: float) -> Row:
    return rows([ONE._replace(cpu=cpu_us / 1000)])["stardust"]


def test_a_row_is_the_median_of_its_rounds_and_their_extremes() -> None:
    rounds = [ONE, ONE._replace(cpu=0.05, failed=2), ONE._replace(cpu=0.03)]
    found = rows(rounds)["stardust"]
    assert (found.cpu_us, found.least_cpu_us, found.most_cpu_us) == pytest.approx((30, 20, 50))
    assert (found.system_us, found.rate, found.answers, found.failed) == (10, 500, 3000, 4)


def test_a_table_has_ratios_to_stardust_and_to_the_floor_where_it_was_measured() -> None:
    lines = list(tables([ONE._replace(server="floor", cpu=0.01), ONE]))
    head, _, stardust, floor = lines[2:6]
    assert "× stardust | × floor" in head
    assert stardust.startswith("| stardust | 20.0 | 20.0–20.0 | 10.0 | 1.00 | 2.00 |")
    assert floor.startswith("| floor | 10.0 | 10.0–10.0 | 10.0 | 0.50 | 1.00 |")
    assert "× floor" not in "\n".join(tables([ONE]))


def test_a_server_without_an_answer_has_no_figures_but_its_failures() -> None:
    [line] = [line for line in tables([ONE, NOTHING]) if line.startswith("| waitress")]
    assert line == "| waitress | – | – | – | – | 0 | – | – | 2 | 1 | 1 |"
    assert "waitress" in "\n".join(tables([ONE, NOTHING]))
    assert "waitress" not in drawn([ONE, NOTHING])


@pytest.mark.parametrize(
    ("bar", "theirs", "said"),
    [
        pytest.param(0, 20.0, "keep-alive: stardust at most 1.0 × granian: 1.00 ×, met", id="as much"),
        pytest.param(0, 19.0, "keep-alive: stardust at most 1.0 × granian: 1.05 ×, MISSED", id="more"),
        pytest.param(
            2, 200.0, "keep-alive: stardust at most 1/10 × gunicorn-gthread: 0.10 ×, met", id="a tenth"
        ),
        pytest.param(
            2, 150.0, "keep-alive: stardust at most 1/10 × gunicorn-gthread: 0.13 ×, MISSED", id="less"
        ),
    ],
)
def test_a_bar_is_a_ratio_of_two_servers_of_one_run(bar: int, theirs: float, said: str) -> None:
    found = {"stardust": row(20), BARS[bar].server: row(theirs)}
    assert list(verdicts("keep-alive", found)) == [f"- {said}"]


def test_a_bar_without_both_sides_is_not_judged() -> None:
    assert list(verdicts("keep-alive", {"granian": row(20)})) == []
    assert list(verdicts("keep-alive", {"stardust": row(20)})) == []


def test_who_does_not_take_part_is_named_with_the_reason() -> None:
    [said, _] = absent("tls")
    assert "bjoern has no TLS" in said
    assert list(absent("keep-alive")) == []


def test_a_chart_has_the_title_of_its_load() -> None:
    assert "keep-alive" in drawn([ONE])
    assert LOADS["keep-alive"] in drawn([ONE])
