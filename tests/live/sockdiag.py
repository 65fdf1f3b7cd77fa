"""Who is at the other end of the TCP connections of a process: sock_diag(7), as ss(8) asks.

/proc/net/tcp would tell the same, but with the thousands of connections in TIME_WAIT, which takes longer than
a test has that asks ten times a second.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_DONE = 3
TCP_LISTEN, TCP_TIME_WAIT = 10, 6
STATES = 0xFFFF & ~(1 << TCP_LISTEN) & ~(1 << TCP_TIME_WAIT)

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
QUESTION = struct.Struct(
    "=BBBxI48x"
)  # struct inet_diag_req_v2: family, protocol, extensions, states; any address
ANSWER = struct.Struct(
    "=4x2x2s16x4s12x12x16xI"
)  # struct inet_diag_msg: the peer's port and address; the inode


def peers(pid: int) -> set[str]:
    """The far ends of the IPv4 TCP connections that a process holds, as "127.0.0.1:8000"."""
    links = [os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    return {peer for inode, peer in _connections() if f"socket:[{inode}]" in links}


def _connections() -> Iterator[tuple[int, str]]:
    """All of this network namespace, as inode and peer."""
    question = QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, STATES)
    header = HEADER.pack(HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as diag:
        diag.send(header + question)
        while True:
            data = diag.recv(1 << 20)
            while data:
                length, kind, *_ = HEADER.unpack_from(data)
                if kind == NLMSG_DONE:
                    return
                assert kind == SOCK_DIAG_BY_FAMILY, f"sock_diag answers {data!r}"
                port, address, inode = ANSWER.unpack_from(data, HEADER.size)
                yield inode, f"{socket.inet_ntoa(address)}:{int.from_bytes(port, 'big')}"
                data = data[length + 3 & ~3 :]
