"""The examples are served as a user would serve them: by their own files, through systemd's own tool."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.live.client import Address, Response, exchange, get, request
from tests.live.harness import KINDS, Server, activation

EXAMPLES = Path(__file__).parents[2] / "examples"


def post(address: Address, target: str, form: str, *headers: str) -> Response:
    form_type = "Content-Type: application/x-www-form-urlencoded"
    return exchange(
        address, request("POST", target, form_type, "Connection: close", *headers, body=form.encode())
    )


def visit_hello(address: Address) -> None:
    response = get(address)
    assert response.status == 200
    assert "Hello" in response.text


def visit_flask(address: Address) -> None:
    assert "Flask" in get(address).text
    assert get(address, "/hello/Ada%20L").text == "Hello, Ada L!\n"
    assert post(address, "/echo", "a=1&b=2").text == "a=1\nb=2\n"
    stream = get(address, "/stream")
    assert stream.header("Transfer-Encoding") == "chunked"
    assert stream.text == "".join(f"line {number}\n" for number in range(1, 6))
    assert get(address, "/nowhere").status == 404


def visit_django(address: Address) -> None:
    """Signs the guest book: template, form with CSRF token, SQLite."""
    page = get(address)
    assert "Guest book" in page.text
    cookie = page.values("Set-Cookie")[0].partition(";")[0]
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token is not None
    signed = post(address, "/", f"csrfmiddlewaretoken={token[1]}&name=Ada", f"Cookie: {cookie}")
    assert (signed.status, signed.header("Location")) == (302, "/")
    assert "<li>Ada</li>" in get(address).text
    assert post(address, "/", "name=Mallory").status == 403


VISITS = {"hello": visit_hello, "flask": visit_flask, "django": visit_django}


def test_every_example_is_visited() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(VISITS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VISITS)
def test_example(tmp_path: Path, name: str, kind: str) -> None:
    config, control = EXAMPLES / name / "stardust.toml", tmp_path / "control"
    arguments = ["--config", str(config), "--control-socket", str(control), "--max-workers=2"]
    environ = {"GUESTBOOK_DATABASE": str(tmp_path / "guestbook.sqlite3")}
    with (
        activation(kind, tmp_path) as (launcher, address),
        Server(tmp_path, None, arguments=arguments, launcher=launcher, environ=environ) as server,
    ):
        server.await_log("Listening on")
        VISITS[name](address)
        server.ready()
