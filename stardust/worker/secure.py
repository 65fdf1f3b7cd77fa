"""TLS on one connection: the handshake, and then what stands in place of its socket.

How it works: OpenSSL never touches the socket. Bytes of the client go into one buffer and those for it come
out of another; this module carries them, with MSG_DONTWAIT like all of the worker. `Handshake` is the
greeting of a TLS listener; when it is done, `connection.socket` is a `SecureSocket`, and nothing else of the
worker knows the difference. A worker without a TLS listener loads none of this.

Rules:
- Nothing is pending where epoll does not see it: all that can be decrypted is handed out at once, and a byte
  counts as sent only when its share of an encrypted record has left.
- The end of a whole connection is announced (close_notify); one that is cut is reset, so that the client can
  tell (RFC 9112 9.8).
- What a client can cause is an OSError, or ClientGone, and never a traceback.
- The session belongs to this process. Such a connection is no longer `movable`.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Optional, Union

from stardust.base import system
from stardust.base.address import TCP
from stardust.base.errors import ClientGone
from stardust.base.pristine import _thread, select, socket, time
from stardust.http1 import response
from stardust.logs.log import Log
from stardust.tls.identities import Identities, Session
from stardust.worker import forked
from stardust.worker.connection import Connection
from stardust.worker.stream import Bytes
from stardust.wsgi import environ as environs

_RECORD = 16384  # bytes of plain text in one record at most (RFC 8446 5.1)
_RECEIVE = 17408  # bytes asked for at once: a record with all that may be around it
_SEAL = _RECORD  # bytes encrypted at once: so much memory may a slow reader cost beside what is counted
_MOST_AT_ONCE = 1024 * 1024  # bytes for one send: other connections have their turn between
_MOST_HANDSHAKE = 256 * 1024  # bytes of a client's; OpenSSL takes chains of certificates of up to 100 KiB
_MOST_ANSWERS = 65536  # bytes that OpenSSL may have to say by itself, to a client that does not read

_PLAIN = b"This port speaks HTTPS only. Use https:// instead of http://.\n"


class SecureSocket:
    """What a connection has for a socket behind its handshake. See `Stream` for what the worker calls.

    The application may have it too, as `stardust.socket`. Without MSG_DONTWAIT its calls wait, as those of a
    socket do.
    """

    __slots__ = (
        "_cut",
        "_deaf",
        "_early",
        "_ended",
        "_incoming",
        "_outgoing",
        "_owed",
        "_rest",
        "_session",
        "_socket",
        "_wire",
    )

    def __init__(
        self, sock: socket.SocketType, session: Session, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._socket = sock
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self._early = True  # something may have come behind the handshake
        self._ended = False  # the client has said that nothing more will come
        self._rest = b""  # decrypted, and not asked for by an application that reads piece by piece
        self._wire = memoryview(b"")  # encrypted, and not yet taken by the socket
        self._owed = 0  # bytes of plain text that do not count as sent before that is
        self._cut = False  # it is to be cut, not ended
        self._deaf = False  # it has ended

    def fileno(self) -> int:
        return self._socket.fileno()

    def lend(self) -> SecureLoan:
        """For an application that speaks a protocol of its own."""
        return SecureLoan(self)

    # --- receiving ---------------------------------------------------------------------------------------

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """With MSG_DONTWAIT all that has come, which may be more than `size`: the rest of a record could not
        wait here, for epoll knows nothing of it. With MSG_PEEK, whether something has come, encrypted."""
        if self._deaf or flags & socket.MSG_PEEK:
            return self._rest or self._socket.recv(size, flags)
        if not flags & socket.MSG_DONTWAIT:
            data = self._awaited()
            self._rest = data[size:]
            return data[:size]
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        if self._early:
            self._early = False
            data = self._opened()
            if data:
                return data
        if self._ended:
            return b""
        cipher = self._socket.recv(max(size, _RECEIVE), socket.MSG_DONTWAIT)
        if not cipher:
            return b""
        self._incoming.write(cipher)
        data = self._opened()
        if not data and not self._ended:
            raise BlockingIOError("the record is not complete")
        return data

    def _opened(self) -> bytes:
        """Decrypt whatever is complete. Raises ssl.SSLError, which is an OSError."""
        session, incoming = self._session, self._incoming
        data = b""
        try:
            data = session.read(_RECORD)
            # An empty buffer, and nothing left of the record: so nothing more is complete.
            while incoming.pending or session.pending():
                more = session.read(_RECORD)
                if not more:
                    self._ended = True
                    break
                data += more
        except ssl.SSLWantReadError:
            pass
        else:
            self._ended = self._ended or not data
        if self._outgoing.pending:
            self._answer()
        return data

    def _answer(self) -> None:
        """Send what OpenSSL says by itself (that there is no renegotiation), or leave it to what is next."""
        if not self._wire:
            self._wire = memoryview(self._outgoing.read())
            self._push()
        elif self._outgoing.pending > _MOST_ANSWERS:
            raise ConnectionAbortedError("the client demands replies, but does not read them")

    def _awaited(self) -> bytes:
        while True:
            try:
                return self.recv(_RECORD, socket.MSG_DONTWAIT)
            except BlockingIOError:
                _wait(self._socket, select.POLLIN)

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, data: Bytes, flags: int = 0, /) -> int:
        """How many bytes have left. The next call is for the rest, of which some is encrypted already: it
        must begin with the same bytes, as it does if all that waits is sent."""
        with memoryview(data) as view:
            sent = self._send(view, min(len(view), _MOST_AT_ONCE))
        if sent or not data:
            return sent
        if flags & socket.MSG_DONTWAIT:
            raise BlockingIOError("the socket takes nothing")
        _wait(self._socket, select.POLLOUT)
        return self.send(data, flags)

    def _send(self, view: memoryview, size: int) -> int:
        done = 0
        while True:
            if self._wire:
                self._push()
                owed = min(self._owed, len(self._wire))
                done += self._owed - owed
                self._owed = owed
                if self._wire:
                    return done
            if done >= size:
                return done
            with view[done : done + _SEAL] as piece:
                self._seal(piece)

    def sendall(self, data: Bytes, flags: int = 0, /) -> None:
        """For the application: send everything, however long it takes."""
        done = 0
        while done < len(data):
            done += self.send(data[done:])

    def _seal(self, piece: memoryview) -> None:
        """Encrypt `piece`. It counts as sent as far as no more of what it became is left than it was."""
        done = 0
        while done < len(piece):
            with piece[done:] as rest:
                done += self._session.write(rest)
        self._owed = done
        self._wire = memoryview(self._outgoing.read())

    def _push(self) -> None:
        """Send what is encrypted, as far as the socket takes it."""
        try:
            self._wire = self._wire[self._socket.send(self._wire, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass

    # --- the end -----------------------------------------------------------------------------------------

    def setsockopt(self, level: int, name: int, value: Union[int, bytes], /) -> None:
        self._cut = self._cut or (level, name) == (socket.SOL_SOCKET, socket.SO_LINGER)
        system.setsockopt(self._socket, level, name, value)

    def getsockopt(self, level: int, name: int, /) -> int:
        return system.getsockopt(self._socket, level, name)

    def getpeername(self) -> Any:
        return self._socket.getpeername()

    def getsockname(self) -> Any:
        return self._socket.getsockname()

    def shutdown(self, how: int, /) -> None:
        """End our side, or both, without a word then. What comes after this, `recv` gives encrypted: nobody
        will read it."""
        if how == socket.SHUT_WR:
            self._announce_end()
        self._deaf = True
        self._socket.shutdown(how)

    def close(self) -> None:
        if not self._deaf:
            self._announce_end()
        if forked.happened and not self._cut:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
        self._socket.close()

    def forsake(self) -> None:
        """In a forked child: without a word to the client, who is the parent's."""
        self._deaf = True
        self._socket.close()

    def _announce_end(self) -> None:
        """Send close_notify, unless the connection is to be cut: by this the client knows that nothing was
        cut off (RFC 9112 9.8). If the socket has no room for it, it is lost."""
        if self._cut or self._wire:
            return
        try:
            self._session.unwrap()
        except (OSError, ValueError):
            pass  # it waits for the client's own, which we do not
        _send_off(self._socket, self._outgoing.read())


