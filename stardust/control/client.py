"""The control socket, the side of stardustctl. The protocol is in `server.py`; change them together."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stardust.base import system
from stardust.base.errors import ControlError
from stardust.control import trust

# No server listens there. Other faults, such as a lacking permission, are about the right socket.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)


class Answer(NamedTuple):
    """The verdict. `reason` is one line, `detail` several or "", `data` what the command asked for."""

    ok: bool
    reason: str
    detail: str
    data: object


def connect(paths: Sequence[str], server: int | None = None) -> socket.socket:
    """A connection to the first of `paths` where a server listens. ControlError names what was tried.

    `server`: the only process that is believed, None for any. The directory of a service's socket belongs to
    the user of the application, who may have put a socket of its own there.
    """
    for path in paths:
        sock = system.new_socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            system.connect(sock, path)
        except OSError as error:
            sock.close()
            if error.errno not in ABSENT:
                raise ControlError(f"{path}: {error.strerror or error}") from error
        else:
            _refuse_others(sock, path, server)
            return sock
    raise ControlError(f"no server listens at {' or '.join(paths)}")


def _refuse_others(sock: socket.socket, path: str, server: int | None) -> None:
    """unix(7), SO_PEERCRED: the credentials are those of the process that called listen(2)."""
    listening = trust.peer(sock).pid
    if server is not None and listening != server:
        sock.close()
        raise ControlError(f"{path}: process {listening} listens there, but the server is process {server}")


def ask(
    sock: socket.socket, command: str, on_progress: Callable[[str], object], *, until_gone: bool = False
) -> Answer:
    """Send `command`, hear its progress, return the verdict. Closes `sock`.

    `until_gone`: after a good verdict also wait until the server has closed the connection, which it does at
    its very end. Waits without a limit: how long a reload may take is the server's to say.

    Raises ControlError if the server leaves before its verdict, or says something else than a verdict.
    """
    with sock, sock.makefile("rb") as lines:
        try:
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
        except BrokenPipeError:
            pass  # it refused us at once; the reason is there to be read
        answer = None
        try:
            for line in lines:
                message = _message(line)
                if message.get("done"):
                    answer = _answer(message)
                    if not (until_gone and answer.ok):
                        break
                else:
                    on_progress(str(message.get("progress", "")))
        except ConnectionResetError:
            pass  # an end like any other
    if answer is None:
        raise ControlError("the server closed the connection without an answer")
    return answer


def _message(line: bytes) -> dict[str, object]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ControlError("the server's answer is incomplete, or not from stardust") from error
    if not isinstance(message, dict):
        raise ControlError("the server's answer is not a JSON object")
    return message


def _answer(message: dict[str, object]) -> Answer:
    reason, detail = str(message.get("reason", "")), str(message.get("detail", ""))
    return Answer(message.get("ok") is True, reason, detail, message.get("data"))
