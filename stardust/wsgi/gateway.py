"""One exchange: an application is called, and its response is pushed out, by the rules of PEP 3333.

How it works: an `Exchange` is made for one request and used once, by `run` (call the application) or
`respond` (the server answers by itself). Bytes leave through `send`, a callable, so that tests pass
`list.append`; what the response's head says is `ResponseWriter.opening`'s business. Here is decided *when*
the head goes, how much of the body may follow it, and what becomes of a response that goes wrong:

    nothing was sent yet        a 500 in its place; the connection may persist
    a part was sent             no end is faked: `complete` is False, and the connection must be cut
    all of it was sent          it stands, and the connection ends after it
    Upgrade, and nothing said   the application has spoken for itself (`hand_over`)
    the client is gone          nothing more is sent; nobody's fault

Rules:
- Whatever happens, `close()` of the application's iterable is called exactly once.
- Nothing of an exchange refers to its environ or iterable when it is over, so no cycles are left to the
  collector.
- An exchange belongs to one thread.

What must change together: `_room` holds an `Opening.body`, and so knows its CHUNKED and UNTIL_CLOSE. Lines
quoted without a source are PEP 3333's.
"""

from __future__ import annotations

import stat
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Optional

from stardust.base.errors import ApplicationError, ClientGone
from stardust.base.pristine import io, os
from stardust.http1 import response
from stardust.http1.head import CHUNKED, Head
from stardust.http1.response import LAST_CHUNK, ResponseWriter, chunk
from stardust.wsgi.environ import Environ

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Application = Callable[[Environ, Callable[..., Callable[[bytes], object]]], Iterable[bytes]]
Send = Callable[[bytes], object]
SendFile = Callable[[int, int, int], object]
Report = Callable[[Optional[Head], Environ, str, Optional[BaseException]], object]

# What `Exchange.note` may say, and so the access log.
GONE = "client gone"
FAILED = "application error"
SHORT = "body shorter than Content-Length"
LONG = "body longer than Content-Length"
TAKEN = "taken over"

away: Optional[Callable[[Optional[BaseException]], NoReturn]] = None
"""In a process that the application has forked: ends it, as what was raised would (worker/forked.py). For the
application has returned in two processes, and one of them is no server."""

JOINED = 1 << 16
"""Bytes up to which it is cheaper to copy pieces together than to send them one by one."""


class FileWrapper:
    """`wsgi.file_wrapper`: a file to be sent by the kernel where that is possible, else read piece by piece.

    `filelike` has read(size); `block_size` is in bytes. "It may have a close() method, and if so, the
    iterable returned by wsgi.file_wrapper must have a close() method that invokes the original".
    """

    __slots__ = ("block_size", "close", "filelike")

    close: Callable[[], object]

    def __init__(self, filelike: Any, block_size: int = 1 << 16) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if not data:
            raise StopIteration
        return data


class _Silent(ApplicationError):
    """The application has returned nothing, and not called start_response()."""


