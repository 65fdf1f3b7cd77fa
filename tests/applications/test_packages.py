"""Real packages, as their manuals tell to use them: preloaded where that is safe, and right in any case."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.applications.postgres import Cluster
from tests.applications.until import until
from tests.live.client import PATIENCE
from tests.live.harness import Server

WORKERS = 3

SERVE = """
import os
from urllib.parse import unquote

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer(unquote(environ["QUERY_STRING"]))).encode()]
"""


def settings(packages: Path, more: str = "") -> str:
    return (
        f'python = "{packages}"\nmax-workers = {WORKERS}\nmain-process-delay = "10ms"\n'
        f"max-keepalive-reqs = 0\nmax-reqs-per-child = 0\n{more}"
    )


def held(server: Server) -> list[str]:
    holds: list[str] = server.status()["preload"]["holds"]
    return holds


def application(directory: Path, code: str) -> Path:
    app = directory / "shop.py"
    app.write_text(code + SERVE)
    return app


# ── Databases ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


SQLALCHEMY = """
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, text
engine = create_engine("postgresql+psycopg://postgres@/postgres?host=PLACE")
metadata = MetaData()
Table("visits", metadata, Column("id", Integer, primary_key=True))
metadata.create_all(engine)  # its connection goes back to the pool, and waits there
def answer(asked):
    with engine.connect() as connection:
        row = connection.execute(text("SELECT :asked, pg_backend_pid()"), {"asked": asked}).one()
        return f"{row[0]} {row[1]}"
"""
DISPOSED = SQLALCHEMY.replace("def answer", "engine.dispose()\ndef answer")
PSYCOPG = """
import psycopg
connection = psycopg.connect("user=postgres dbname=postgres host=PLACE", autocommit=True)
def answer(asked):
    row = connection.execute("SELECT %s, pg_backend_pid()", (asked,)).fetchone()
    return f"{row[0]} {row[1]}"
"""
POOL = """
from psycopg_pool import ConnectionPool
pool = ConnectionPool("user=postgres dbname=postgres host=PLACE", min_size=2, open=True)
pool.wait()
def answer(asked):
    with pool.connection() as connection:
        row = connection.execute("SELECT %s, pg_backend_pid()", (asked,)).fetchone()
    return f"{row[0]} {row[1]}"
"""
LATE = """
from psycopg_pool import ConnectionPool
pool = ConnectionPool("user=postgres dbname=postgres host=PLACE", min_size=2, open=False)
def answer(asked):
    with pool.connection() as connection:
        row = connection.execute("SELECT %s, pg_backend_pid()", (asked,)).fetchone()
    return f"{row[0]} {row[1]}"
"""
# What is there, what of it is found, and the requests of each of 20 clients.
DATABASES = {
    "SQLAlchemy": (SQLALCHEMY, "", "connection to {place}/.s.PGSQL.5432 ", 500),
    "SQLAlchemy, disposed of": (DISPOSED, "", "", 100),
    "psycopg": (PSYCOPG, "", "connection to {place}/.s.PGSQL.5432 ", 100),
    "psycopg_pool": (POOL, "", 'thread "pool-1-', 100),
    "psycopg_pool, opened after the fork": (
        LATE,
        'after-fork = "shop:pool.open"\nbefore-exit = "shop:pool.close"\n',
        "",
        100,
    ),
}
CLIENTS = 20


def rows(address: tuple[str, int], client: int, requests: int) -> list[tuple[str, str]]:
    """What a client with one connection has asked, and what it was answered."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    answers = []
    for number in range(requests):
        asked = f"{client}-{number}"
        connection.request("GET", f"/?{asked}")
        answers.append((asked, connection.getresponse().read().decode()))
    connection.close()
    return answers


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", DATABASES)
def test_rows_of_a_database(
    tmp_path: Path, listener: socket.socket, packages: Path, cluster: Cluster, name: str
) -> None:
    """Nobody gets the row of another: with the defaults, and as they ought to be used."""
    code, more, told, requests = DATABASES[name]
    place = str(cluster.directory)
    app = application(tmp_path, code.replace("PLACE", place))
    text = settings(packages, f'chdir = "{tmp_path}"\n{more}')
    with Server(tmp_path, text, app=app if not more else "shop", sockets={"http": listener}) as server:
        server.ready()
        if told:
            assert any(each.startswith(told.format(place=place)) for each in held(server)), held(server)
        else:
            assert held(server) == []
        address = listener.getsockname()
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(lambda client: rows(address, client, requests), range(CLIENTS)))
        told_rows = [each for own in answers for each in own]
        assert len(told_rows) == CLIENTS * requests
        assert not [(asked, answer) for asked, answer in told_rows if answer.split(" ")[0] != asked]
        assert len({answer.split(" ")[1] for _, answer in told_rows}) >= 2


# ── Telemetry: threads that their owners start again ──────────────────────────────────────────────────

