"""TLS on one connection: the handshake step by step, records and epoll, slow readers, and how it ends.

The client is OpenSSL too, but in memory: the test carries its bytes, and so decides how they are cut.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import select
import socket
import ssl
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stardust.base.address import Address
from stardust.base.errors import ClientGone
from stardust.logs.log import Log
from stardust.settings.table import Config
from stardust.tls.identities import Identities, be_quiet_about_names
from stardust.worker import forked
from stardust.worker.connection import Connection, Terms
from stardust.worker.secure import Handshake, SecureSocket, greeting
from tests.certificates import Authority, Issued

PATIENCE = 20.0  # s; far beyond what anything takes
WHERE = Address("unix", path="/run/app.sock")
NOW = socket.MSG_DONTWAIT
PATTERN = bytes(range(251)) * 4178  # 1 MiB and a little; no two records are alike


class Realm:
    """Who issues, and what was issued."""

    def __init__(self, place: Path) -> None:
        self.root = Authority(place, "root")
        self.site = self.root.issue("www.example.com")
        self.jo = self.root.issue("jo", subject="/O=Example/CN=jo", client=True)
        self.stranger = Authority(place, "stranger").issue("mallory", client=True)

    def identities(self, **more: Any) -> Identities:
        authorities = str(self.root.certificate)
        return Identities(Config(ssl_cert_file=(str(self.site.both),), ssl_ca_file=authorities, **more))

    def context(self, certificate: Issued | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Python lets an end that nobody announced pass for one that was.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        context.load_verify_locations(self.root.certificate)
        if certificate is not None:
            context.load_cert_chain(certificate.both)
        return context


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Realm:
    return Realm(tmp_path_factory.mktemp("realm"))


class Wire:
    """A connection of the server, and its client: what that writes is sent by `carry`, piece by piece."""

    def __init__(
        self, realm: Realm, context: ssl.SSLContext | None = None, identities: Identities | None = None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.socket = socket.create_connection(listener.getsockname(), PATIENCE)
            accepted, _ = listener.accept()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = accepted.detach()
        sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, number)
        self.connection = Connection(sock, number, Terms(WHERE, 1 << 30, PATIENCE), {"REMOTE_ADDR": ""})
        self.greeting = greeting(identities or realm.identities(), Log("test"))(self.connection)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = (context or realm.context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname="www.example.com"
        )

    def close(self) -> None:
        self.socket.close()
        self.connection.close()

    @property
    def secure(self) -> SecureSocket:
        assert isinstance(self.connection.socket, SecureSocket)
        return self.connection.socket

    def step(self) -> bool:
        """The client's side of the handshake; whether that is done."""
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def carry(self) -> None:
        """What the client has written, to the server's socket; what came from there, to the client."""
        self.socket.sendall(self.outgoing.read())
        with contextlib.suppress(BlockingIOError):
            while data := self.socket.recv(65536):
                self.incoming.write(data)

    def shake(self) -> Wire:
        for _ in range(1000):
            done = self.step()
            self.carry()
            if self.greeting.go_on() == 0 and done:
                return self
            self.arrive()
        raise AssertionError("the handshake does not end")

    def arrive(self) -> None:
        """Waits until something has come from the server."""
        if self.incoming.pending == 0:
            select.select([self.socket], [], [], 0.01)
        self.carry()

    def say(self, data: bytes) -> None:
        self.client.write(data)
        self.carry()

    def hear(self, size: int) -> bytes:
        """What the client reads of so many bytes that were sent."""
        received = bytearray()
        while len(received) < size:
            try:
                more = self.client.read(65536)
                assert more, "the end"
                received += more
            except ssl.SSLWantReadError:
                assert select.select([self.socket], [], [], PATIENCE)[0]
                self.carry()
        return bytes(received)

    def rest(self) -> bytes:
        """What comes until the end of the connection, encrypted; ConnectionResetError if it is reset."""
        self.socket.settimeout(PATIENCE)
        data = b""
        while more := self.socket.recv(65536):
            data += more
        return data


