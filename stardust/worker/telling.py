"""What a worker tells: a line for each finished request in the access log, and what went wrong in its own.

- Every request that was begun has its line, however it ended. The lines of a turn of the loop are written
  together, by one write(2).
- What clients can cause as often as they like is logged once a second (`Seldom`).

Runs in the application's interpreter too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Optional

from stardust.base.errors import ClaimError
from stardust.base.pristine import os
from stardust.logs.accesslog import Record
from stardust.logs.log import Log, Seldom
from stardust.logs.logfile import LogFile
from stardust.worker.clock import Clock
from stardust.worker.connection import Connection
from stardust.wsgi import forwarded
from stardust.wsgi.environ import Environ


class AccessLog(NamedTuple):
    """Where finished requests are written, and how one becomes a line."""

    file: LogFile
    line: Callable[[Record], str]


class Telling:
    """`log` is the worker's own; without an `access_log`, `request` and `write` are not called."""

    __slots__ = ("_clock", "_pid", "_records", "_seldom", "access_log", "log")

    def __init__(self, log: Log, access_log: Optional[AccessLog], clock: Clock) -> None:
        self.log = log
        self.access_log = access_log
        self._seldom = Seldom(log)
        self._clock = clock
        self._pid = os.getpid()
        self._records: list[Record] = []  # of this turn

    def complain(self, level: str, kind: str, text: str) -> None:
        """Log what may come often: of each `kind` one message a second."""
        self._seldom.say(level, kind, text, self._clock.now)
        self._clock.wake_by(self._seldom.next())

    def claim(self, connection: Connection, claim: ClaimError) -> None:
        """Log that a header was removed: an operator whose proxy is not trusted looks for the reason."""
        peer, header = connection.environ["REMOTE_ADDR"], forwarded.header_of(claim.key)
        named = f"{peer} is not" if peer else '"unix:" is not'
        self.log.info(f"removed {header} of {peer or 'a local client'}: {named} in trusted-proxies")

    def left_out(self, name: str) -> None:
        """A field of the application's response belongs to the connection, which is ours."""
        self.log.warning(
            f"removed {name} from a response: an application must not send hop-by-hop fields (PEP 3333). The "
            "server does so from now on without saying it"
        )

    def next(self) -> float:
        """When something that was held back is due."""
        return self._seldom.next()

    def catch_up(self, moment: float) -> None:
        self._seldom.catch_up(moment)

    def request(self, connection: Connection) -> None:
        """The request of a connection is over: keep what its line says until `write`."""
        head, exchange, clock = connection.head, connection.exchange, self._clock
        peer, user, referer, agent, host = connection.said or said(head.fields if head is not None else {})
        connection.said = ()
        self._records.append(
            Record(
                connection.began + clock.wall,
                clock.now - connection.began,
                peer or connection.environ["REMOTE_ADDR"],
                user,
                head.method if head is not None else "",
                head.target if head is not None else "",
                head.version if head is not None else "",
                exchange.status if exchange is not None else 0,
                exchange.sent if exchange is not None else 0,
                referer,
                agent,
                host,
                connection.note or (exchange.note if exchange is not None else ""),
                self._pid,
            )
        )

    def user(self, connection: Connection, environ: Environ) -> None:
        """The application has returned, and may have put the name of an authenticated user into the environ.
        A client cannot do that: its field Remote-User is HTTP_REMOTE_USER (RFC 3875 4.1.11)."""
        name = environ.get("REMOTE_USER")
        if isinstance(name, str) and connection.said:
            peer, _, *rest = connection.said
            connection.said = (peer, str.__str__(name), *rest)

    def write(self) -> None:
        """One write for all requests of a turn, which become lines one behind the other."""
        if self.access_log is not None:
            file, line = self.access_log
            for record in self._records:
                file.add(line(record))
            self._records.clear()
            file.flush()


def said(fields: Mapping[str, str]) -> Sequence[str]:
    """What a request says that its line in the access log needs: peer, user, Referer, User-Agent, Host. It is
    read before the application has its environ, and may change it; the user comes later (`user`)."""
    get = fields.get
    return (
        get("REMOTE_ADDR", ""),
        "",
        get("HTTP_REFERER", ""),
        get("HTTP_USER_AGENT", ""),
        get("HTTP_HOST", ""),
    )
