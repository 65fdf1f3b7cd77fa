"""Lines of the access log. W11 of http.md: one line per request, and nothing in it acts on its reader."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.logs.accesslog import FORMATS, Record, escaped, formatter

WHEN = datetime(2026, 11, 22, 16, 50, 0, 250_000, UTC).timestamp()

RECORD = Record(
    when=WHEN,
    duration=0.0123456,
    peer="192.0.2.1",
    user="",
    method="GET",
    target="/a%20b?c=d",
    version="HTTP/1.1",
    status=200,
    sent=1234,
    referer="https://example.org/",
    agent="Mozilla/5.0 (X11)",
    host="www.example.org",
    note="",
    pid=4711,
)

REFUSED = RECORD._replace(
    peer="",
    method="",
    target="",
    version="",
    status=400,
    sent=0,
    referer="",
    agent="",
    host="",
    note="no colon",
)


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The zone of the machine for the length of one test, in POSIX notation: west is positive."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["UTC0"], indirect=True)
@pytest.mark.parametrize(
    ("name", "record", "line"),
    [
        ("common", RECORD, '192.0.2.1 - - [22/Nov/2026:16:50:00 +0000] "GET /a%20b?c=d HTTP/1.1" 200 1234'),
        (
            "combined",
            RECORD,
            '192.0.2.1 - - [22/Nov/2026:16:50:00 +0000] "GET /a%20b?c=d HTTP/1.1" 200 1234'
            ' "https://example.org/" "Mozilla/5.0 (X11)"',
        ),
        ("common", REFUSED, '- - - [22/Nov/2026:16:50:00 +0000] "-" 400 -'),
        ("combined", REFUSED, '- - - [22/Nov/2026:16:50:00 +0000] "-" 400 - "-" "-"'),
        (
            "common",
            RECORD._replace(status=0, sent=0, user="me too"),
            '192.0.2.1 - me\\x20too [22/Nov/2026:16:50:00 +0000] "GET /a%20b?c=d HTTP/1.1" - -',
        ),
        (
            "combined",
            RECORD._replace(target='/"\\', referer="\x1b[31m", agent="\x00\xe9\x7f\n"),
            '192.0.2.1 - - [22/Nov/2026:16:50:00 +0000] "GET /\\"\\\\ HTTP/1.1" 200 1234'
            ' "\\x1b[31m" "\\x00\\xe9\\x7f\\n"',
        ),
    ],
    ids=["common", "combined", "refused", "refused-combined", "nothing sent", "hostile"],
)
def test_text_lines(zone: None, name: str, record: Record, line: str) -> None:
    assert formatter(name)(record) == line


@pytest.mark.parametrize(
    ("zone", "time"),
    [
        ("UTC0", "[22/Nov/2026:16:50:00 +0000]"),
        ("IST-5:30", "[22/Nov/2026:22:20:00 +0530]"),
        ("NST3:30", "[22/Nov/2026:13:20:00 -0330]"),
        ("LINT-14", "[23/Nov/2026:06:50:00 +1400]"),
    ],
    indirect=["zone"],
)
def test_the_time_is_that_of_the_machine(zone: None, time: str) -> None:
    assert time in formatter("common")(RECORD)


@pytest.mark.parametrize("zone", ["UTC0"], indirect=True)
def test_each_record_has_its_own_second(zone: None) -> None:
    line = formatter("common")
    seconds = [
        re.findall(r":(\d\d) \+", line(RECORD._replace(when=WHEN + after)))[0] for after in (0, 0.5, 1, 0)
    ]
    assert seconds == ["00", "00", "01", "00"]


def test_json() -> None:
    assert json.loads(formatter("json")(RECORD)) == {
        "time": "2026-11-22T16:50:00.250000Z",
        "remote_addr": "192.0.2.1",
        "remote_user": RECORD.user,
        "method": "GET",
        "target": "/a%20b?c=d",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 1234,
        "duration_us": 12346,
        "referer": "https://example.org/",
        "user_agent": "Mozilla/5.0 (X11)",
        "host": "www.example.org",
        "pid": 4711,
        "note": "",
    }


def test_json_has_the_same_keys_for_every_record() -> None:
    line = formatter("json")
    assert list(json.loads(line(REFUSED))) == list(json.loads(line(RECORD)))
    assert json.loads(line(REFUSED._replace(status=0)))["status"] is None


@given(micros=st.integers(0, 4_000_000_000_000_000))
def test_json_time_is_exact(micros: int) -> None:
    text = json.loads(formatter("json")(RECORD._replace(when=micros / 1e6)))["time"]
    parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")
    assert abs((parsed - datetime.fromtimestamp(0, UTC)).total_seconds() - micros / 1e6) < 2e-6


def test_an_unknown_format() -> None:
    with pytest.raises(KeyError):
        formatter("xml")


TEXT = st.text(st.characters(max_codepoint=255))
RECORDS = st.builds(
    Record,
    when=st.floats(0, 4e9),
    duration=st.floats(0, 1e6),
    peer=st.ip_addresses().map(str) | st.just(""),
    user=TEXT,
    method=TEXT,
    target=TEXT,
    version=TEXT,
    status=st.sampled_from([0, 200, 404]),
    sent=st.integers(0),
    referer=TEXT,
    agent=TEXT,
    host=TEXT,
    note=TEXT,
    pid=st.integers(1),
)

FIELD = r'"(?:[^"\\]|\\.)*"'
LINE = {
    "common": rf"\S+ - \S+ \[[^\]]+\] {FIELD} \S+ \S+",
    "combined": rf"\S+ - \S+ \[[^\]]+\] {FIELD} \S+ \S+ {FIELD} {FIELD}",
    "json": r"\{.*\}",
}


@pytest.mark.parametrize("name", FORMATS)
@given(record=RECORDS)
def test_w11_one_line_of_printable_ascii_per_record(name: str, record: Record) -> None:
    line = formatter(name)(record)
    assert re.fullmatch(r"[ -~]+", line)
    assert re.fullmatch(LINE[name], line)


@given(record=RECORDS)
def test_w11_json_gives_everything_back(record: Record) -> None:
    parsed = json.loads(formatter("json")(record))
    assert parsed["target"] == record.target
    assert parsed["user_agent"] == record.agent
    assert parsed["note"] == record.note


@given(text=TEXT)
def test_w11_no_text_escapes_to_that_of_another(text: str) -> None:
    """Reading Apache's escapes back gives the text: nothing is lost, nothing can be forged."""
    back = {"b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
    plain = re.sub(
        r"\\(?:x([0-9a-f]{2})|(.))",
        lambda match: chr(int(match[1], 16)) if match[1] else back[match[2]],
        escaped(text),
    )
    assert plain == text


@given(text=st.text(st.characters(min_codepoint=256)))
def test_w11_text_beyond_latin_1_is_shown_as_utf_8(text: str) -> None:
    shown = bytes.fromhex(escaped(text).replace("\\x", ""))
    assert shown == text.encode("utf-8", "surrogatepass")
