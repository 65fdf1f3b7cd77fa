"""Records for the journal, by its native protocol: whole, of many lines, with fields of their own.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. One datagram is one record; one that is too large for a datagram
goes as a sealed memfd. Rules:

- Nothing waits for the journal and nothing raises: a record that it has no room for is dropped.
- A record has a socket of its own, made and closed with it. Records are rare, and a descriptor that is kept
  could be closed by the application, and its number become a connection to its database.
- What is sent as the same user can be sent by the application as well: docs/trust.md.

The fields that the server sends, listed here and in docs/journal.md:
    MESSAGE PRIORITY SYSLOG_IDENTIFIER MESSAGE_ID CODE_FILE CODE_LINE CODE_FUNC   systemd.journal-fields(7)
    STARDUST_INSTANCE     the name of the configuration file, without directory and ".toml"
    STARDUST_GENERATION   the number of the generation that it is about
    STARDUST_WORKER       the number of the worker that it is about
    STARDUST_REQUEST      the request line
    REQUEST_ID            the client's X-Request-Id

Runs in the application's interpreter too.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

from stardust.base import files, system
from stardust.base.pristine import os, socket

SOCKET = "/run/systemd/journal/socket"

_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)


def encode(fields: Mapping[str, object]) -> bytes:
    """One record. Names are ours: of A-Z, 0-9 and "_", 64 at most. A value is what str() makes of it."""
    return b"".join(
        _assigned(name.encode("ascii"), str(value).encode("utf-8", "backslashreplace"))
        for name, value in fields.items()
    )


def _assigned(name: bytes, value: bytes) -> bytes:
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    # "the field name, followed by a newline, [...] a little-endian unsigned 64-bit integer indicating the
    # size of the field's value, followed by the binary field value, and another newline"
    return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


def send(path: str, record: bytes) -> bool:
    """Send `record` to the journal's socket at `path`. False: no journal takes it there, so log it elsewhere.

    True as well when the journal's queue is full and the record is lost: whoever wrote to a stream instead
    would wait for the same journal.
    """
    try:
        with system.new_socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # whatever socket.setdefaulttimeout() the application has set
            try:
                system.sendmsg(sock, record, (), socket.MSG_DONTWAIT, path)
            except OSError as fault:
                if fault.errno not in _TOO_LARGE:
                    raise
                _send_as_memory(sock, path, record)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def _send_as_memory(sock: socket.socket, path: str, record: bytes) -> None:
    """An empty datagram with the descriptor of a memfd that cannot be changed any more."""
    memory = system.memfd_create("stardust-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        files.write_all(memory, record)
        system.seal(memory)  # or the journal does not trust it
        system.sendmsg(sock, b"", [memory], socket.MSG_DONTWAIT, path)
    finally:
        system.close(memory)
