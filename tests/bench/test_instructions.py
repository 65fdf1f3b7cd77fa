from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import instructions
import pytest
from instructions import alone, browser, compared, counted
from processes import HERE, BenchError

LUA = (HERE / "load.lua").read_text()


def test_alone_there_is_the_median_of_the_rounds_and_how_far_they_are_apart() -> None:
    assert [*alone({"kept": [90_100.0, 90_000.4, 89_900.0]})][2:] == ["| kept | 90,000 | 0.22% |", ""]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        pytest.param([101.0, 900.0, 101.0], "1.0100 ×, met", id="as much as allowed"),
        pytest.param([101.0, 102.0, 102.0], "1.0200 ×, MISSED", id="more"),
    ],
)
def test_a_bar_is_a_ratio_of_medians(now: list[float], said: str) -> None:
    *_, line = compared({"each": [100.0, 100.0, 1.0]}, {"each": now})
    assert line == f"- a connection for each request: now at most 1.01 × before: {said}"


def test_the_two_checkouts_stand_side_by_side() -> None:
    lines = [*compared({"kept": [1000.0]}, {"kept": [990.0]})]
    assert lines[0] == "| case | before | now | ratio | spread before | spread now |"
    assert lines[2] == "| kept | 1,000 | 990 | 0.9900 | 0.00% | 0.00% |"


def test_the_total_of_a_process_comes_from_the_end_of_its_file() -> None:
    assert counted("version: 1\nevents: Ir\nfn=(1) main\n3 17\n\ntotals: 236781883\n") == 236781883
    with pytest.raises(BenchError, match="no totals"):
        counted("version: 1\nevents: Ir\n")


def test_a_request_is_the_browser_of_load_lua() -> None:
    head, _, rest = browser(8, "close").decode().partition("\r\n\r\n")
    first, *fields = head.split("\r\n")
    assert (first, rest) == ("GET /articles/8?page=1 HTTP/1.1", "")
    assert fields[-1] == "Connection: close"
    assert all(line in LUA for line in (*instructions.SAME, instructions.AGENT))
    assert [line.partition(":")[0] for line in fields] == [
        *("Host", "User-Agent", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform"),
        *("Upgrade-Insecure-Requests", "Accept", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"),
        *("Accept-Encoding", "Accept-Language", "Referer", "Cookie", "Connection"),
    ]
    assert browser(8, "close") != browser(9, "close")


def test_the_clock_goes_on_only_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    exec(instructions.CLOCK, {})
    looks = [time.monotonic() for _ in range(3)]
    time.sleep(0.01)
    assert looks == pytest.approx([5.0, 5.00002, 5.00004])
    assert slept == [1.0]


def test_the_package_of_a_checkout_is_copied_and_compiled(tmp_path: Path) -> None:
    lab = instructions._lab(HERE.parent, tmp_path / "0")
    assert [*(lab / "server" / "stardust" / "__pycache__").glob("__init__.*.pyc")]
    assert f"{sys.executable} " in (lab / "python").read_text()


def test_a_folder_without_the_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no checkout of stardust"):
        instructions._lab(tmp_path, tmp_path / "0")


def test_the_rounds_of_both_checkouts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = itertools.count(100.0)
    monkeypatch.setattr(instructions, "_lab", lambda checkout, lab: lab)
    monkeypatch.setattr(instructions, "_measure", lambda lab, case: next(figures))
    before, now = instructions.measured([Path("a"), Path("b")], ["kept", "each"], rounds=2)
    assert before == {"kept": [100.0, 104.0], "each": [102.0, 106.0]}
    assert now == {"kept": [101.0, 105.0], "each": [103.0, 107.0]}