OPENTELEMETRY = """
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

class Exporter(SpanExporter):
    def export(self, spans):
        with open("spans", "a") as file:
            file.write("".join(f"{span.name} {os.getpid()}\\\\n" for span in spans))
        return SpanExportResult.SUCCESS

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=50))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")
with tracer.start_as_current_span("loading"):
    pass
def answer(asked):
    with tracer.start_as_current_span(asked):
        return os.getpid()
"""


def test_opentelemetry(tmp_path: Path, listener: socket.socket, packages: Path) -> None:
    """Preloaded, and each worker's spans come from its own thread, without a flush."""
    app = application(tmp_path, OPENTELEMETRY.replace("\\\\n", "\\n"))
    text = settings(packages, f'chdir = "{tmp_path}"\n')
    with Server(tmp_path, text, app=app, sockets={"http": listener}) as server:
        server.ready()
        assert held(server) == []
        wanted = {f"request-{number} {server.get(f'/?request-{number}').text}" for number in range(30)}
        until(lambda: wanted <= set((tmp_path / "spans").read_text().splitlines()))


SENTRY = """
import os, sentry_sdk
sentry_sdk.init("http://key@127.0.0.1:PORT/1", traces_sample_rate=1.0)
sentry_sdk.capture_message("loading")
def answer(asked):
    sentry_sdk.capture_message(f"message {asked} of {os.getpid()}.")
    return os.getpid()
"""


class Sentry(http.server.BaseHTTPRequestHandler):
    """Takes what is sent to it."""

    received = b""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, 31)
        Sentry.received += body
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_sentry(tmp_path: Path, listener: socket.socket, packages: Path) -> None:
    """Preloaded, though it has sent from a thread while it was imported; each worker's messages arrive."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sentry) as sentry:
        serving = threading.Thread(target=sentry.serve_forever)
        serving.start()
        try:
            app = application(tmp_path, SENTRY.replace("PORT", str(sentry.server_port)))
            trouble = "EventletDeprecationWarning"  # it looks for whatever is there
            with Server(
                tmp_path, settings(packages), app=app, sockets={"http": listener}, trouble=trouble
            ) as server:
                server.ready()
                assert [each for each in held(server) if each.startswith("thread")] == []
                wanted = [f"message {number} of {server.get(f'/?{number}').text}." for number in range(30)]
                until(lambda: all(each.encode() in Sentry.received for each in wanted))
        finally:
            sentry.shutdown()
            serving.join()


# ── Others ────────────────────────────────────────────────────────────────────────────────────────────

NUMPY = """
import numpy
numpy.dot(numpy.ones((300, 300)), numpy.ones((300, 300)))  # OpenBLAS has threads of its own
numpy.random.seed(1)
def answer(asked):
    product = numpy.dot(numpy.ones((300, 300)), numpy.ones((300, 300)))
    return f"{os.getpid()} {product[0][0]} {numpy.random.random()}"
"""


def test_numpy(tmp_path: Path, listener: socket.socket, packages: Path) -> None:
    """Preloaded, its threads serve after the fork too, and no two workers draw the same."""
    app = application(tmp_path, NUMPY)
    with Server(tmp_path, settings(packages), app=app, sockets={"http": listener}) as server:
        server.ready()
        assert held(server) == []
        answers = [server.get().text.split() for _ in range(40)]
        assert {product for _, product, _ in answers} == {"300.0"}
        assert len({pid for pid, _, _ in answers}) > 1
        assert len({drawn for _, _, drawn in answers}) == len(answers)


PROMETHEUS = """
from prometheus_client import Gauge, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
alive = Gauge("alive", "Workers", multiprocess_mode="livesum")
def begin():
    alive.set(1)
def died(pid, cause):
    mark_process_dead(pid)
def answer(asked):
    if asked == "pid":
        return os.getpid()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry).decode()
"""


def test_prometheus(tmp_path: Path, listener: socket.socket, packages: Path) -> None:
    """Workers that were killed do not count as alive."""
    directory = tmp_path / "metrics"
    directory.mkdir()
    application(tmp_path, PROMETHEUS)
    more = f'chdir = "{tmp_path}"\nafter-fork = "shop:begin"\nafter-death = "shop:died"\n'
    text = settings(packages, f"{more}[environment]\nPROMETHEUS_MULTIPROC_DIR = '{directory}'\n")
    with Server(tmp_path, text, app="shop", sockets={"http": listener}, trouble="ended: killed") as server:
        server.ready()
        assert held(server) == []
        assert f"alive {WORKERS}.0" in server.get().text
        killed = int(server.get("/?pid").text)
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in server.workers() and server.status()["ready"] == WORKERS)
        assert f"alive {WORKERS}.0" in server.get().text
        assert server.control("reload").code == 0
        until(lambda: len(server.workers()) == WORKERS)
        assert f"alive {WORKERS}.0" in server.get().text
        workers = server.workers()
    left = {int(each.stem.rpartition("_")[2]) for each in directory.glob("gauge_livesum_*")}
    assert not left & {killed, *workers}  # those of zygotes are there, which have counted 0
