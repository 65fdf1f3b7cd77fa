"""Applications that do whatever a run of bytes says: right, careless, and malicious.

What an application is handed and what it hands back is drawn from `Choices`; the same bytes make the same
application. Its texts may be subclasses that lie when they are asked, its lists may change while they are
read, its iterables may fail at every step.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from stardust.wsgi.environ import Environ

Part = TypeVar("Part")
StartResponse = Callable[..., Callable[[bytes], object]]

EVIL = "x\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"


class Choices:
    """Takes decisions from bytes, one each; 0 for ever when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def below(self, number: int) -> int:
        return next(self._bytes, 0) % number

    def pick(self, parts: Sequence[Part]) -> Part:
        return parts[self.below(len(parts))]

    def seldom(self) -> bool:
        return self.below(8) == 7


class LyingText(str):
    """Is one thing when it is checked, and wants to be another when it is used."""

    def encode(self, *_: object) -> bytes:
        return EVIL.encode()

    def lower(self) -> str:
        return "x-innocent"

    def __getitem__(self, _: object) -> str:
        return "204"

    def __str__(self) -> str:
        return EVIL

    def __len__(self) -> int:
        return 1

    def __format__(self, _: str) -> str:
        return EVIL


class LyingBytes(bytes):
    """Says it is shorter than it is."""

    def __len__(self) -> int:
        return 1

    def __bytes__(self) -> bytes:
        return b"0\r\n\r\n"

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, _: object) -> bytes:  # type: ignore[override]
        return b"0\r\n\r\n"


class LyingList(list[Any]):
    """Iterates over what it does not hold."""

    def __iter__(self) -> Iterator[Any]:
        return iter([("X-Lie", EVIL)])

    def __len__(self) -> int:
        return 1