class Exchange:
    """One request and its response.

    Args:
        head: the request; None if it could not be read.
        writer: makes the response's head.
        send: takes the next bytes of the connection, or raises ClientGone, then and at every later call.
            Without bytes, it only looks whether the client is still there.
        send_file: takes (descriptor, offset, count) and is done with the descriptor when it returns; or None.
            It may raise as `send` does, and OSError.
        persistent: whether the server wants another request on this connection.
        date: the value of `Date`, ready to send.
        report: takes what is wrong with the application: the request, its environ, a text of one or more
            lines, what was raised; or None, and `wsgi.errors` of the environ gets the text.

    When `run` or `respond` has returned:
        status: of the response; 0 if nothing was sent.
        sent: bytes of the body that were sent, framing not counted.
        complete: the client knows where the response ends. If not, the connection must be cut.
        persistent: the connection may carry another request. Implies `complete`.
        note: what was out of the ordinary, for the access log; mostly "".
    """

    __slots__ = (
        "_date",
        "_head",
        "_headers",
        "_over",
        "_report",
        "_room",
        "_sealed",
        "_send",
        "_send_file",
        "_started",
        "_status",
        "_writer",
        "complete",
        "note",
        "persistent",
        "sent",
        "status",
    )

    def __init__(
        self,
        head: Optional[Head],
        writer: ResponseWriter,
        send: Send,
        send_file: Optional[SendFile],
        persistent: bool,
        date: bytes,
        report: Optional[Report] = None,
    ) -> None:
        self._head = head
        self._writer = writer
        self._send = send
        self._send_file = send_file
        self._date = date
        self._report = report
        self._started = False  # start_response was called
        self._status = ""
        self._headers: Sequence[tuple[str, str]] = ()
        self._room = 0  # as Opening.body, counting down
        self._sealed = False  # more was offered than there is room for
        self._over = False  # the application has had its say
        self.status = 0  # not 0: the head was sent
        self.sent = 0
        self.persistent = persistent
        self.complete = False
        self.note = ""

    # What the server calls.

    def run(self, app: Application, environ: Environ) -> None:
        """Call `app`, send what it answers, close its iterable. Raises nothing; reports failures."""
        result: object = None
        try:
            result = app(environ, self.start_response)
            if away is not None:
                away(None)
            if type(result) is list and len(result) == 1 and not self.status:
                self._send_whole(result[0])
            else:
                self._transmit(result)
        # "Servers should trap and log any exception that aborts an application or the iteration of its
        # return value." Any: no request may end a server by raising SystemExit.
        except BaseException as error:
            self._fail(error, environ)
        finally:
            self._over = True
            # "If the iterable returned by the application has a close() method, the server or gateway must
            # call that method upon completion of the current request, whether the request was completed
            # normally, or terminated early due to an application error during iteration or an early
            # disconnect of the browser."
            try:
                close = None if type(result) is list else getattr(result, "close", None)
                if close is not None:
                    close()
                    if away is not None:
                        away(None)
            except BaseException as error:
                if away is not None:
                    away(error)
                # Whatever was sent stands as it is.
                self._complain(f"{FAILED} in close()\n", error, environ)
                self.note = self.note or FAILED
        if self.note and self.note in (SHORT, LONG):
            self._complain(f"{self.note}\n", None, environ)

    def respond(self, status: int) -> None:
        """Answer with the server's own text for `status`, one of response.ERRORS. Raises nothing."""
        self._started = True
        self._status, self._headers, body = response.error(status)
        try:
            self._push(body, len(body))
            self._finish()
        except ClientGone:
            self._gone()

    def hand_over(self) -> None:
        """The application has taken the connection over, and spoken for itself: nothing more is sent.

        gunicorn's convention is that it raises StopIteration, and does not call start_response(). It may also
        just return. Only a request that asks for another protocol is so answered; the status of that is 101.
        """
        self.status = 101
        self.note = TAKEN
        self.persistent = False
        self.complete = False

    # What the application calls.

    def start_response(
        self, status: str, headers: Headers, exc_info: Optional[ExcInfo] = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's start_response(). ApplicationError if called out of turn or with wrong types.

        "start_response must not actually transmit the response headers. Instead, it must store them". They
        "should" be checked here already; what they contain is checked when they are sent, once, with a
        message that shows it.
        """
        if exc_info:
            try:
                # "if exc_info is provided, and the HTTP headers have already been sent, start_response must
                # raise an error, and should re-raise using the exc_info tuple."
                if self.status:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # "to avoid creating a circular reference through the traceback"
        # "it is a fatal error to call start_response without the exc_info argument if start_response has
        # already been called [...] This includes the case where the first call to start_response raised an
        # error."
        elif self._started:
            raise ApplicationError("start_response() was called twice, the second time without exc_info")
        self._started = True
        # Of subclasses only what they consist of is taken: nothing of theirs is called while a head is made.
        if type(status) is not str:
            if not isinstance(status, str):
                raise ApplicationError(f"the status must be a str like '200 OK', not {status!r}")
            status = response.characters(status)
        # "The response_headers argument [...] must be a Python list". Other servers do not look, and so
        # applications give tuples, views of a dict, generators.
        if type(headers) is not list:
            headers = _listed(headers)
        self._status = status
        self._headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        """What start_response() returns: send `data`, and the head before it, even if `data` is empty.

        Headers are sent after the first "iteration of the application return value that yields a non-empty
        bytestring, or upon the application's first invocation of the write() callable".
        """
        if self._over:
            raise ApplicationError("write() was called after the end of the response")
        try:
            self._push(_checked(data))
        except ClientGone:
            self._gone()  # noted here, for the application may make another exception of it
            raise

    def informational(self, status: str, headers: Headers) -> None:
        """`stardust.informational`: send a 1xx response. ApplicationError if the final one has begun."""
        if self.status:
            raise ApplicationError("an informational response cannot follow the final one")
        # "A server MUST NOT send a 1xx response to an HTTP/1.0 client."  RFC 9110 15.2
        if self._head is None or self._head.version == "HTTP/1.0":
            return
        try:
            self._send(response.informational(status, headers))
        except ClientGone:
            self._gone()
            raise

    def early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`: send 103 Early Hints (RFC 8297) with `headers`."""
        self.informational("103 Early Hints", headers)

    # How a response leaves.

    def _send_whole(self, body: bytes) -> None:
        """The whole body in one piece; head and body leave together.

        "If the application [...] returns an iterable whose len() is 1, then the server can automatically
        determine Content-Length by taking the length of the first bytestring".

        Hot path: what `_push` and `_finish` would do, where nothing is out of the ordinary.
        """
        if type(body) is not bytes:
            body = _checked(body)
        size = len(body)
        head = self._open(size)
        if self._room == size <= JOINED:
            self._room = 0
            self._send(head + body)
            self.sent = size
            self.complete = True
        else:
            self._put(head, body)
            self._finish()

    def _transmit(self, result: Any) -> None:
        kind = type(result)
        if (kind is list or kind is tuple) and not self.status:
            self._push_all(result)
        elif result is None or isinstance(result, (bytes, str)) or _asynchronous(kind):
            self._refuse(result)
        elif kind is not FileWrapper or self.status or not self._push_file(result.filelike):
            self._iterate(result)
        self._finish()

    def _refuse(self, result: Any) -> None:
        """Say what is wrong with what is often returned by mistake. An empty text has no parts that could be
        wrong, and is served."""
        if result is None:
            raise ApplicationError("the application returned None, not an iterable of bytes")
        if not isinstance(result, (bytes, str)):
            raise ApplicationError(
                f"the application is asynchronous: it returned a {type(result).__name__}. Wrap an ASGI "
                "application with a2wsgi.ASGIMiddleware"
            )
        if result:
            hint = "[body]" if isinstance(result, bytes) else "[body.encode()]"
            raise ApplicationError(
                f"the application returned {type(result).__name__}, not an iterable of bytes: return {hint}"
            )
        self._iterate(())

    def _push_all(self, pieces: Sequence[bytes]) -> None:
        """A whole list: nothing is gained by sending its pieces one by one, and its length is known."""
        pieces = [_checked(piece) for piece in pieces]
        length = sum(map(len, pieces))
        if length <= JOINED:
            self._push(b"".join(pieces), length)
        else:
            self._iterate(pieces, length)

    def _iterate(self, pieces: Iterable[bytes], length: Optional[int] = None) -> None:
        for piece in pieces:
            # "response headers must not be sent until there is actual body data available, or until the
            # application's returned iterable is exhausted"; and an empty chunk would end a chunked body.
            piece = _checked(piece)
            if not piece:
                self._send(b"")  # only looks whether the client is still there
            else:
                # "WSGI servers, gateways, and middleware must not delay the transmission of any block".
                self._push(piece, length)
                # The server "should stop iterating over the response when enough data has been sent". Here
                # it is the first byte too many that stops it: a generator may have work left to do after
                # its last yield.
                if self._sealed:
                    return
        if away is not None:
            away(None)
        if not self.status:
            self._push(b"", 0)

    def _push_file(self, file: Any) -> bool:
        """Send `file` by `send_file`; False, with nothing sent, if it must be iterated over instead.

        "transmission should begin at the current position within the "file" [...], and continue until the
        end is reached, or until Content-Length bytes have been written."
        """
        place = None if self._send_file is None else _on_disk(file)
        if place is None or self._send_file is None:
            return False
        descriptor, offset, size = place
        self._send(self._open(size))
        count = min(self._room, size)
        if count:
            self._send_file(descriptor, offset, count)
        self._room -= count
        self.sent += count
        return True

    def _push(self, data: bytes, length: Optional[int] = None) -> None:
        """Send the next piece of the body, the head before the first.

        `length` is that of the whole body, None if it is not known.
        """
        self._put(b"" if self.status else self._open(length), data)

    def _put(self, head: bytes, data: bytes) -> None:
        """Send the head, unless it is empty, and a piece of the body. What is beyond its end is cut off."""
        room = self._room
        if room >= 0:
            if len(data) > room:
                data = self._cut(data)
            self._room = room - len(data)
            framed = data
        elif room == CHUNKED:
            framed = chunk(data)
        else:
            framed = data
        if head and len(framed) > JOINED:
            self._send(head)
            self._send(framed)
        elif head or framed:
            self._send(head + framed)
        self.sent += len(data)

    def _open(self, length: Optional[int]) -> bytes:
        """The response's head; from here on it counts as sent. ApplicationError if it cannot be one."""
        # "the application must invoke the start_response() callable before the iterable yields its first
        # body bytestring"
        if not self._started:
            text = "start_response() was not called before the first part of the body"
            raise ApplicationError(text) if length != 0 else _Silent(text)
        opening = self._writer.opening(
            self._status, self._headers, self._head, length, self.persistent, self._date
        )
        if self.status:
            raise ApplicationError("write() was called by a header object while the head was built")
        self.status = opening.code
        self.persistent = opening.persistent
        self._room = opening.body
        return opening.head

    def _cut(self, data: bytes) -> bytes:
        """`data` as far as there is room; the rest is never sent, and no more of the body is asked for."""
        self._sealed = True
        # A body offered with HEAD, 204, 205 or 304 is usual and just dropped.
        if self.status not in (204, 205, 304) and (self._head is None or self._head.method != "HEAD"):
            self.note = LONG
        return data[: self._room]

    def _finish(self) -> None:
        """The application has offered its whole body: end it, if what was announced is there."""
        if self._room > 0:
            # "if the application does not provide enough data to meet its stated Content-Length, the server
            # should close the connection and log or otherwise report the error."
            self.note = SHORT
            self.persistent = False
            return
        if self._room == CHUNKED:
            self._send(LAST_CHUNK)
        self.complete = True

    # What can go wrong.

    def _fail(self, error: BaseException, environ: Environ) -> None:
        if away is not None:
            # Said by us, to an iterable that goes on: then nothing was wrong with it.
            away(None if isinstance(error, ClientGone) and self.note != GONE else error)
        if "HTTP_UPGRADE" in environ and not self._started and isinstance(error, (StopIteration, _Silent)):
            self.hand_over()
            return
        if isinstance(error, ClientGone) or self.note == GONE:
            self._gone()
            return
        self._complain(f"{FAILED}\n", error, environ)
        if not self.status:
            self.respond(500)
        else:
            # No client may take a part for the whole; but what is whole already is not taken back.
            self.persistent = False
            self.complete = self._room == 0
        self.note = self.note or FAILED

    def _gone(self) -> None:
        self.note = GONE
        self.persistent = False
        self.complete = False

    def _complain(self, text: str, error: Optional[BaseException], environ: Environ) -> None:
        """To who takes reports, or in one write to `wsgi.errors`: those of several workers do not mingle."""
        about = "" if self._head is None else f"{self._head.method} {self._head.target}: "
        try:
            if error is not None:
                text += _story(error)
            if self._report is not None:
                self._report(self._head, environ, about + text, error)
                return
            errors = environ["wsgi.errors"]
            errors.write(about + text)
            errors.flush()
        except BaseException:
            pass  # a full disk, or whatever the application put there, must not cost a client its response


def _asynchronous(kind: type) -> bool:
    """Whether its objects are what `async def` gives: a coroutine, or an asynchronous generator."""
    return hasattr(kind, "__await__") or hasattr(kind, "__aiter__")


def _listed(headers: Any) -> Headers:
    """Headers that are not simply a list, as one. Raises ApplicationError."""
    if isinstance(headers, list):
        return list.copy(headers)
    if isinstance(headers, dict):
        raise ApplicationError("the headers must be a list of (name, value), not a dict: pass its items()")
    try:
        return [*headers]
    except TypeError:
        raise ApplicationError(f"the headers must be a list of (name, value), not {headers!r:.60}") from None


def _story(error: BaseException) -> str:
    """The traceback of `error`, from the application's first frame on: ours lead no author anywhere."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is None and not isinstance(error, ApplicationError):
        trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace))


def _checked(piece: bytes) -> bytes:
    """`piece`, if it is bytes. Of a subclass, a copy: its len() may not be that of what is sent."""
    if type(piece) is bytes:
        return piece
    if not isinstance(piece, bytes):
        raise ApplicationError(f"the body must consist of bytes, not {piece!r:.60}")
    return b"".join((piece,))


def _on_disk(file: Any) -> Optional[tuple[int, int, int]]:
    """Descriptor, position, and bytes from there to the end, if `file` reads as a regular file on disk does.

    A fileno() alone does not say so: a GzipFile has one too, of the compressed bytes. So only what
    open(…, "rb") and tempfile.TemporaryFile() give, or the raw file in it, is taken.
    """
    raw: object = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
    if type(raw) is not io.FileIO:
        return None
    try:
        offset = file.tell()
        status = os.fstat(raw.fileno())
    except (OSError, ValueError):  # ValueError: the file is closed
        return None
    # A file without blocks has no bytes, or none on a disk: what /proc and /sys say of the size is not true.
    if not stat.S_ISREG(status.st_mode) or not status.st_blocks:
        return None
    return raw.fileno(), offset, max(status.st_size - offset, 0)
