"""The way of a request, from its bytes to the next one; and what an application may do."""

from __future__ import annotations

import gc
import gzip
import io
import os
from collections.abc import Iterable
from pathlib import Path

import h11
import pytest

from stardust.base.records import replace
from stardust.settings.table import Config
from stardust.worker import outbox
from stardust.worker.connection import Connection
from stardust.wsgi import input as spools
from tests.worker.harness import (
    PATTERN,
    Client,
    Environ,
    Gate,
    Server,
    StartResponse,
    answering,
    chunked,
    echo,
    request,
    tcp_door,
    unix_door,
    with_large,
)


class TestRequests:
    def test_a_plain_one(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            answer = client.get("/a?b")
            assert (answer.status, answer.body) == (200, b"GET /a?b\n")
            assert answer.headers["content-length"] == "9"
            assert not answer.closes

    @pytest.mark.parametrize("kind", ["path", "abstract"])
    def test_over_a_unix_socket(self, kept: Config, kind: str, tmp_path: Path) -> None:
        seen: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            seen.append(environ)
            return echo(environ, start_response)

        name = str(tmp_path / "socket") if kind == "path" else f"\0stardust-test-{os.getpid()}"
        with Server(app, kept, [unix_door(name)]) as server, Client(server.address) as client:
            assert client.get("/a").status == 200
        assert (seen[0]["REMOTE_ADDR"], seen[0]["REMOTE_PORT"]) == ("", "0")
        assert (seen[0]["SERVER_NAME"], seen[0]["SERVER_PORT"]) == ("localhost", "80")

    def test_several_doors(self, kept: Config, tmp_path: Path) -> None:
        doors = [tcp_door(), unix_door(str(tmp_path / "socket")), tcp_door()]
        with Server(echo, kept, doors):
            for door in doors:
                with Client(door.socket.getsockname()) as client:
                    assert client.get("/a").body == b"GET /a\n"

    @pytest.mark.parametrize(("most", "served"), [(1, 1), (3, 3), (0, 20)], ids=["one", "three", "no limit"])
    def test_s7_so_many_on_a_connection(self, kept: Config, most: int, served: int) -> None:
        with (
            Server(echo, replace(kept, max_keepalive_reqs=most)) as server,
            Client(server.address) as client,
        ):
            for number in range(1, served + 1):
                assert client.get(f"/{number}").closes is (number == most)
            if most:
                client.ended()

    @pytest.mark.parametrize(
        ("head", "connection"),
        [
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close", "close"),
            ("GET / HTTP/1.0", "close"),
            ("GET / HTTP/1.0\r\nConnection: keep-alive", "keep-alive"),
        ],
        ids=["close", "1.0", "1.0 keep-alive"],
    )
    def test_as_the_client_wants_it(self, kept: Config, head: str, connection: str) -> None:
        """RFC 9112 9.3."""
        with Server(echo, kept) as server, Client(server.address) as client:
            client.send(f"{head}\r\n\r\n".encode())
            assert client.receive().headers["connection"] == connection
            if connection == "close":
                client.ended()

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
    def test_in_any_segments(self, kept: Config, size: int) -> None:
        stream = (
            request("GET", "/1")
            + request("POST", "/2", body=b"body")
            + request("POST", "/3", "Transfer-Encoding: chunked")
            + chunked(b"a chunk", b"and another")
            + request("GET", "/4")
        )
        with Server(echo, kept) as server, Client(server.address) as client:
            for start in range(0, len(stream), size):
                client.send(stream[start : start + size])
                server.settled()
            bodies = [client.receive().body for _ in range(4)]
        assert bodies == [b"GET /1\n", b"POST /2\nbody", b"POST /3\na chunkand another", b"GET /4\n"]

    def test_the_date_goes_with_the_time(self, kept: Config) -> None:
        with Server(echo, kept) as server, Client(server.address) as client:
            first = client.get().headers["date"]
            server.advance(0.999)
            assert client.get().headers["date"] == first == "Fri, 15 Jan 2027 08:16:40 GMT"
            server.advance(0.001)
            assert client.get().headers["date"] == "Fri, 15 Jan 2027 08:16:41 GMT"

    def test_a_connection_leaves_no_cycle(self, kept: Config) -> None:
        """Else its buffers live until the collector comes by."""

        gc.disable()
        try:
            with Server(echo, kept) as server:
                for _ in range(3):
                    with Client(server.address) as client:
                        client.get("/", "Connection: close")
                        client.ended()
                server.settled()
                port = str(server.address[1])
                kept_alive = [each for each in gc.get_objects() if type(each) is Connection]
                assert port not in [each.environ["SERVER_PORT"] for each in kept_alive]
        finally:
            gc.enable()


class TestSlowReaders:
    def test_s4_the_worker_is_free_while_somebody_reads_slowly(self, kept: Config) -> None:
        with (
            Server(with_large(), kept) as server,
            Client(server.address, 4096) as slow,
            Client(server.address) as other,
        ):
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            assert other.get("/a").body == b"GET /a\n"
            assert slow.receive().body == PATTERN * 20
            assert slow.get("/b").body == b"GET /b\n"

    def test_memory_first_then_the_disk(self, kept: Config) -> None:
        pieces = [PATTERN[:65536]] * 320

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return iter(pieces)

        with Server(app, kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/"))
            server.until(lambda loop: loop.book.sending.members)
            (connection,) = server.ask(lambda loop: list(loop.book.sending.members))
            assert connection.outbox is not None
            assert connection.unsent > 10 * outbox.MEMORY
            assert connection.outbox._share.held <= outbox.MEMORY
            assert slow.receive().body == b"".join(pieces)

    def test_the_application_waits_at_the_limit(self, kept: Config) -> None:
        unsent: list[int] = []
        servers: list[Server] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            for _ in range(200):
                unsent.extend(each.unsent for each in list(servers[0].loop.book.connections.values()))
                yield PATTERN[:65536]

        config = replace(kept, max_response_buffer=4 * 65536)
        with Server(app, config) as server, Client(server.address, 4096) as slow:
            servers.append(server)
            slow.send(request("GET", "/"))
            assert slow.receive().body == PATTERN[:65536] * 200
        assert len(unsent) == 200
        assert max(unsent) <= 4 * 65536

    def test_s3_the_application_does_not_wait_for_ever(self, kept: Config) -> None:
        yielded: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            for number in range(1000):
                yielded.append(number)
                yield PATTERN[:65536]

        config = replace(kept, max_response_buffer=65536, timeout=0.05)
        with Server(app, config) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/"))
            server.until(lambda loop: server.records)
            assert [each.note for each in server.records] == ["client gone"]
            assert len(yielded) < 1000
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()

    def test_s3_who_reads_nothing_is_cut_off(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            server.advance(300)
            assert [(each.status, each.note) for each in server.records] == [(200, "timeout")]
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()

    def test_s3_no_part_is_taken_for_the_whole(self, kept: Config) -> None:
        """A body that the end of the connection ends (HTTP/1.0) must not end so when it was cut."""
        pieces = [PATTERN] * 20

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return iter(pieces)

        with Server(app, kept) as server, Client(server.address, 4096) as slow:
            slow.send(b"GET / HTTP/1.0\r\n\r\n")
            server.until(lambda loop: loop.book.sending.members)
            server.advance(300)
            with pytest.raises(ConnectionResetError):
                slow.receive()

    def test_s3_who_reads_a_little_is_not(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large"))
            server.until(lambda loop: loop.book.sending.members)
            (connection,) = server.ask(lambda loop: list(loop.book.sending.members))
            for _ in range(3):
                server.advance(299)
                before = connection.unsent
                while connection.unsent == before:
                    slow._rest += slow.socket.recv(1 << 16)
                server.settled()
            assert slow.receive().body == PATTERN * 20

    def test_the_next_request_waits_for_the_response(self, kept: Config) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            slow.send(request("GET", "/large") + request("GET", "/next"))
            server.until(lambda loop: loop.book.sending.members)
            assert slow.receive().body == PATTERN * 20
            assert slow.receive().body == b"GET /next\n"

    def test_p7_the_disk_is_full_for_a_response(self, kept: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        with Server(with_large(), kept) as server, Client(server.address, 4096) as slow:
            monkeypatch.setattr(spools, "temporary_file", lambda: io.FileIO("/dev/full", "wb"))
            slow.send(request("GET", "/large"))
            server.until(lambda loop: server.records)
            assert [each.note for each in server.records] == ["client gone"]
            with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
                slow.receive()


class TestApplications:
    def test_it_fails_before_the_head(self, kept: Config) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/bad":
                raise RuntimeError("on purpose")
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            assert client.get("/bad").status == 500
            assert client.get("/good").status == 200
            assert [each.note for each in server.records][:1] == ["application error"]

    @pytest.mark.parametrize(
        ("head", "headers", "error"),
        [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [], (h11.RemoteProtocolError, ConnectionResetError)),
            (b"GET / HTTP/1.0\r\n\r\n", [], (ConnectionResetError,)),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                [("Content-Length", "9")],
                (h11.RemoteProtocolError, ConnectionResetError),
            ),
        ],
        ids=["chunked: no last chunk", "until close: reset", "length: too short"],
    )
    def test_it_fails_after_the_head(
        self, kept: Config, head: bytes, headers: list[tuple[str, str]], error: tuple[type[Exception], ...]
    ) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", headers)
            yield b"part"
            raise RuntimeError("on purpose")

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(head)
            with pytest.raises(error):
                client.receive()
            server.settled()
            assert [(each.status, each.sent, each.note) for each in server.records] == [
                (200, 4, "application error")
            ]

    def test_it_gives_less_than_it_promised(self, kept: Config) -> None:
        app = answering(iter([b"1234"]), ("Content-Length", "5"))
        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/"))
            with pytest.raises(h11.RemoteProtocolError):
                client.receive()
            server.settled()
            assert server.records[0].note == "body shorter than Content-Length"

    def test_it_streams(self, kept: Config) -> None:
        app = answering(str(number).encode() for number in range(100))
        with Server(app, kept) as server, Client(server.address) as client:
            answer = client.get()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"".join(b"%d" % number for number in range(100))

    def test_every_part_leaves_at_once(self, kept: Config) -> None:
        """PEP 3333: servers "must not delay the transmission of any block"."""
        gate = Gate()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Length", "2")])
            yield b"1"
            gate.wait()
            yield b"2"

        with Server(app, kept) as server, Client(server.address) as client:
            client.send(request("GET", "/"))
            gate.reached()
            received = b""
            while not received.endswith(b"\r\n\r\n1"):
                received += client.socket.recv(1000)
            gate.open()
            assert client.socket.recv(1000) == b"2"

    @pytest.mark.parametrize("offset", [0, 1000])
    def test_a_file(self, kept: Config, offset: int, tmp_path: Path) -> None:
        """By sendfile(2), to a slow reader, from where the file stands; it is closed long before the end."""
        path = tmp_path / "file"
        path.write_bytes(PATTERN * 5)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            file = path.open("rb")
            file.seek(offset)
            result: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
            return result

        with Server(app, kept) as server, Client(server.address, 4096) as client:
            client.send(request("GET", "/"))
            server.until(lambda loop: loop.book.sending.members)
            path.unlink()
            answer = client.receive()
            assert answer.headers["content-length"] == str(len(PATTERN) * 5 - offset)
            assert answer.body == (PATTERN * 5)[offset:]

    def test_a_file_that_is_none_on_disk(self, kept: Config, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "file.gz", "wb") as compressed:
            compressed.write(PATTERN)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            result: Iterable[bytes] = environ["wsgi.file_wrapper"](gzip.GzipFile(tmp_path / "file.gz"))
            return result

        with Server(app, kept) as server, Client(server.address) as client:
            assert client.get().body == PATTERN

    def test_early_hints(self, kept: Config) -> None:
        """RFC 8297."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
            environ["stardust.informational"]("102 Processing", [])
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            answer = client.get()
            assert answer.interim == [(103, {"link": "</style.css>; rel=preload"}), (102, {})]
            assert answer.status == 200

    def test_w9_harakiri_that_cannot_be_asked(self, kept: Config) -> None:
        """It was set, so it is meant; what the application put there ends no loop."""

        class Moody:
            def __bool__(self) -> bool:
                raise SystemExit(1)

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environ["stardust.harakiri.commit"] = Moody()
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            assert client.get().status == 200
            server.settled()
            assert server.announced == ["leaving"]

    def test_harakiri(self, kept: Config) -> None:
        """The worker leaves after this response, and says so."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            assert environ["stardust.harakiri"] is True
            environ["stardust.harakiri.commit"] = environ["PATH_INFO"] == "/commit"
            return echo(environ, start_response)

        with Server(app, kept) as server, Client(server.address) as client:
            client.get("/stay")
            assert server.announced == []
            assert client.get("/commit").status == 200
            server.settled()
            server.advance(2)
            server.ended()
            assert server.announced == ["leaving"]
