"""A Flask application with the four things a server must get right: paths, forms, streams and errors."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "<h1>Flask under stardust</h1>\n"


@app.get("/hello/<name>")
def hello(name: str) -> Response:
    return Response(f"Hello, {name}!\n", mimetype="text/plain")


@app.post("/echo")
def echo() -> Response:
    text = "".join(f"{key}={value}\n" for key, value in request.form.items())
    return Response(text, mimetype="text/plain")


@app.get("/stream")
def stream() -> Response:
    """A body whose length nobody knows: it goes out in chunks, as it is made."""

    def lines() -> Iterator[str]:
        for number in range(1, 6):
            yield f"line {number}\n"

    return Response(lines(), mimetype="text/plain")
