"""States for the service manager: sd_notify(3), without ever blocking.

One message is one datagram to $NOTIFY_SOCKET. libsystemd's own call blocks while the manager's queue is full,
which freezes the process that should be feeding the watchdog; this one does not. Its rules:

- READY, RELOADING, STOPPING, FDSTORE and errors are *owed*: kept in order until the manager takes them.
- Of STATUS only the newest is kept, after everything owed; one that says nothing new is not sent.
- WATCHDOG and EXTEND_TIMEOUT are true only now: what cannot be sent at once is dropped.
- One state per datagram. systemd 252 lets the last state of a datagram win, 257 ranks them.
- A manager that is gone is no fault of ours: nothing raises; `fault` keeps the first one for the log.

Only the supervisor notifies (NotifyAccess=main). `activation.scrub` removes the variables afterwards.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from stardust.base import system
from stardust.base.errors import ActivationError

STATUS_BYTES = 1024
MICROSECONDS = 1_000_000

# The queue of the receiver, or of this socket, is full, or too many descriptors are under way (unix(7)).
# Everything else is a fault.
FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)


class Owed(NamedTuple):
    """A message that must arrive, and a duplicate of the descriptor that goes with it."""

    message: bytes
    descriptor: int | None = None


class Notifier:
    """Sends states to the service manager; does nothing, and costs nothing, without one.

    `pending`: something owed, or a STATUS, waits for room; call `flush` again soon. The socket cannot be
    polled for that: it is not connected, so that it survives a manager that binds its socket anew.
    """

    def __init__(self, address: str = "") -> None:
        """`address` is a path or "@abstract", "" for an inert object. Others, as "vsock:…", are a `fault`."""
        self.fault = ""
        self._owed: deque[Owed] = deque()
        self._status_said = b""
        self._status_due = b""
        self._address = b""
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._address = os.fsencode("\0" + address[1:] if address.startswith("@") else address)
            self._socket = system.new_socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        elif address:
            self.fault = f"NOTIFY_SOCKET={address}: must be an absolute path or an @abstract name"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """The notifier for $NOTIFY_SOCKET."""
        return cls(environ.get("NOTIFY_SOCKET", ""))

    @property
    def connected(self) -> bool:
        """Whether there is a manager to talk to."""
        return self._socket is not None

    @property
    def pending(self) -> bool:
        return bool(self._owed or self._status_due)

    def ready(self, status: str = "") -> None:
        """Started, or done with a reload, successful or not."""
        self._owe(b"READY=1", status)

    def reloading(self, now_usec: int, status: str = "") -> None:
        """A reload begins; `ready` is owed after it. `now_usec` is CLOCK_MONOTONIC in microseconds.

        Without the stamp, systemd 253 and later ignore the message for Type=notify-reload.
        """
        self._owe(b"RELOADING=1\nMONOTONIC_USEC=%d" % now_usec, status)

    def stopping(self, status: str = "") -> None:
        """The decision to exit is irrevocable (from systemd 259 on the manager holds us to it)."""
        self._owe(b"STOPPING=1", status)

    def keep(self, descriptor: int, name: str) -> None:
        """Keep a duplicate of a descriptor for the next start (FDSTORE=1); dropped if the unit has no store.

        systemd watches it, for FDPOLL=0 is not said: what has hung up is forgotten. That is a listener that
        somebody shut down, or a connection whose client is gone, and neither must come back.
        """
        if self.connected:
            self._owe(b"FDSTORE=1\nFDNAME=" + name.encode(), descriptor=system.dup(descriptor))

    def release(self, name: str) -> None:
        """Close whatever is kept under `name` (FDSTOREREMOVE=1)."""
        self._owe(b"FDSTOREREMOVE=1\nFDNAME=" + name.encode())

    def status(self, text: str) -> None:
        """One line for `systemctl status`; line breaks become spaces, at most 1 KiB of UTF-8 is kept."""
        self._status_due = one_line(text)
        self.flush()

    def watchdog(self) -> None:
        """We are healthy."""
        self._offer(b"WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Progress is being made: the present state may last `seconds` more from now."""
        self._offer(b"EXTEND_TIMEOUT_USEC=%d" % (seconds * MICROSECONDS))

    def flush(self) -> None:
        """Send what waits, as far as the manager takes it."""
        while self._owed:
            if not self._taken(*self._owed[0]):
                return
            self._settle(self._owed.popleft())
        if self._status_due in (b"", self._status_said):
            self._status_due = b""
        elif self._taken(b"STATUS=" + self._status_due):
            self._status_said, self._status_due = self._status_due, b""

    def close(self) -> None:
        """Give the socket back; what still waits is lost, and nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while self._owed:
            self._settle(self._owed.popleft())
        self._status_due = b""

    def _owe(self, state: bytes, status: str = "", descriptor: int | None = None) -> None:
        line = one_line(status)
        if line:
            # It travels with its state and so replaces a STATUS that is still waiting.
            state += b"\nSTATUS=" + line
            self._status_said, self._status_due = line, b""
        self._owed.append(Owed(state, descriptor))
        self.flush()

    def _settle(self, owed: Owed) -> None:
        if owed.descriptor is not None:
            system.close(owed.descriptor)

    def _offer(self, message: bytes) -> None:
        self.flush()
        if not self.pending:
            self._taken(message)

    def _taken(self, message: bytes, descriptor: int | None = None) -> bool:
        """Whether the message is off our hands: sent, or impossible to send. False: no room, try later."""
        if self._socket is None:
            return True
        passed = [] if descriptor is None else [descriptor]
        try:
            system.sendmsg(self._socket, message, passed, 0, self._address)
        except OSError as error:
            if error.errno in FULL:
                return False
            self.fault = self.fault or f"cannot notify systemd: {error.strerror}"
        return True


def one_line(text: str) -> bytes:
    """`text` as the value of STATUS=: one printable line of at most STATUS_BYTES, cut between characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(printable.split()).encode("utf-8", "replace")
    return line[:STATUS_BYTES].decode("utf-8", "ignore").encode()


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which the manager expects a `watchdog`, None if it expects none of process `pid`.

    sd_watchdog_enabled(3). Ping at a half of it or less. ActivationError if WATCHDOG_USEC is malformed.
    """
    value = environ.get("WATCHDOG_USEC")
    if value is None or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ActivationError(f"WATCHDOG_USEC={value!r}: must be a positive number of microseconds")
    return int(value) / MICROSECONDS
