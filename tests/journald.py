"""Plays the journal: binds its native socket and reads records as journald does."""

from __future__ import annotations

import array
import fcntl
import select
import socket
import struct
from pathlib import Path

PATIENCE = 20.0  # s; far beyond what anything takes
SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Record = dict[str, str]


class Journal:
    """`path` is that of its socket; `records` are those that came, oldest first."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.records: list[Record] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.path)
        # Others may have less of everything than whoever started the test.
        path.chmod(0o777)

    def close(self) -> None:
        self.read()
        self.socket.close()

    def read(self) -> list[Record]:
        """All that has come."""
        while True:
            try:
                self.records.append(decode(self._receive()))
            except BlockingIOError:
                return self.records

    def expect(self, name: str, value: str) -> Record:
        """Waits for the first record that has this field."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while True:
            for record in self.read():
                if record.get(name) == value:
                    return record
            assert poll.poll(PATIENCE * 1000), f"no {name}={value} in {self.records}"

    def _receive(self) -> bytes:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for _, kind, value in ancillary:
            assert kind == socket.SCM_RIGHTS
            descriptors.frombytes(value)
        for descriptor in descriptors:
            assert not data, "a record comes in the datagram or in the memory, not in both"
            # journald takes no memory that its sender could still change.
            assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == SEALED
            with open(descriptor, "rb") as memory:
                memory.seek(0)
                data = memory.read()
        return data


def decode(data: bytes) -> Record:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, as strictly as it is written."""
    record: Record = {}
    while data:
        line, newline, data = data.partition(b"\n")
        assert newline
        name, assigned, value = line.partition(b"=")
        if not assigned:
            (size,) = struct.unpack_from("<Q", data)
            value, end, data = data[8 : 8 + size], data[8 + size : 9 + size], data[9 + size :]
            assert (len(value), end) == (size, b"\n")
        text = name.decode("ascii")
        assert is_valid(text), f"journald drops a field of the name {text!r}"
        assert text not in record
        record[text] = value.decode("utf-8", "surrogateescape")
    return record


def is_valid(name: str) -> bool:
    """journal_field_valid() of systemd's journal-file.c, for fields that are not journald's own."""
    letters = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
    return 0 < len(name) <= 64 and set(name) <= letters and name[0] not in "_0123456789"


def full(journal: Journal) -> int:
    """Fill its queue to the brim; how many records it took."""
    count = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        while True:
            try:
                other.sendto(b"MESSAGE=others\n", journal.path)
            except BlockingIOError:
                return count
            count += 1