class SecureLoan:
    """What is lent of a TLS connection (loan.py). A library reads in one thread and sends in another, which
    OpenSSL's session would not bear: one call at a time touches it, and no call waits meanwhile.

    What is decrypted already, and was not asked for, no selector tells of: as with an ssl.SSLSocket.
    """

    __slots__ = ("_lock", "_over", "_rest", "_secure", "_sending", "_timeout", "used")

    def __init__(self, secure: SecureSocket) -> None:
        self._secure = secure
        self._lock = _thread.allocate_lock()
        self._sending = _thread.allocate_lock()  # until all is sent: see SecureSocket.send
        self._rest = b""
        self._over = False
        self._timeout: Optional[float] = None
        self.used = False

    def fileno(self) -> int:
        return -1 if self._over else self._secure.fileno()

    def settimeout(self, seconds: Optional[float]) -> None:
        self._timeout = seconds

    def gettimeout(self) -> Optional[float]:
        return self._timeout

    def recv(self, size: int, flags: int = 0) -> bytes:
        while True:
            with self._lock:
                if self._over:
                    return b""
                try:
                    data = self._rest or self._secure.recv(size, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if flags & socket.MSG_DONTWAIT:
                        raise
                else:
                    self._rest = data[size:]
                    return data[:size]
            self._await(select.POLLIN)

    def send(self, data: Bytes, flags: int = 0) -> int:
        """Sends all of it, as a socket that waits does."""
        self.sendall(data)
        return len(data)

    def sendall(self, data: Bytes, flags: int = 0) -> None:
        self.used = True
        rest = memoryview(data)
        with self._sending:
            while rest:
                with self._lock:
                    if self._over:
                        raise BrokenPipeError("the connection was given back")
                    try:
                        rest = rest[self._secure.send(rest, socket.MSG_DONTWAIT) :]
                        continue
                    except BlockingIOError:
                        pass
                self._await(select.POLLOUT)

    def shutdown(self, how: int) -> None:
        with self._lock:
            if not self._over:
                self._secure.shutdown(how)

    def getpeername(self) -> Any:
        return self._secure.getpeername()

    def getsockname(self) -> Any:
        return self._secure.getsockname()

    def close(self) -> None:
        """The application is done with it. Its connection ends with the request."""
        self.recall()

    def recall(self) -> None:
        with self._lock:
            self._over = True

    def _await(self, events: int) -> None:
        if not _wait(self._secure, events, self._timeout):
            raise TimeoutError("timed out")


class Handshake:
    """The greeting of a TLS listener."""

    __slots__ = ("_connection", "_incoming", "_outgoing", "_received", "_session", "_socket", "_wire")

    def __init__(self, connection: Connection, identities: Identities, log: Log) -> None:
        connection.movable = False
        identities.renew(time.monotonic(), log)
        self._connection = connection
        self._socket: Any = connection.socket
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = identities.session(self._incoming, self._outgoing)
        self._received = 0
        self._wire = memoryview(b"")

    def go_on(self) -> int:
        """Do what can be done now; returns what to wait for (select.EPOLLIN, EPOLLOUT), 0 when it is done.

        Raises ClientGone, with a reason for the log; the client then has an answer.
        """
        sock, done = self._socket, False
        if self._connection.buffer:  # what a greeting before this one has read too far
            self._incoming.write(self._connection.buffer)
            self._connection.buffer = b""
            done = self._step()
        while self._flush():
            if done:
                self._settle()
                return 0
            try:
                data = sock.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return select.EPOLLIN
            except OSError as fault:
                raise ClientGone(f"TLS handshake: {fault.strerror}") from None
            self._received += len(data)
            if not data or self._received > _MOST_HANDSHAKE:
                raise ClientGone(
                    f"TLS handshake: {'too long' if data else 'the client closed the connection'}"
                )
            self._incoming.write(data)
            done = self._step()
        return select.EPOLLOUT

    def _step(self) -> bool:
        """Have OpenSSL take what has come; whether the handshake is done."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as fault:
            plain = fault.reason == "HTTP_REQUEST"
            _send_off(self._socket, _plain_answer() if plain else self._outgoing.read())
            raise ClientGone(f"TLS handshake: {_reason(fault)}") from None
        return True

    def _flush(self) -> bool:
        """Send what OpenSSL has to say; whether all of it has left."""
        self._wire = memoryview(bytes(self._wire) + self._outgoing.read())
        if self._wire:
            try:
                self._wire = self._wire[self._socket.send(self._wire, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                pass
            except OSError as fault:
                raise ClientGone(f"TLS handshake: {fault.strerror}") from None
        return not self._wire

    def _settle(self) -> None:
        """The connection goes on as any other."""
        connection, session = self._connection, self._session
        try:
            environ = _environ(connection.environ, session)
        except (ssl.SSLError, ValueError) as fault:
            raise ClientGone(f"TLS handshake: cannot parse the client's certificate: {fault}") from None
        if connection.listener.kind != TCP:
            environ["SERVER_PORT"] = "443"  # it has none; this is the one that belongs to the scheme
        connection.identify(environ)
        connection.socket = SecureSocket(self._socket, session, self._incoming, self._outgoing)


def greeting(identities: Identities, log: Log) -> Callable[[Connection], Handshake]:
    """What makes the handshake of a new connection."""
    return lambda connection: Handshake(connection, identities, log)


def _environ(base: environs.Environ, session: Session) -> environs.Environ:
    """What the application learns of it."""
    der = session.getpeercert(binary_form=True)
    cipher = session.cipher()
    return environs.secured(
        base,
        protocol=session.version() or "",
        cipher=cipher[0] if cipher else "",
        name=session.name,
        resumed=bool(session.session_reused),
        certificate=session.getpeercert() if der else None,
        pem=ssl.DER_cert_to_PEM_cert(der) if der else "",
    )


def _reason(fault: ssl.SSLError) -> str:
    """In words: "no shared cipher", "certificate verify failed: unable to get local issuer certificate"."""
    words = (fault.reason or str(fault)).replace("_", " ").lower()
    detail = getattr(fault, "verify_message", "")
    return f"{words}: {detail}" if detail else words


def _plain_answer() -> bytes:
    """To a client that speaks plain HTTP here."""
    date = response.date(time.time())
    return b"".join(
        (
            b"HTTP/1.1 400 Bad Request\r\nDate: %s\r\nConnection: close\r\n" % date,
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(_PLAIN),
            _PLAIN,
        )
    )


def _send_off(sock: socket.SocketType, data: bytes) -> None:
    """The last that the client gets from us, if its socket takes it now."""
    try:
        if data:
            sock.send(data, socket.MSG_DONTWAIT)
    except OSError:
        pass  # it has left already, or reads nothing


def _wait(sock: Union[socket.SocketType, SecureSocket], events: int, seconds: Optional[float] = None) -> bool:
    """Whether it came to that within so many seconds; None waits for ever."""
    poll = system.poll()
    poll.register(sock, events)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
