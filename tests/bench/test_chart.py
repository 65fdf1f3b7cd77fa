from __future__ import annotations

from xml.etree import ElementTree

from chart import BARS, NAMES, Bar, svg

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = (
    Bar("slow & <old>", 400.0, 100.0, ours=False),
    Bar("stardust", 40.0, 20.0, ours=True),
    Bar("none", 0.0, 0.0, ours=False),
)


def groups(text: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(text).findall(f"{SVG}g")


def names(text: str) -> list[str | None]:
    return [group.findall(f"{SVG}text")[0].text for group in groups(text)]


def test_the_least_comes_first_and_any_name_is_text() -> None:
    assert names(svg("title", "note", DRAWN)) == ["none", "stardust", "slow & <old>"]


def test_bars_are_to_one_scale_and_the_longest_fills_the_column() -> None:
    widths = [
        [float(rect.attrib["width"]) for rect in group.findall(f"{SVG}rect")]
        for group in groups(svg("title", "note", DRAWN))
    ]
    assert widths == [[0, 0], [BARS / 10, BARS / 20], [BARS, BARS / 4]]


def test_values_stand_behind_their_bars() -> None:
    texts = [group.findall(f"{SVG}text")[1] for group in groups(svg("title", "note", DRAWN))]
    assert [text.text for text in texts] == ["0.0", "40.0", "400"]
    assert [float(text.attrib["x"]) > NAMES for text in texts] == [True] * 3


def test_ours_stand_out() -> None:
    assert [group.get("class") for group in groups(svg("title", "note", DRAWN))] == [None, "ours", None]


def test_every_bar_is_inside_the_picture() -> None:
    root = ElementTree.fromstring(svg("a & b", "<note>", DRAWN))
    height = float(root.attrib["height"])
    ends = [float(rect.attrib["y"]) + float(rect.attrib["height"]) for rect in root.iter(f"{SVG}rect")]
    assert max(ends) <= height


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert groups(svg("title", "note", [])) == []
    assert groups(svg("title", "note", [Bar("none", 0.0, 0.0, ours=False)]))