class Body:
    """An iterable whose `close` is counted, and may fail; so may each step."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def __iter__(self) -> Iterator[Any]:
        for piece in self._script.pieces:
            self._script.step()
            yield piece
        self._script.step()

    def close(self) -> None:
        self._script.closed += 1
        self._script.step()


class AwkwardBody(Body):
    """Has a `close` that cannot even be looked up."""

    @property
    def close(self) -> Callable[[], None]:
        self._script.closed += 1
        raise RuntimeError("no close")


class SpeechlessError(Exception):
    """Cannot be told."""

    def __str__(self) -> str:
        raise SystemExit("said nothing")


# What is usual comes first: the first seven statuses and pieces, nine names, fourteen values.
# fmt: off
STATUSES: Sequence[Any] = (
    "200 OK", "200 OK", "404 Not Found", "204 No Content", "304 Not Modified", "205 Reset Content", "206 ",
    "999 \xe4", "200", "100 Continue", "101 Switching Protocols", "000 x", "200 OK\r\nX: y", "200 \x00",
    "200 \u20ac", 200, None, b"200 OK", LyingText("200 OK"), LyingText("204 No Content"),
    "\u0662\u0660\u0660 OK",
)
NAMES: Sequence[Any] = (
    "Content-Length", "content-length", "X-A", "X-A", "Date", "Server", "Set-Cookie", "Connection",
    "COnnection",
    "Transfer-Encoding", "tRANSFER-eNCODING", "Upgrade", "Trailer", "TE", "Keep-Alive", "Proxy-Connection",
    "",
    "X A", "X:", "X\r\nY", "\xe4", "X\x00", b"X", None, LyingText("Transfer-Encoding"), LyingText("X-B"),
    LyingText("Content-Length"), "Content-Length ", " Content-Length",
)
VALUES: Sequence[Any] = (
    "0", "1", "5", "005", "12", "a", "", "close", "keep-alive", "upgrade", "chunked", "\xe4", "a\tb", " 5 ",
    "-1", "+5", "5, 5", "0x5", "5\r\nX: y", "a\r\n b", "a\rb", "a\nb", "\x00", "\x7f", "\u20ac", "\u0665",
    b"5",
    5, None, EVIL, LyingText("5"), LyingText("a"), "9" * 18, "9" * 30,
)
PIECES: Sequence[Any] = (
    b"", b"a", b"hello", b"0\r\n\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"x" * 70_000,
    LyingBytes(b"hello"), "text", None, bytearray(b"a"), 5,
)
FAULTS = (
    ValueError, SpeechlessError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError,
    OSError,
)
# fmt: on


class Script:
    """One application. `closed` counts how often its body was closed, if that is `closable`; `named` are the
    fields that it may send."""

    def __init__(self, data: bytes) -> None:
        choices = self._choices = Choices(data)
        self.closed = 0
        self.closable = False
        self.version = choices.pick(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0"))
        self.method = choices.pick(("GET", "GET", "HEAD", "POST"))
        self.kept = not choices.seldom()
        # After so many steps something is raised; mostly never.
        self._steps = choices.below(12) if choices.seldom() else -1
        self._fault = choices.pick(FAULTS)
        wild = choices.below(3) > 0  # a third of all takes the usual only
        self.status = choices.pick(STATUSES if wild else STATUSES[:7])
        pairs = [self._pair(wild) for _ in range(choices.below(4))]
        names = [str.__str__(name) for name, _ in pairs if isinstance(name, str)]
        self.named = {name.lower().encode("latin-1") for name in names}
        self.headers: Any = LyingList(pairs) if choices.seldom() and wild else pairs
        self.pieces = [choices.pick(PIECES if wild else PIECES[:7]) for _ in range(choices.below(5))]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        choices = self._choices
        self.step()
        if choices.seldom():
            environ["wsgi.errors"] = None
        if choices.seldom():
            environ["wsgi.early_hints"]([self._pair(choices.seldom())])
        write = start_response(self.status, self.headers)
        if choices.seldom():
            self.headers.append(("X-Late", EVIL))
        if choices.seldom():
            self.headers[:] = [("Content-Length", "3")]
        self.step()
        if choices.seldom():
            start_response(self.status, self.headers)
        while choices.seldom():
            write(choices.pick(PIECES))
        if choices.seldom():
            try:
                raise LookupError("oops")
            except LookupError:
                start_response("500 Oops", [("X-Error", "1")], sys.exc_info())
        self.step()
        return self._body(environ, choices.below(8))

    def step(self) -> None:
        """Where it may fail."""
        self._steps -= 1
        if self._steps == 0:
            raise self._fault("as planned")

    def _pair(self, wild: bool) -> Any:
        name = self._choices.pick(NAMES if wild else NAMES[:9])
        value = self._choices.pick(VALUES if wild else VALUES[:14])
        return [name, value] if wild and self._choices.seldom() else (name, value)

    def _body(self, environ: Environ, kind: int) -> Any:
        if kind == 0:
            return self.pieces
        if kind == 1:
            return tuple(self.pieces)
        if kind == 2:
            return self._choices.pick((None, 5, b"bytes", "text", LyingList(self.pieces)))
        self.closable = kind != 6
        if kind == 3:
            return AwkwardBody(self)
        if kind == 4:
            file = io.BytesIO(b"".join(piece for piece in self.pieces if isinstance(piece, bytes)))
            return environ["wsgi.file_wrapper"](Closing(file, self))
        if kind == 5:
            self.closable = False
            real = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by whom it is given to
            real.write(b"0123456789")
            real.seek(self._choices.below(12))
            return environ["wsgi.file_wrapper"](real)
        if kind == 6:
            return iter(self.pieces)
        return Body(self)


class Closing:
    """A file that counts its close."""

    def __init__(self, file: io.BytesIO, script: Script) -> None:
        self._file = file
        self._script = script

    def read(self, size: int) -> bytes:
        self._script.step()
        return self._file.read(size)

    def close(self) -> None:
        self._script.closed += 1
        self._file.close()
        self._script.step()
