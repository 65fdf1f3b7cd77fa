"""What a worker needs of a client's socket: a plain one has it, and so has one that speaks TLS (secure.py).

Declarations only. Every call says MSG_DONTWAIT, and raises BlockingIOError when it would have to wait.

Runs in the application's interpreter too.
"""

from __future__ import annotations

from typing import Protocol, Union

Bytes = Union[bytes, bytearray, memoryview]


class Stream(Protocol):
    def fileno(self) -> int:
        """The descriptor that epoll watches."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """What has come, b"" at the end. Nothing is kept back that epoll would not tell of."""

    def send(self, data: Bytes, flags: int = 0, /) -> int:
        """How many bytes have left, at least one."""

    def setsockopt(self, level: int, name: int, value: Union[int, bytes], /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...
