"""Every exception stardust raises on purpose, and every exit code, in one visible tree.

    StardustError
    ├── UsageError          the command line is wrong                          exit 2
    ├── ConfigError         a setting is wrong, wherever it was written        exit 6
    ├── ListenError         an address cannot be listened on                   exit 1
    ├── ActivationError     the sockets systemd handed over cannot be used     exit 6
    ├── AppLoadError        the application cannot be loaded                   exit 3
    ├── ControlError        the control socket cannot be reached or used       exit 1
    ├── ChannelError        a process of the server has sent an invalid message
    ├── HandoffError        what came from another worker is not a valid connection
    ├── ClaimError          a stranger's head says who the client is; the first one only, for the log
    ├── ProtocolError       a client broke HTTP; becomes a response with .status
    ├── ApplicationError    the application broke PEP 3333; becomes a 500
    └── ClientGone          the client went away, or is as good as gone; no response is possible

This module knows built-in types only, so that every other module may import it. It runs in the
application's interpreter too: Python 3.9 syntax.
"""

from __future__ import annotations

import enum
from typing import NoReturn, Optional


class Exit(enum.IntEnum):
    """Exit codes of `stardust` and `stardustctl`. 2 is argparse's own; 6 is LSB's "not configured"."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    APPLICATION = 3
    CONFIG = 6


class StardustError(Exception):
    """Base of all. `exit` is the code the process ends with if nobody handles it."""

    exit = Exit.FAILURE


class UsageError(StardustError):
    """The command line is wrong."""

    exit = Exit.USAGE


class ConfigError(StardustError):
    """A setting is wrong. The text names the place, the key, the value and what would be right.

    `source` is a file's path or "command line"; `line` counts from 1, None if unknown; `key` may be
    empty when the whole file is at fault.
    """

    exit = Exit.CONFIG

    def __init__(self, reason: str, *, source: str = "", line: Optional[int] = None, key: str = "") -> None:
        self.reason = reason
        self.source = source
        self.line = line
        self.key = key
        super().__init__(reason)

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.reason) if part)


class ListenError(StardustError):
    """An address cannot be listened on. The text names the listener, the address and the reason."""


class ActivationError(StardustError):
    """The sockets that systemd handed over do not fit the configuration, or are no listening sockets."""

    exit = Exit.CONFIG


class AppLoadError(StardustError):
    """The application cannot be loaded. `reason` is one line, `detail` the traceback, "" if none helps."""

    exit = Exit.APPLICATION

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason)


class ControlError(StardustError):
    """The control socket cannot be reached, or did not answer as agreed."""


class ChannelError(StardustError):
    """A message between processes of the server is not as one of them makes it."""


class HandoffError(StardustError):
    """A message between workers is not as a worker makes it."""


class ClaimError(StardustError):
    """A head has a field that only a trusted proxy may send. It is dropped where no log is to say so.

    `key` is as in an environ.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(key)


class ProtocolError(StardustError):
    """The client broke HTTP. `status` is the status of the response it gets; the connection ends after it."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(status, reason)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class ApplicationError(StardustError):
    """The application broke a rule of PEP 3333, or returned what HTTP cannot carry; the text names it."""


class ClientGone(StardustError):
    """The client closed or reset the connection, or what it is to get can no longer be delivered."""


def assert_never(value: NoReturn) -> NoReturn:  # noqa: PYI050 - Python 3.9
    """The end of a chain that handles every case: a type checker proves that it is not reached.

    As in `typing` since Python 3.11, for what runs in the application's interpreter too.
    """
    raise AssertionError(f"not handled: {value!r}")
