"""What is wrong with the application, as fields of a record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stardust.http1.head import Head, HeadReader, Limits
from stardust.http1.response import ResponseWriter
from stardust.logs.log import Log, Sink
from stardust.worker import complaints
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import Exchange
from tests.journald import Journal, Record

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def head(*lines: str) -> Head:
    found = HeadReader(Limits(8190, 100, 65536)).read(
        "\r\n".join(["GET /a?b HTTP/1.0", *lines, "", ""]).encode()
    )
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    "identity",
    [
        "7",
        "a" * 128,
        "c0ffee00-1234-5678-9abc-def012345678",
        "Root=1-67891233-abcdef012345678912345678",
        "a+/=",
    ],
    ids=["one", "128", "UUID", "Amazon's", "base64"],
)
def test_the_request(identity: str) -> None:
    request = head(f"X-Request-Id: {identity}")
    assert complaints.of_request(request, request.fields) == {
        "STARDUST_REQUEST": "GET /a?b HTTP/1.0",
        "REQUEST_ID": identity,
    }


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("X-Request-Id:",),
        ("X-Request-Id: " + "a" * 129,),
        ("X-Request-Id: a b",),
        ("X-Request-Id: \xe9",),
    ],
    ids=["absent", "empty", "129", "a blank", "not ASCII"],
)
def test_a_request_without_an_id_to_trust(lines: tuple[str, ...]) -> None:
    request = head(*lines)
    assert complaints.of_request(request, request.fields) == {"STARDUST_REQUEST": "GET /a?b HTTP/1.0"}


def test_an_id_of_the_application() -> None:
    assert "REQUEST_ID" not in complaints.of_request(head(), {"HTTP_X_REQUEST_ID": 7})


def test_no_request() -> None:
    assert complaints.of_request(None, {}) == {}


def test_nothing_was_raised() -> None:
    assert complaints.of_frame(None) == {}
    assert complaints.of_frame(ValueError("never raised")) == {}


def complaint(tmp_path: Path, app: Callable[..., object]) -> Record:
    """The one record that a request for `app` leaves."""
    journald = Journal(tmp_path / "socket")
    report = complaints.recorder(Log("worker 3", sink=Sink(journald.path)))
    exchange = Exchange(head(), ResponseWriter(), lambda data: None, None, False, DATE, report)
    environ: Environ = {}
    exchange.run(app, environ)  # type: ignore[arg-type]
    journald.close()
    [record] = journald.records
    return record


def test_the_frame_that_raised(tmp_path: Path) -> None:
    """The innermost one, though it may be a library's."""

    def app(environ: Environ, start_response: object) -> object:
        return json.loads("{")

    record = complaint(tmp_path, app)
    assert record["MESSAGE"].startswith("worker 3: GET /a?b: application error\nTraceback")
    assert (record["CODE_FILE"], record["CODE_FUNC"]) == (json.decoder.__file__, "raw_decode")


def test_a_broken_rule(tmp_path: Path) -> None:
    """It is raised in the server, and yet the application's: the frame is the one that called."""

    def app(environ: Environ, start_response: Callable[..., object]) -> object:
        start_response("nonsense", [])
        start_response("nonsense", [])
        return []

    record = complaint(tmp_path, app)
    assert (record["CODE_FILE"], record["CODE_FUNC"]) == (__file__, "app")


def test_a_broken_rule_that_nobody_stands_for(tmp_path: Path) -> None:
    """There is no frame of the application's any more; what is left says that it is the server's."""
    record = complaint(tmp_path, lambda environ, start_response: None)
    assert "returned None" in record["MESSAGE"]
    assert record["CODE_FILE"] == complaints.__file__
