from __future__ import annotations

import pytest
from recorded import Record, Used
from report import BEGIN, END, Section, bar, embedded, grouped, in_order, page, table

STARDUST = Used("1.0", "as it is", "stardust {app}")


def section(load: str, facts: dict[str, str], used: Used = STARDUST) -> Section:
    return Section(load, f"title of {load}", Record(facts, {"stardust": used}, []), [f"lines of {load}"])


def test_rounds_of_one_key_come_together_in_order() -> None:
    assert grouped(["b1", "a1", "b2"], lambda one: one[0]) == {"b": ["b1", "b2"], "a": ["a1"]}


def test_servers_come_in_the_order_of_their_table_and_unknown_ones_last() -> None:
    assert in_order(["gone", "floor", "stardust"]) == ["stardust", "floor", "gone"]


def test_a_table_has_a_head_a_line_for_each_row_and_an_end() -> None:
    assert [*table(("server", "ms"), [("a", "1"), ("b", "2")])] == [
        "| server | ms |",
        "|---|--:|",
        "| a | 1 |",
        "| b | 2 |",
        "",
    ]


def test_a_missed_bar_is_called_missed() -> None:
    assert bar("at most 2", "3", False) == "- at most 2: 3, MISSED"
    assert bar("at most 2", "1", True) == "- at most 2: 1, met"


def test_facts_of_most_sections_come_first_and_others_with_their_section() -> None:
    lines = page([section("a", {"date": "today"}), section("b", {"date": "today"}), section("c", {})])
    assert lines.startswith(
        "- date: today\n\n### a: title of a\n\nlines of a\n\n### b: title of b\n\nlines of b\n"
    )
    assert "### c: title of c\n\ndate: not recorded\n\nlines of c\n" in lines


def test_a_section_tells_the_facts_in_which_it_differs() -> None:
    today = {"date": "today", "rounds": "3"}
    lines = page([section("a", today), section("b", today), section("c", {**today, "date": "yesterday"})])
    assert "### c: title of c\n\ndate: yesterday\n\nlines of c\n" in lines


def test_the_page_ends_with_the_servers_as_they_were_measured() -> None:
    other = STARDUST._replace(command="stardust {app} --tls")
    lines = page([section("a", {}), section("b", {}, other), section("c", {})])
    assert lines.endswith(
        "| stardust | 1.0 | as it is | `stardust {app}` | a, c |\n"
        "| stardust | 1.0 | as it is | `stardust {app} --tls` | b |\n"
    )


def test_a_report_takes_the_place_of_the_one_before() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert embedded(document, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert embedded(embedded(document, "new\n"), "new\n") == embedded(document, "new\n")


@pytest.mark.parametrize("document", ["", BEGIN, f"{END} {BEGIN}"])
def test_a_document_without_both_marks_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="are missing"):
        embedded(document, "new\n")
