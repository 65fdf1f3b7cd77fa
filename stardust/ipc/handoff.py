"""Connections on their way from one worker to another, of whatever generation.

One SEQPACKET socketpair (unix(7)) for the whole server: the supervisor makes it, every worker holds both
ends. A worker whose connection could be served sooner elsewhere writes it at one end. Every worker that is
free watches the other end beside its listeners, and the kernel gives each message to one of them. A message
has no address: the first free worker takes it, and until then it waits in the socketpair.

The shelf is a second one, by which idle connections leave the server when it stops (supervisor/custody.py).

A message is one connection, or a nudge: "look at the listeners". What a connection is made of:

    its descriptor                        SCM_RIGHTS
    the listener that accepted it         the address; by it the receiver finds what holds for it
    the peer                              what REMOTE_ADDR and REMOTE_PORT say
    requests it has carried               for max-keepalive-reqs
    when its request and its wait began   monotonic seconds; one that waited too long goes no further
    what came of its next request         at most MOST_DATA bytes, as they came

Rules:
- Nothing waits. A full socketpair, or too many descriptors in flight (ETOOMANYREFS), and the connection stays
  with its worker, which tries again or serves it.
- A connection is the sender's until it was sent, and the receiver's once it is taken. In between no death of
  a worker can lose it: the supervisor keeps both ends open.
- The receiver checks every part of a message: a worker that was taken over can send anything, and must not
  bring down another one with it. The first bytes say which format it has, because workers of two versions
  meet when a reload follows an upgrade.

Runs in the application's interpreter too.
"""

from __future__ import annotations

import math
import re
import struct
from typing import NamedTuple, Optional

from stardust.base import system
from stardust.base.address import ABSTRACT, TCP, UNIX, Address, ip
from stardust.base.errors import HandoffError
from stardust.base.pristine import os, socket

MOST_DATA = 65536  # bytes of a request that move with its connection

_CONNECTION = b"c1"
_NUDGE = b"n1"
# Format; requests; when request and wait began; port and kind of the listener; lengths of host, path, peer.
_FORM = struct.Struct("=2sIddHBBBB")
_KINDS = (TCP, UNIX, ABSTRACT)
_MOST_BYTES = _FORM.size + 3 * 255 + MOST_DATA

_HOST = re.compile(r"[0-9A-Za-z._:%-]{0,255}")
_PEER = re.compile(r"([0-9A-Fa-f:.]{0,45}) ([0-9]{0,5})")

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Passage(NamedTuple):
    """A connection without its descriptor. `began` is 0 if nothing came of its next request; `since` is when
    its present wait began."""

    listener: Address
    host: str
    port: str
    requests: int
    began: float
    since: float
    data: bytes


class Link:
    """Both ends, as every process has them."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    def create(cls) -> Link:
        return cls(*system.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    @classmethod
    def adopt(cls, reader: int, writer: int) -> Link:
        """The link whose ends came as descriptors."""
        return cls(system.new_socket(fileno=reader), system.new_socket(fileno=writer))

    @property
    def descriptors(self) -> list[int]:
        return [self._reader.fileno(), self._writer.fileno()]

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._reader.fileno()

    def give(self, descriptor: int, passage: Passage) -> bool:
        """Send a connection; the sender then closes its own descriptor. False: it cannot go now."""
        return self._send(encode(passage), descriptor)

    def untaken(self) -> bool:
        """Whether a message that was given still waits: then no worker is free."""
        return system.unacknowledged(self._writer.fileno()) > 0

    def nudge(self) -> None:
        """Have a free worker look at the listeners. If the nudge finds no room, no worker is free."""
        self._send(_NUDGE)

    def take(self) -> Optional[tuple[socket.SocketType, Passage]]:
        """The next connection; None for a nudge.

        Raises BlockingIOError if there is none, HandoffError for a message that no worker sends (what came
        with it is closed), and OSError (EMFILE, ENFILE) before anything is taken.
        """
        # Without a free descriptor the kernel would drop the connection (unix(7)), not keep it for later.
        system.close(system.dup(self._reader.fileno()))
        data, descriptors, whole = system.recvmsg(self._reader, _MOST_BYTES, 1, socket.MSG_DONTWAIT)
        try:
            if not whole:
                raise HandoffError("a message is too long, or more than one descriptor came with it")
            if data == _NUDGE and not descriptors:
                return None
            passage = decode(data)
            if len(descriptors) != 1:
                raise HandoffError(f"{len(descriptors)} descriptors came with a connection")
            return _connection(descriptors.pop()), passage
        finally:
            for descriptor in descriptors:
                system.close(descriptor)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _send(self, data: bytes, *descriptors: int) -> bool:
        try:
            system.sendmsg(self._writer, data, descriptors, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True


def encode(passage: Passage) -> bytes:
    """The message of a connection. `passage.data` has at most MOST_DATA bytes."""
    listener = passage.listener
    host, path = listener.host.encode(), os.fsencode(listener.path)
    peer = f"{passage.host} {passage.port}".encode("ascii")
    form = _FORM.pack(
        _CONNECTION,
        passage.requests,
        passage.began,
        passage.since,
        listener.port,
        _KINDS.index(listener.kind),
        len(host),
        len(path),
        len(peer),
    )
    return b"".join((form, host, path, peer, passage.data))


def decode(message: bytes) -> Passage:
    """What `encode` was given. Raises HandoffError for bytes that it never makes."""
    if len(message) < _FORM.size:
        raise HandoffError(f"a message of {len(message)} bytes")
    mark, requests, began, since, number, kind, host_size, path_size, peer_size = _FORM.unpack_from(message)
    if mark != _CONNECTION:
        raise HandoffError(f"a message of unknown format {mark!r}")
    texts, data = _split(message, _FORM.size, host_size, path_size, peer_size)
    try:
        host, peer = texts[0].decode("ascii"), _PEER.fullmatch(texts[2].decode("ascii"))
    except UnicodeDecodeError:
        raise HandoffError("an address that is not ASCII") from None
    if kind >= len(_KINDS) or not _HOST.fullmatch(host) or peer is None:
        raise HandoffError("an invalid address")
    try:
        if peer[1]:
            ip(peer[1])
    except ValueError:
        raise HandoffError("an invalid peer address") from None
    if len(data) > MOST_DATA or not _is_moment(began) or not _is_moment(since):
        raise HandoffError("a size or a time that is out of range")
    listener = Address(_KINDS[kind], host, number, os.fsdecode(texts[1]))
    return Passage(listener, peer[1], peer[2], requests, began, since, data)


def _split(message: bytes, start: int, *sizes: int) -> tuple[list[bytes], bytes]:
    """Pieces of these sizes from `start` on, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(message[start : start + size])
        start += size
    if start > len(message):
        raise HandoffError("a message that is shorter than it says")
    return pieces, message[start:]


def _is_moment(value: float) -> bool:
    return math.isfinite(value) and value >= 0.0


def _connection(descriptor: int) -> socket.SocketType:
    """The socket behind a descriptor. Whether it is connected, its first use will tell."""
    try:
        sock = system.bare_socket(fileno=descriptor)
    except OSError:
        system.close(descriptor)
        raise HandoffError("a descriptor that is not a socket") from None
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or system.is_listening(sock):
        sock.close()
        raise HandoffError("a socket that is not a stream connection")
    if sock.gettimeout() is not None:
        sock.settimeout(None)  # the application has set a default, and calls would wait so long
    return sock
