"""The application of the load "flask": a table of 20 rows, by a Jinja template that escapes them."""

from __future__ import annotations

from flask import Flask, render_template, request

application = Flask(__name__)

ARTICLES = [
    {"number": number, "title": f"Nuts & bolts, size <{number}>", "author": "O'Brien", "price": number * 1.25}
    for number in range(20)
]


@application.get("/", defaults={"number": 0})
@application.get("/articles/<int:number>")
def page(number: int) -> str:
    title = f"Article {number}, page {request.args.get('page', 1, type=int)}"
    return render_template("articles.html", title=title, number=number, articles=ARTICLES)
