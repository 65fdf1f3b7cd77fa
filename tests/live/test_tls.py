"""HTTPS, with real clients and real processes: who is let in, what the application learns, and that nothing
is lost when certificates, workers and generations change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.certificates import EC, RSA, Authority, Issued
from tests.live.apps.versions import install, serving
from tests.live.client import PATIENCE, BrokenError, Connection, get, request
from tests.live.harness import APPS, Gate, Server, gated, listening
from tests.live.secure import SecureConnection, SecureLoad, presented, trusting

PATTERN = bytes(range(251)) * 41780  # 10 MiB and a little; no two records are alike
KEEPING = 'max-keepalive-reqs = 0\nkeepalive-timeout = "1h"\nmax-reqs-per-child = 0\n'


class Realm:
    """Who issues, and what was issued: for the whole module, not to be changed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = Authority(place, "root")
        self.localhost = self.root.issue("localhost", sans=["DNS:localhost", "IP:127.0.0.1"])
        self.shop = self.root.issue("shop.example", sans=["DNS:shop.example", "DNS:*.shop.example"])
        self.jo = self.root.issue("jo", subject="/O=Example/CN=Jo Doe", client=True)
        self.mallory = Authority(place, "stranger").issue("mallory", client=True)

    def settings(self, *more: Issued) -> str:
        """TLS at every listener."""
        paths = [str(each.both) for each in (self.localhost, *more)]
        return f"ssl = true\nssl-cert-file = {json.dumps(paths)}\n"

    def trusting(self, **more: object) -> ssl.SSLContext:
        return trusting(self.root.certificate, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Realm:
    return Realm(tmp_path_factory.mktemp("realm"))


@pytest.fixture
def served(realm: Realm, tmp_path: Path) -> Issued:
    """The certificate of localhost, where it may be changed."""
    copies = [tmp_path / each.name for each in realm.localhost]
    for copy, original in zip(copies, realm.localhost, strict=True):
        shutil.copy(original, copy)
    return Issued(*copies)


def pair(issued: Issued) -> str:
    return f'ssl = true\nssl-cert-file = "{issued.certificate}"\nssl-key-file = "{issued.key}"\n'


def der(issued: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.certificate.read_text())


# ── What the application learns ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_https(tmp_path: Path, realm: Realm, kind: str) -> None:
    address = ("127.0.0.1", 0) if kind == "tcp" else str(tmp_path / "http.sock")
    with (
        listening(address) as listener,
        Server(tmp_path, realm.settings() + KEEPING, sockets={"https": listener}) as server,
    ):
        server.ready()
        with SecureConnection(server.address, realm.trusting()) as connection:
            environ = connection.variables()
            assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")
            port = str(server.address[1]) if kind == "tcp" else "443"
            assert (environ["SERVER_PORT"], environ["SSL_TLS_SNI"]) == (port, "localhost")
            cipher = connection.tls.cipher()
            assert cipher is not None
            assert (environ["SSL_PROTOCOL"], environ["SSL_CIPHER"]) == ("TLSv1.3", cipher[0])
            assert (environ["SSL_CLIENT_VERIFY"], environ["SSL_CLIENT_CERT"]) == ("NONE", "")
            connection.send(request("GET", "/variables", "SSL-Client-Verify: SUCCESS", "HTTPS: off"))
            environ = json.loads(connection.receive().body)
            assert (environ["SSL_CLIENT_VERIFY"], environ["HTTPS"]) == ("NONE", "on")


def test_one_server_has_both(tmp_path: Path, realm: Realm) -> None:
    """And each is told what it takes when it gets the other."""
    settings = realm.settings().replace("ssl = true", "ssl = false")
    settings += "[listen.http]\n[listen.https]\nssl = true\n"
    with (
        listening() as plain,
        listening() as secure,
        Server(tmp_path, settings, sockets={"http": plain, "https": secure}) as server,
    ):
        server.ready()
        environ = json.loads(get(plain.getsockname(), "/variables").body)
        assert environ["wsgi.url_scheme"] == "http"
        assert not [name for name in environ if name == "HTTPS" or name.startswith("SSL_")]
        with SecureConnection(secure.getsockname(), realm.trusting()) as connection:
            assert connection.variables()["wsgi.url_scheme"] == "https"
        answer = get(secure.getsockname())
        assert (answer.status, answer.closes) == (400, True)
        assert answer.text == "This port speaks HTTPS only. Use https:// instead of http://.\n"
        with pytest.raises(ssl.SSLError):
            SecureConnection(plain.getsockname(), realm.trusting())


def test_l14_a_proxy_that_passes_tls_on_says_who_the_client_is(
    tmp_path: Path, realm: Realm, listener: socket.socket
) -> None:
    """Its PROXY header comes before the handshake, in one piece with it or not."""
    settings = f'{realm.settings()}{KEEPING}proxy-protocol = true\ntrusted-proxies = "127.0.0.1"\n'
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n"
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        for said in (header, header[:10]):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = realm.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
            with Connection(server.address) as connection:
                connection.send(said)
                rest, done = header[len(said) :], False
                while not done:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        client.do_handshake()
                        done = True
                    connection.send(rest + outgoing.read())
                    rest = b""
                    if not done:
                        incoming.write(connection.socket.recv(65536))
                client.write(request("GET", "/variables", "Connection: close"))
                connection.send(outgoing.read())
                answer, more = b"", b"."
                while more:
                    try:
                        more = client.read(65536)
                        answer += more
                    except ssl.SSLWantReadError:
                        incoming.write(connection.socket.recv(65536))
            environ = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.1", "4711")
            assert (environ["HTTPS"], environ["SSL_TLS_SNI"]) == ("on", "localhost")


def test_a_reload_that_turns_it_on_leaves_plain_connections_plain(
    tmp_path: Path, realm: Realm, listener: socket.socket
) -> None:
    """They go to workers of the new generation, and stay what they are."""
    settings = "max-workers = 1\n" + KEEPING
    with Server(tmp_path, settings, sockets={"http": listener}) as server:
        server.ready()
        with Connection(server.address) as kept:
            kept.send(request("GET", "/pid"))
            before = kept.receive().text
            server.configure(realm.settings() + settings)
            assert server.control("reload").code == 0
            kept.send(request("GET", "/pid"))
            assert kept.receive().text != before
            kept.send(request("GET", "/variables"))
            environ = json.loads(kept.receive().body)
            assert (environ["wsgi.url_scheme"], environ.get("HTTPS")) == ("http", None)
        with SecureConnection(server.address, realm.trusting()) as connection:
            assert connection.variables()["HTTPS"] == "on"


def test_nobody_pays_for_tls_who_does_not_speak_it(
    tmp_path: Path, realm: Realm, listener: socket.socket
) -> None:
    """The supervisor never does, and a server without TLS nowhere."""
    with Server(tmp_path, "max-workers = 1\n", sockets={"http": listener}) as server:
        server.ready()
        assert not [pid for pid in server.processes() if loads_openssl(pid)]
        server.configure(realm.settings() + "max-workers = 1\n")
        assert server.control("reload").code == 0
        with SecureConnection(server.address, realm.trusting()) as connection:
            assert loads_openssl(int(connection.get("/pid")))
        assert not loads_openssl(server.pid)


def loads_openssl(pid: int) -> bool:
    return "libssl" in Path(f"/proc/{pid}/maps").read_text()


# ── Who is let in ─────────────────────────────────────────────────────────────────────────────────────


def answers(server: Server, context: ssl.SSLContext) -> dict[str, str]:
    """What the application learns of this client. An error of the handshake may come with the first answer:
    in TLS 1.3 a client has done its part before its certificate is looked at."""
    with SecureConnection(server.address, context) as connection:
        environ = connection.variables()
        return {name: value for name, value in environ.items() if name.startswith("SSL_CLIENT")}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificates(
    tmp_path: Path, realm: Realm, listener: socket.socket, version: ssl.TLSVersion
) -> None:
    def client(certificate: Issued | None) -> ssl.SSLContext:
        return realm.trusting(certificate=certificate, version=version)

    base = f'{realm.settings()}ssl-ca-file = "{realm.root.certificate}"\nmax-workers = 1\n'
    with Server(tmp_path, base, sockets={"https": listener}) as server:
        server.ready()
        assert answers(server, client(realm.jo))["SSL_CLIENT_VERIFY"] == "NONE"

        server.configure(base + 'ssl-verify-mode = "optional"\n')
        assert server.control("reload").code == 0
        assert answers(server, client(None))["SSL_CLIENT_VERIFY"] == "NONE"
        found = answers(server, client(realm.jo))
        assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert found["SSL_CLIENT_S_DN"] == "CN=Jo Doe,O=Example"
        assert found["SSL_CLIENT_I_DN"] == "CN=root"
        assert found["SSL_CLIENT_CERT"] == realm.jo.certificate.read_text()
        with pytest.raises((OSError, BrokenError)):
            answers(server, client(realm.mallory))

        server.configure(base + "ssl-verify-mode = 3\n")
        assert server.control("reload").code == 0
        assert answers(server, client(realm.jo))["SSL_CLIENT_VERIFY"] == "SUCCESS"
        for certificate in (None, realm.mallory):
            with pytest.raises((OSError, BrokenError)):
                answers(server, client(certificate))


def test_the_name_chooses_the_certificate(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    with Server(tmp_path, realm.settings(realm.shop), sockets={"https": listener}) as server:
        server.ready()
        for name in ("shop.example", "www.shop.example"):
            assert presented(server.address, name) == der(realm.shop)
            with SecureConnection(server.address, realm.trusting(), name) as connection:
                assert connection.variables()["SSL_TLS_SNI"] == name
        for other in ("localhost", "a.b.shop.example", "nobody.example", None):
            assert presented(server.address, other) == der(realm.localhost)


def test_13_only(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    settings = f'{realm.settings()}ssl-min-version = "1.3"\n'
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            SecureConnection(server.address, realm.trusting(version=ssl.TLSVersion.TLSv1_2))
        with SecureConnection(server.address, realm.trusting()) as connection:
            assert connection.variables()["SSL_PROTOCOL"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("offered", "agreed"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None)]
)
def test_alpn(
    tmp_path: Path, realm: Realm, listener: socket.socket, offered: list[str], agreed: str | None
) -> None:
    with Server(tmp_path, realm.settings(), sockets={"https": listener}) as server:
        server.ready()
        with SecureConnection(server.address, realm.trusting(protocols=offered)) as connection:
            assert connection.tls.selected_alpn_protocol() == agreed
            assert connection.get() == "hello\n"


# ── Standing checks, by programs that others trust ────────────────────────────────────────────────────


def program(*command: str, told: str = "") -> str:
    """What it says, when it is told so much."""
    found = shutil.which(command[0])
    assert found is not None, f"{command[0]} is missing: apt-get install {command[0]}"
    done = subprocess.run(
        command, input=told, capture_output=True, text=True, timeout=10 * PATIENCE, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=["EC", "RSA"])
def scanned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, realm: Realm
) -> Iterator[str]:
    """The port of a server as it is by default."""
    place = tmp_path_factory.mktemp("scanned")
    site = realm.root.issue("localhost", file=request.param, kind={"EC": EC, "RSA": RSA}[request.param])
    settings = f'ssl = true\nssl-cert-file = "{site.both}"\nmax-workers = 2\n'
    with listening() as listener, Server(place, settings, sockets={"https": listener}) as server:
        server.ready()
        yield str(listener.getsockname()[1])


def test_sslscan_finds_nothing_weak(scanned: str) -> None:
    document = program("sslscan", "--no-colour", "--xml=-", f"127.0.0.1:{scanned}")
    found = ElementTree.fromstring(document[document.index("<document") :])
    protocols = {
        f"{each.get('type')} {each.get('version')}": each.get("enabled") for each in found.iter("protocol")
    }
    assert {name for name, enabled in protocols.items() if enabled == "1"} == {"tls 1.2", "tls 1.3"}
    ciphers = {str(each.get("cipher")) for each in found.iter("cipher")}
    assert len(ciphers) == 6
    for name in ciphers:
        assert name.startswith(("TLS_AES", "TLS_CHACHA20", "ECDHE-"))
        assert name.endswith(("-GCM-SHA256", "-GCM-SHA384", "_SHA256", "_SHA384", "-POLY1305"))
    assert {each.get("supported") for each in found.iter("renegotiation")} == {"0"}
    assert {each.get("supported") for each in found.iter("compression")} <= {"0"}
    assert {each.get("vulnerable") for each in found.iter("heartbleed")} == {"0"}


def test_nmap_gives_the_best_grade_to_everything(scanned: str) -> None:
    text = program("nmap", "-p", scanned, "--script", "ssl-enum-ciphers", "127.0.0.1")
    assert set(re.findall(r"(TLSv[0-9.]+|SSLv[0-9]): ", text)) == {"TLSv1.2", "TLSv1.3"}
    assert "least strength: A" in text
    assert "warnings" not in text
    assert set(re.findall("cipher preference: (.*)", text)) == {"server"}


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_openssl_gets_no_older_version(scanned: str, version: str) -> None:
    """Even with all that it would usually refuse itself."""
    command = (
        "openssl",
        "s_client",
        version,
        "-cipher",
        "ALL:@SECLEVEL=0",
        "-connect",
        f"127.0.0.1:{scanned}",
    )
    text = program(*command)
    assert "alert protocol version" in text
    assert "Cipher is (NONE)" in text


def test_openssl_is_told_that_there_is_no_renegotiation(scanned: str) -> None:
    text = program("openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{scanned}", told="R\n")
    assert "RENEGOTIATING" in text
    assert "no renegotiation" in text


# ── Bytes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("threads", [1, 2])
def test_bodies_of_all_sizes(tmp_path: Path, realm: Realm, listener: socket.socket, threads: int) -> None:
    settings = f"{realm.settings()}{KEEPING}threads = {threads}\nmax-workers = 1\n"
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        with SecureConnection(server.address, realm.trusting()) as connection:
            for size in (1, 16383, 16384, 16385, 32768, 32769, 1 << 20, len(PATTERN)):
                body = PATTERN[:size]
                connection.send(request("POST", "/digest", body=body))
                assert connection.receive().text == f"{size} {hashlib.sha256(body).hexdigest()}"
                connection.send(request("POST", "/echo", body=body))
                assert connection.receive().body == body


def test_files_and_pieces(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    file = tmp_path / "file"
    file.write_bytes(PATTERN)
    settings = realm.settings() + KEEPING
    app = APPS / "pieces.py"
    with Server(tmp_path, settings, app=app, sockets={"https": listener}) as server:
        server.ready()
        with SecureConnection(server.address, realm.trusting()) as connection:
            connection.send(request("GET", f"/file?path={file}"))
            assert connection.receive().body == PATTERN
            numbers = [str(number) for number in range(200) for _ in range(1000)]
            assert connection.get("/pieces").split() == numbers


def test_s8_a_pipeline(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    """Many requests in a record, and many records in a segment: none of them waits for more to come."""
    with Server(tmp_path, realm.settings() + KEEPING, sockets={"https": listener}) as server:
        server.ready()
        with SecureConnection(server.address, realm.trusting()) as connection:
            connection.send(200 * request("POST", "/echo", body=PATTERN[:1000]))
            for _ in range(200):
                assert connection.receive().body == PATTERN[:1000]


def test_w5_a_response_that_is_cut_can_be_told_from_a_whole_one(
    tmp_path: Path, realm: Realm, listener: socket.socket
) -> None:
    """Also in HTTP/1.0, where only the end of the connection says where the body ends."""
    with Server(
        tmp_path, realm.settings(), app=APPS / "pieces.py", sockets={"https": listener}, trouble="."
    ) as server:
        server.ready()
        for target, whole in (("/pieces", True), ("/cut", False)):
            with SecureConnection(server.address, realm.trusting()) as connection:
                connection.send(f"GET {target} HTTP/1.0\r\n\r\n".encode())
                with (
                    contextlib.nullcontext() if whole else pytest.raises((ConnectionResetError, ssl.SSLError))
                ):
                    connection.receive()


# ── Others ────────────────────────────────────────────────────────────────────────────────────────────


def test_s1_slow_handshakes_hold_nobody_up_and_have_their_end(
    tmp_path: Path, realm: Realm, listener: socket.socket
) -> None:
    """Silent ones, ones that drip, and junk, beside clients that behave."""
    settings = f"{realm.settings()}{KEEPING}max-workers = 2\nhandshake-timeout = 1\n"
    hello = client_hello(realm)
    with Server(tmp_path, settings, sockets={"https": listener}) as server, contextlib.ExitStack() as stack:
        server.ready()
        slow = [stack.enter_context(Connection(server.address)) for _ in range(300)]
        with SecureLoad(server.address, realm.trusting()) as load:
            for position in range(20):
                for connection in slow[100:200]:
                    with contextlib.suppress(ConnectionError):
                        connection.send(hello[position : position + 1])
                for connection in slow[200:]:
                    with contextlib.suppress(ConnectionError):
                        connection.send(random.Random(position).randbytes(20))
                load.await_answers(20)
            for connection in slow:
                with contextlib.suppress(ConnectionError):
                    while connection.socket.recv(65536):
                        pass
            load.await_answers(20)
        assert not load.failures
        assert load.connections == 4
        for pid in server.workers():
            assert len(os.listdir(f"/proc/{pid}/fd")) < 50


def test_s9_clients_that_vanish_leave_nothing_behind(
    tmp_path: Path, realm: Realm, listener: socket.socket
) -> None:
    """At any point of handshake and request, by an end and by a reset."""
    settings = f"{realm.settings()}{KEEPING}max-workers = 1\n"
    hello = client_hello(realm)
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        [pid] = server.workers()
        before = len(os.listdir(f"/proc/{pid}/fd"))
        for size in range(0, len(hello) + 1, 20):
            for reset in (False, True):
                with Connection(server.address) as connection:
                    connection.send(hello[:size])
                    linger(connection, reset)
        for reset in (False, True):
            with SecureConnection(server.address, realm.trusting()) as secure:
                secure.send(request("GET", "/long", "Connection: close")[:-1])
                linger(secure, reset)
        with SecureConnection(server.address, realm.trusting()) as last:
            # Whoever came before it is gone when the worker has heard of the ends; those come in any order.
            for _ in range(200):
                assert last.get() == "hello\n"
                if len(os.listdir(f"/proc/{pid}/fd")) == before + 1:
                    break
            assert len(os.listdir(f"/proc/{pid}/fd")) == before + 1


def linger(connection: Connection, reset: bool) -> None:
    if reset:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def client_hello(realm: Realm) -> bytes:
    """The first words of a client."""
    said = ssl.MemoryBIO()
    client = realm.trusting().wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


# ── Sessions ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_at_any_worker_of_a_generation(
    tmp_path: Path, realm: Realm, gate: Gate, listener: socket.socket, version: ssl.TLSVersion
) -> None:
    """With the client's certificate; and begun anew at the next generation, without an error."""
    settings = f'{realm.settings()}{KEEPING}ssl-ca-file = "{realm.root.certificate}"\n'
    settings += 'ssl-verify-mode = "required"\nmax-workers = 3\n'
    with Server(tmp_path, settings, sockets={"https": listener}) as server, contextlib.ExitStack() as stack:
        server.ready()
        context = realm.trusting(version=version, certificate=realm.jo)

        def connect(session: ssl.SSLSession | None) -> SecureConnection:
            return stack.enter_context(SecureConnection(server.address, context, session=session))

        first = connect(None)
        assert first.variables()["SSL_SESSION_RESUMED"] == "Initial"
        session = first.tls.session
        pids = set()
        held = []
        # A worker that is held takes nobody: so each is met in turn.
        for _ in range(3):
            connection = connect(session)
            environ = connection.variables()
            assert environ["SSL_SESSION_RESUMED"] == "Resumed"
            assert (environ["SSL_CLIENT_VERIFY"], environ["SSL_CLIENT_S_DN"]) == (
                "SUCCESS",
                "CN=Jo Doe,O=Example",
            )
            assert environ["SSL_CLIENT_CERT"] == realm.jo.certificate.read_text()
            connection.send(request("GET", gated(gate.path)))
            held.append(gate.arrival())
            pids.add(held[-1].pid)
        assert len(pids) == 3
        for each in held:
            each.release()
        assert server.control("reload").code == 0
        assert connect(session).variables()["SSL_SESSION_RESUMED"] == "Initial"


# ── What changes under load ───────────────────────────────────────────────────────────────────────────


def test_certificates_change_under_load(
    tmp_path: Path, realm: Realm, served: Issued, listener: socket.socket
) -> None:
    """Each worker notices by itself; no handshake and no request fails, and nobody keeps the old one."""
    settings = f"{pair(served)}max-workers = 2\nmax-reqs-per-child = 0\nmax-keepalive-reqs = 5\n"
    others = [realm.root.issue("localhost", file=f"localhost-{number}") for number in range(5)]
    trouble = "cannot be taken over"  # who looks between the two files sees half of the change, and says so
    with Server(tmp_path, settings, sockets={"https": listener}, trouble=trouble) as server:
        server.ready()
        with SecureLoad(server.address, realm.trusting()) as load:
            for other in others:
                served.replace(other)
                seen = 0
                while seen < 20:  # a row that is long enough to have met both workers
                    load.await_answers(5)
                    seen = seen + 1 if presented(server.address) == der(other) else 0
        assert not load.failures
        assert "new connections get this certificate" in server.log


def test_half_a_change_is_told_and_changes_nothing(
    tmp_path: Path, realm: Realm, served: Issued, listener: socket.socket
) -> None:
    settings = f"{pair(served)}max-workers = 1\n"
    with Server(tmp_path, settings, sockets={"https": listener}, trouble="this key does not") as server:
        server.ready()
        served.key.write_bytes(realm.shop.key.read_bytes())
        while "cannot be taken over" not in server.log:
            assert presented(server.address) == der(realm.localhost)
        assert (
            f"{served.key}: this key does not belong to the certificate in {served.certificate}" in server.log
        )
        verdict = server.control("reload")
        assert verdict.code == 1
        assert f"{served.key}: this key does not belong to the certificate" in verdict.err
        assert presented(server.address) == der(realm.localhost)
        served.replace(realm.shop)
        assert server.control("reload").code == 0
        assert presented(server.address) == der(realm.shop)


@pytest.mark.parametrize("threads", [1, 2])
def test_p4_reloads_under_load(tmp_path: Path, realm: Realm, listener: socket.socket, threads: int) -> None:
    """Connections that cannot move are told to close, with an answer; who does loses nothing."""
    app = tmp_path / "shop.py"
    install(app, serving("one"))
    settings = f"{realm.settings()}{KEEPING}max-workers = 2\nthreads = {threads}\n"
    with Server(tmp_path, settings, app=app, sockets={"https": listener}) as server:
        server.ready()
        with SecureLoad(server.address, realm.trusting(), clients=8) as load:
            for number in range(10):
                install(app, serving(f"version {number}"))
                assert server.control("reload").code == 0
                load.await_answers(50)
        assert not load.failures
        assert load.connections > 10
        assert load.answers["version 9"]


def test_workers_are_replaced_under_load(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    settings = f"{realm.settings()}max-workers = 2\nmax-keepalive-reqs = 0\nmax-reqs-per-child = 50\n"
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        before = server.workers().keys()
        with SecureLoad(server.address, realm.trusting()) as load:
            load.await_answers(500)
        assert not load.failures
        assert not before & server.workers().keys()


def test_a_leaving_worker_answers_and_closes(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    settings = f"{realm.settings()}{KEEPING}max-workers = 1\n"
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        with SecureConnection(server.address, realm.trusting()) as connection:
            before = connection.get("/pid")
            assert server.control("reload").code == 0
            connection.send(request("GET", "/pid"))
            answer = connection.receive()
            assert (answer.text, answer.closes) == (before, True)
            connection.ended()


def test_a_stop_ends_idle_connections_in_order(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    """Without a word at first, for they may ask once more; then they are told that this is all."""
    settings = f"{realm.settings()}{KEEPING}max-workers = 1\n"
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        with (
            SecureConnection(server.address, realm.trusting()) as idle,
            SecureConnection(server.address, realm.trusting()) as asking,
        ):
            assert idle.get() == asking.get() == "hello\n"
            server.signal(signal.SIGTERM)
            server.expect("STOPPING", "1")
            asking.send(request("GET", "/"))
            assert asking.receive().status == 200
            asking.ended()
            idle.ended()
        assert server.wait() == 0


def test_a_long_request_does_not_cost_others_their_connection(
    tmp_path: Path, realm: Realm, gate: Gate, listener: socket.socket
) -> None:
    """With one thread, those of the same worker wait for it: they cannot go to the other. New ones do."""
    settings = f"{realm.settings()}{KEEPING}max-workers = 2\nhandshake-timeout = 1\n"
    with Server(tmp_path, settings, sockets={"https": listener}) as server, contextlib.ExitStack() as stack:
        server.ready()
        kept = [stack.enter_context(SecureConnection(server.address, realm.trusting())) for _ in range(20)]
        pids = [each.get("/pid") for each in kept]
        [one] = {kept[0]}
        one.send(request("GET", gated(gate.path)))
        held = gate.arrival()
        assert str(held.pid) == pids[0]
        for each in kept[1:]:
            each.send(request("GET", "/pid"))
        with SecureConnection(server.address, realm.trusting()) as fresh:
            assert fresh.get("/pid") != pids[0]
        for each, pid in zip(kept[1:], pids[1:], strict=True):
            if pid != pids[0]:
                assert each.receive().text == pid
        held.release()
        assert one.receive().text == "let go\n"
        for each, pid in zip(kept[1:], pids[1:], strict=True):
            if pid == pids[0]:
                assert each.receive().text == pid


# ── Other ways to run it ──────────────────────────────────────────────────────────────────────────────


def test_without_workers(tmp_path: Path, realm: Realm, listener: socket.socket) -> None:
    with Server(tmp_path, f"{realm.settings()}max-workers = 0\n", sockets={"https": listener}) as server:
        server.ready()
        with SecureConnection(server.address, realm.trusting()) as connection:
            assert connection.variables()["HTTPS"] == "on"


def test_another_interpreter(tmp_path: Path, realm: Realm, served: Issued, listener: socket.socket) -> None:
    """PyPy has an `ssl` of its own making."""
    pypy = shutil.which("pypy3")
    assert pypy is not None, "pypy3 is missing: apt-get install pypy3"
    authorities = f'ssl-ca-file = "{realm.root.certificate}"\nssl-verify-mode = "optional"\n'
    settings = f'{pair(served)}{KEEPING}{authorities}python = "{pypy}"\nmax-workers = 2\n'
    with Server(tmp_path, settings, sockets={"https": listener}) as server:
        server.ready()
        context = realm.trusting(certificate=realm.jo)
        with SecureConnection(server.address, context) as connection:
            assert connection.variables()["SSL_CLIENT_S_DN"] == "CN=Jo Doe,O=Example"
            connection.send(request("POST", "/echo", body=PATTERN))
            assert connection.receive().body == PATTERN
        with SecureLoad(server.address, realm.trusting()) as load:
            load.await_answers(50)
            served.replace(realm.shop)
            while presented(server.address) != der(realm.shop):
                load.await_answers(1)
            assert server.control("reload").code == 0
        assert not [each for each in load.failures if "CERTIFICATE_VERIFY_FAILED" not in each]


WRONG = [
    pytest.param("shop", "this key does not belong to the certificate in", id="key of another one"),
    pytest.param("both", "others may use this secret: change its mode from", id="open to all"),
]


@pytest.mark.parametrize(("which", "reason"), WRONG)
def test_p5_wrong_certificates_are_found_before_anybody_is_served(
    tmp_path: Path, realm: Realm, served: Issued, listener: socket.socket, which: str, reason: str
) -> None:
    """By --check-config, at the start, and by a reload, which then changes nothing."""
    settings = "max-workers = 1\n"
    with Server(tmp_path, settings, sockets={"http": listener}, trouble=".") as server:
        server.ready()
        if which == "shop":
            served.key.write_bytes(realm.shop.key.read_bytes())
        else:
            served.key.chmod(0o644)
        server.configure(pair(served) + settings)
        verdict = server.control("reload")
        assert verdict.code == 1
        assert f"ssl-key-file: {served.key}: {reason}" in verdict.err
        assert server.get().status == 200
    check = subprocess.run(
        [sys.executable, "-m", "stardust", "--config", str(server.config), "--check-config"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert check.returncode == 6
    assert f"ssl-key-file: {served.key}: {reason}" in check.stderr
    place = tmp_path / "again"
    place.mkdir()
    with Server(place, pair(served), sockets={"http": listener}, trouble=".") as server:
        assert server.wait() == 6
        assert any(f"{served.key}: {reason}" in status for status in server.manager.said("STATUS"))