@pytest.fixture
def wire(realm: Realm) -> Iterator[Wire]:
    wire = Wire(realm)
    yield wire
    wire.close()


# ── The handshake ─────────────────────────────────────────────────────────────────────────────────────


class TestHandshake:
    def test_the_connection_goes_on_encrypted(self, wire: Wire) -> None:
        wire.connection.environ = {"REMOTE_ADDR": "192.0.2.1"}
        assert wire.greeting.go_on() == select.EPOLLIN
        wire.shake()
        environ = wire.connection.environ
        assert environ["REMOTE_ADDR"] == "192.0.2.1"
        assert (environ["SSL_PROTOCOL"], environ["SSL_TLS_SNI"]) == ("TLSv1.3", "www.example.com")
        assert (environ["SSL_CLIENT_VERIFY"], environ["SSL_SESSION_RESUMED"]) == ("NONE", "Initial")
        assert environ["SSL_CIPHER"] == wire.client.cipher()[0]  # type: ignore[index]
        wire.say(b"hello")
        assert wire.secure.recv(100, NOW) == b"hello"

    def test_it_does_not_move_any_more(self, wire: Wire) -> None:
        assert not wire.connection.movable
        assert wire.connection.received is None

    def test_s1_byte_by_byte(self, wire: Wire) -> None:
        """Whatever comes, one call does what can be done, and says what it waits for."""
        wire.step()
        hello = wire.outgoing.read()
        for position in range(len(hello)):
            assert wire.greeting.go_on() == select.EPOLLIN
            wire.socket.sendall(hello[position : position + 1])
        wire.shake()

    def test_a_client_that_reads_nothing_is_waited_for(self, realm: Realm, tmp_path: Path) -> None:
        """Its socket takes no more of a long chain: it is the turn of EPOLLOUT."""
        chain = tmp_path / "chain.pem"
        chain.write_text(realm.site.both.read_text() + 180 * realm.root.certificate.read_text())
        chain.chmod(0o600)
        wire = Wire(realm, identities=Identities(Config(ssl_cert_file=(str(chain),))))
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        wire.step()
        wire.socket.sendall(wire.outgoing.read())
        waits = wire.greeting.go_on()
        assert waits == select.EPOLLOUT
        assert wire.greeting.go_on() == select.EPOLLOUT
        # Or the rest would come in pieces of 2 KB, with 40 ms between them.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        wire.shake()
        wire.close()

    def test_what_was_read_too_far_belongs_to_it(self, wire: Wire) -> None:
        """The greeting before it, of a proxy, may have read more than its own line."""
        wire.step()
        wire.connection.buffer = wire.outgoing.read()
        assert wire.greeting.go_on() == select.EPOLLIN
        assert wire.connection.buffer == b""
        wire.shake()

    def test_a_request_that_comes_with_its_end(self, wire: Wire) -> None:
        """A client sends its request right behind the last word of the handshake."""
        while not wire.step():
            wire.carry()
            wire.greeting.go_on()
            wire.arrive()
        wire.say(b"GET / HTTP/1.1\r\n")
        assert wire.greeting.go_on() == 0
        assert wire.secure.recv(100, NOW) == b"GET / HTTP/1.1\r\n"

    @pytest.mark.parametrize(
        ("junk", "reason"),
        [
            pytest.param(b"\x80\x2e\1\3\1", "TLS handshake: ", id="SSLv2"),
            pytest.param(bytes(5), "TLS handshake: wrong version number", id="zeros"),
            pytest.param(b"\x16\3\1\x3f\xff" + bytes(16383), "TLS handshake: ", id="a record of zeros"),
            pytest.param(b"\x16\3\1\xff\xff", "TLS handshake: ", id="record too long"),
            pytest.param(b"\x15\3\1\0\2\2\x28", "TLS handshake: ", id="alert"),
        ],
    )
    def test_junk(self, wire: Wire, junk: bytes, reason: str) -> None:
        wire.socket.sendall(junk)
        wire.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(ClientGone) as caught:
            wire.greeting.go_on()
        assert str(caught.value).startswith(reason)

    @pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"])
    def test_w12_plain_http_is_told_so(self, wire: Wire, request_line: bytes) -> None:
        wire.socket.sendall(request_line)
        with pytest.raises(ClientGone, match="TLS handshake: http request"):
            wire.greeting.go_on()
        wire.connection.close()
        head, _, body = wire.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nDate: ")
        assert b"\r\nConnection: close\r\n" in head
        assert b"\r\nContent-Length: %d" % len(body) in head
        assert body == b"This port speaks HTTPS only. Use https:// instead of http://.\n"

    def test_a_client_that_leaves(self, wire: Wire) -> None:
        wire.step()
        wire.carry()
        wire.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(ClientGone, match="TLS handshake: the client closed the connection"):
            wire.greeting.go_on()

    def test_a_client_that_resets(self, wire: Wire) -> None:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.socket.close()
        with pytest.raises(ClientGone, match="TLS handshake: Connection reset by peer"):
            wire.greeting.go_on()

    def test_a_client_that_never_gets_to_the_point(self, wire: Wire) -> None:
        """A hello of the largest size that its length can say: somewhere before its end it is too long."""
        wire.socket.settimeout(PATIENCE)
        wire.socket.sendall(b"\x16\3\1\x40\0\1\xff\xff\xff" + bytes(16380))
        with pytest.raises(ClientGone, match="TLS handshake: excessive message size"):
            wire.greeting.go_on()

    def test_a_name_that_is_not_ascii_costs_no_traceback(
        self, wire: Wire, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[object] = []
        monkeypatch.setattr("sys.unraisablehook", shown.append)
        be_quiet_about_names()
        wire.step()
        wire.socket.sendall(wire.outgoing.read().replace(b"www.example.com", b"www.ex\xe4mple.com"))
        with pytest.raises(ClientGone, match="TLS handshake: callback failed"):
            wire.greeting.go_on()
        assert shown == []
        assert capfd.readouterr().err == ""

    def test_old_protocols_are_refused_with_an_alert(self, realm: Realm) -> None:
        identities = realm.identities(ssl_min_version="1.3")
        context = realm.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        wire = Wire(realm, context, identities)
        wire.step()
        wire.carry()
        with pytest.raises(ClientGone, match="TLS handshake: unsupported protocol"):
            wire.greeting.go_on()
        wire.arrive()
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            wire.step()
        wire.close()


class TestClientCertificates:
    def facts(self, realm: Realm, mode: str, certificate: Issued | None) -> tuple[str, str]:
        wire = Wire(realm, realm.context(certificate), realm.identities(ssl_verify_mode=mode))
        try:
            environ = wire.shake().connection.environ
            return environ["SSL_CLIENT_VERIFY"], environ["SSL_CLIENT_S_DN"]
        finally:
            wire.close()

    def test_none(self, realm: Realm) -> None:
        """Nobody is asked: one that would have one is not seen."""
        assert self.facts(realm, "none", realm.jo) == ("NONE", "")

    def test_optional(self, realm: Realm) -> None:
        assert self.facts(realm, "optional", realm.jo) == ("SUCCESS", "CN=jo,O=Example")
        assert self.facts(realm, "optional", None) == ("NONE", "")
        with pytest.raises(ClientGone, match="certificate verify failed: unable to get local issuer"):
            self.facts(realm, "optional", realm.stranger)

    def test_required(self, realm: Realm) -> None:
        assert self.facts(realm, "required", realm.jo) == ("SUCCESS", "CN=jo,O=Example")
        with pytest.raises(ClientGone, match="peer did not return a certificate"):
            self.facts(realm, "required", None)
        with pytest.raises(ClientGone, match="certificate verify failed: unable to get local issuer"):
            self.facts(realm, "required", realm.stranger)

    def test_a_certificate_of_a_server_is_none_of_a_client(self, realm: Realm) -> None:
        with pytest.raises(ClientGone, match="certificate verify failed: unsuitable certificate purpose"):
            self.facts(realm, "required", realm.site)

    def test_the_certificate_itself(self, realm: Realm) -> None:
        wire = Wire(realm, realm.context(realm.jo), realm.identities(ssl_verify_mode="required")).shake()
        environ = wire.connection.environ
        assert environ["SSL_CLIENT_CERT"] == realm.jo.certificate.read_text()
        assert environ["SSL_CLIENT_I_DN"] == "CN=root"
        wire.close()


# ── Records ───────────────────────────────────────────────────────────────────────────────────────────


class TestReceiving:
    def test_nothing_is_pending_where_epoll_does_not_see_it(self, wire: Wire) -> None:
        """Many requests in one segment, each in a record of its own: all are handed out at once."""
        wire.shake()
        for number in range(100):
            wire.client.write(b"request %d\n" % number)
        wire.carry()
        assert wire.secure.recv(65536, NOW) == b"".join(b"request %d\n" % number for number in range(100))
        with pytest.raises(BlockingIOError):
            wire.secure.recv(8192, NOW)

    def test_a_record_larger_than_what_was_asked_for(self, wire: Wire) -> None:
        wire.shake()
        wire.say(PATTERN[:16384])
        received = b""
        while len(received) < 16384:
            assert select.select([wire.secure], [], [], PATIENCE)[0], "bytes are pending elsewhere"
            with contextlib.suppress(BlockingIOError):
                received += wire.secure.recv(10, NOW)
        assert received == PATTERN[:16384]

    @settings(max_examples=25)
    @given(
        sizes=st.lists(st.integers(1, 40000), min_size=1, max_size=6),
        cuts=st.lists(st.integers(1, 60000) | st.integers(1, 100), max_size=40),
    )
    def test_l13_any_cut_gives_the_same(self, realm: Realm, sizes: list[int], cuts: list[int]) -> None:
        with contextlib.closing(Wire(realm)) as wire:
            wire.shake()
            for size in sizes:
                wire.client.write(PATTERN[:size])
            cipher, received = wire.outgoing.read(), b""
            for cut in [*cuts, len(cipher)]:
                wire.socket.sendall(cipher[:cut])
                cipher = cipher[cut:]
                received += self.seen(wire, 0)
            while len(received) < sum(sizes):
                more = self.seen(wire, PATIENCE)
                assert more, "bytes are pending elsewhere"
                received += more
        assert received == b"".join(PATTERN[:size] for size in sizes)

    def seen(self, wire: Wire, seconds: float) -> bytes:
        """What the server reads as long as epoll says that there is something."""
        received = b""
        while not received and select.select([wire.secure], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                received += wire.secure.recv(8192, NOW)
        return received

    def test_the_end_that_is_announced(self, wire: Wire) -> None:
        wire.shake()
        wire.client.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            wire.client.unwrap()
        wire.carry()
        assert [wire.secure.recv(100, NOW) for _ in range(3)] == [b"last", b"", b""]

    def test_the_end_that_is_not(self, wire: Wire) -> None:
        """It is up to HTTP to know whether something is missing."""
        wire.shake()
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.secure.recv(100, NOW) == b""

    def test_a_record_that_was_tampered_with(self, wire: Wire) -> None:
        wire.shake()
        wire.client.write(b"x" * 100)
        cipher = bytearray(wire.outgoing.read())
        cipher[50] ^= 1
        wire.socket.sendall(cipher)
        with pytest.raises(OSError, match="record mac") as caught:
            wire.secure.recv(100, NOW)
        assert not isinstance(caught.value, BlockingIOError)

    def test_peeking_says_whether_something_has_come(self, wire: Wire) -> None:
        wire.shake()
        with pytest.raises(BlockingIOError):
            wire.secure.recv(1, NOW | socket.MSG_PEEK)
        wire.say(b"hello")
        assert wire.secure.recv(1, NOW | socket.MSG_PEEK)
        assert wire.secure.recv(100, NOW) == b"hello"

    def test_an_application_reads_as_from_any_socket(self, wire: Wire) -> None:
        wire.shake()
        wire.say(b"hello")
        assert (wire.secure.recv(2), wire.secure.recv(2)) == (b"he", b"ll")
        assert wire.secure.recv(8192, NOW) == b"o"


class TestSending:
    def drain(self, wire: Wire, size: int) -> bytes:
        """Has the connection flush what waits, in turns with a client that reads, as epoll would have it."""
        received = bytearray()
        while len(received) < size:
            with contextlib.suppress(ssl.SSLWantReadError):
                received += wire.client.read(65536)
                continue
            waiting = [wire.secure] if wire.connection.unsent else []
            readable, writable, _ = select.select([wire.socket], waiting, [], PATIENCE)
            assert readable or writable, "nobody goes on"
            if writable:
                wire.connection.flush()
            wire.carry()
        return bytes(received)

    def test_what_fits_leaves_at_once(self, wire: Wire) -> None:
        wire.shake()
        wire.connection.send(b"hello")
        assert wire.connection.outbox is None
        assert wire.hear(5) == b"hello"

    @pytest.mark.parametrize("pieces", [1, 7, 400])
    def test_a_slow_reader_gets_everything_in_order(self, wire: Wire, pieces: int) -> None:
        """Through memory, and past 1 MiB through a file on disk."""
        wire.shake()
        body = PATTERN + PATTERN[::-1] + PATTERN
        size = len(body) // pieces + 1
        for start in range(0, len(body), size):
            wire.connection.send(body[start : start + size])
        assert wire.connection.unsent > 0
        assert self.drain(wire, len(body)) == body
        assert wire.connection.unsent == 0

    def test_files_are_read_and_encrypted(self, wire: Wire, tmp_path: Path) -> None:
        wire.shake()
        (tmp_path / "file").write_bytes(PATTERN)
        with (tmp_path / "file").open("rb") as file:
            wire.connection.send(b"head")
            wire.connection.send_file(file.fileno(), 1000, 900_000)
            wire.connection.send(b"tail")
        expected = b"head" + PATTERN[1000:901_000] + b"tail"
        assert self.drain(wire, len(expected)) == expected

    def test_w3_a_file_that_became_shorter(self, wire: Wire, tmp_path: Path) -> None:
        wire.shake()
        (tmp_path / "file").write_bytes(PATTERN)
        with (tmp_path / "file").open("r+b") as file:
            wire.connection.send_file(file.fileno(), 0, len(PATTERN))
            file.truncate(0)
        with pytest.raises(ClientGone, match="the file ended before its announced length"):
            self.drain(wire, len(PATTERN))

    def test_a_byte_counts_when_it_has_left(self, wire: Wire) -> None:
        """Not when it was encrypted: who waits for EPOLLOUT would otherwise stop too early."""
        wire.shake()
        counted = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                counted += wire.secure.send(PATTERN[counted:], NOW)
        before = counted
        assert 0 < before < len(PATTERN)
        heard = wire.hear(1)
        assert select.select([], [wire.secure], [], PATIENCE)[1]
        with contextlib.suppress(BlockingIOError):
            counted += wire.secure.send(PATTERN[counted:], NOW)
        assert counted > before
        received = heard + self.receive_all(wire)
        assert abs(len(received) - counted) < 16384  # the client reads whole records only
        assert PATTERN.startswith(received)

    def receive_all(self, wire: Wire) -> bytes:
        received = b""
        while True:
            try:
                received += wire.client.read(65536)
            except ssl.SSLWantReadError:
                if not select.select([wire.socket], [], [], 0.05)[0]:
                    return received
                wire.carry()

    def test_a_client_that_left(self, wire: Wire) -> None:
        wire.shake()
        wire.socket.close()
        pieces = iter(lambda: wire.connection.send(PATTERN), "never")
        with pytest.raises(ClientGone):
            collections.deque(pieces, maxlen=0)


# ── The end ───────────────────────────────────────────────────────────────────────────────────────────


class TestEnd:
    def ends(self, wire: Wire) -> bool:
        """Whether the client was told that this is the end."""
        wire.incoming.write(wire.rest())
        wire.incoming.write_eof()
        try:
            while wire.client.read(65536):
                pass
        except ssl.SSLError:
            return False
        return True

    def test_it_is_announced_when_all_was_sent(self, wire: Wire) -> None:
        wire.shake().connection.send(b"response")
        wire.connection.close()
        assert self.ends(wire)

    def test_w5_a_response_that_is_cut_is_reset(self, wire: Wire) -> None:
        wire.shake().connection.send(b"resp")
        wire.connection.reset_on_close()
        wire.connection.close()
        with pytest.raises(ConnectionResetError):
            wire.rest()

    def test_it_is_not_announced_when_something_is_left(self, wire: Wire) -> None:
        wire.shake().connection.send(PATTERN)
        assert wire.connection.unsent
        wire.connection.close()
        assert not self.ends(wire)

    def test_our_side_can_end_first(self, wire: Wire) -> None:
        """The connection lingers then: what still comes is only to be read off."""
        wire.shake().connection.send(b"response")
        wire.secure.shutdown(socket.SHUT_WR)
        wire.say(b"more")
        assert wire.secure.recv(100, NOW)
        with pytest.raises(BlockingIOError):
            wire.secure.recv(100, NOW)
        assert self.ends(wire)

    def test_a_client_that_is_given_up_is_not_told_that_this_is_all(self, wire: Wire) -> None:
        wire.shake()
        wire.connection.terms = wire.connection.terms._replace(most_unsent=0, patience=0.01)
        with pytest.raises(ClientGone, match=r"it read nothing for 0\.01 s"):
            wire.connection.send(PATTERN)
        with pytest.raises(ClientGone):
            wire.connection.send(b"the application did not notice")
        wire.connection.close()

    def test_the_application_may_close_it(self, wire: Wire) -> None:
        wire.shake()
        wire.secure.close()
        wire.connection.reset_on_close()
        with pytest.raises(ClientGone):
            wire.connection.send(b"x")
        assert self.ends(wire)

    def test_a_forked_child_does_not_announce_its_parent_s(self, wire: Wire) -> None:
        wire.shake().connection.send(b"response")
        parents = os.dup(wire.connection.number)
        wire.connection.forsake()
        with pytest.raises(ClientGone):
            wire.connection.send(b"x")
        wire.connection.close()
        os.close(parents)
        assert not self.ends(wire)

    @pytest.mark.parametrize("cut", [False, True])
    def test_nobody_s_copy_holds_it(self, wire: Wire, monkeypatch: pytest.MonkeyPatch, cut: bool) -> None:
        """But one that is cut: the reset waits, and no end comes before it."""
        monkeypatch.setattr(forked, "happened", True)
        wire.shake().connection.send(b"response")
        copy = os.dup(wire.connection.number)
        if cut:
            wire.connection.reset_on_close()
            wire.connection.close()
            assert wire.hear(8) == b"response"
            with pytest.raises(ssl.SSLWantReadError):
                wire.client.read(1)
        else:
            wire.connection.close()
            assert self.ends(wire)
        os.close(copy)


@pytest.mark.parametrize("done", [True, False], ids=["after its handshake", "before"])
def test_p10_a_connection_leaves_no_cycle(realm: Realm, done: bool) -> None:
    """Else all that OpenSSL has of it lives until the collector comes by: anybody could fill the memory."""
    gc.disable()
    try:
        wire = Wire(realm)
        wire.connection.greetings = [wire.greeting]
        session = weakref.ref(wire.greeting._session)
        if done:
            wire.shake().connection.send(b"hello")
        else:
            wire.step()
            wire.carry()
            wire.greeting.go_on()
        wire.close()
        del wire
        assert session() is None
    finally:
        gc.enable()


def test_the_greeting_is_a_handshake(wire: Wire) -> None:
    assert isinstance(wire.greeting, Handshake)
