"""The clients of test_tls.py: as those of client.py and load.py, over TLS, and as distrustful.

An end of a connection that was not announced (close_notify) is an error, as one within a response is.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

from tests.certificates import Issued
from tests.live.client import PATIENCE, Address, BrokenError, Connection, request


def trusting(
    *authorities: Path,
    certificate: Issued | None = None,
    version: ssl.TLSVersion | None = None,
    protocols: list[str] | None = None,
) -> ssl.SSLContext:
    """What a client trusts, and what it has to show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Python lets an end that nobody announced pass for one that was.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    for authority in authorities:
        context.load_verify_locations(authority)
    if certificate is not None:
        context.load_cert_chain(certificate.both)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    return context


class SecureConnection(Connection):
    """One connection over TLS. Raises ssl.SSLError where the handshake fails."""

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(address)
        plain = self.socket
        try:
            self.tls = context.wrap_socket(
                plain, server_hostname=name, session=session, suppress_ragged_eofs=False
            )
        except BaseException:
            plain.close()
            raise
        self.socket = self.tls

    def get(self, target: str = "/", *headers: str) -> str:
        """The text at a target; the connection stays."""
        self.send(request("GET", target, *headers))
        response = self.receive()
        assert response.status == 200, response
        return response.text

    def variables(self) -> dict[str, Any]:
        """What the application learns: apps/probe.py."""
        found: dict[str, Any] = json.loads(self.get("/variables"))
        return found


class SecureLoad:
    """Clients that keep their connections until they are told to close them, never retry, and count.

    `failures` holds what went wrong; `answers` counts what was answered, `connections` how often one was
    made. All may be read at any time.
    """

    def __init__(
        self, address: Address, context: ssl.SSLContext, clients: int = 4, target: str = "/"
    ) -> None:
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self.connections = 0
        self._address, self._context, self._target = address, context, target
        self._over = threading.Event()
        self._counted = threading.Condition()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def await_answers(self, count: int) -> None:
        """Waits until `count` more requests than now were answered."""
        with self._counted:
            goal = self.answers.total() + count
            assert self._counted.wait_for(lambda: self.answers.total() >= goal, PATIENCE), self.failures[-3:]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with SecureConnection(self._address, self._context) as connection:
                    self.connections += 1
                    self._use(connection)
            except (BrokenError, OSError, AssertionError) as error:
                self.failures.append(repr(error))

    def _use(self, connection: SecureConnection) -> None:
        while not self._over.is_set():
            connection.send(request("GET", self._target))
            response = connection.receive()
            if response.status != 200:
                raise BrokenError(f"{response.status}")
            with self._counted:
                self.answers[response.text[:32]] += 1
                self._counted.notify_all()
            if response.closes:
                connection.ended()
                return


def presented(address: Address, name: str | None = None) -> bytes:
    """The certificate, in DER, that a client gets who asks for that name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Connection(address) as connection:
        plain: socket.socket = connection.socket
        with context.wrap_socket(plain, server_hostname=name) as tls:
            found = tls.getpeercert(binary_form=True)
            assert found is not None
            return found
