"""The control socket, the supervisor's side. Nothing here blocks; the supervisor's loop calls it.

One JSON object a line, one command a connection:

    client   {"command": "reload"}
    server   {"progress": "worker 3 of 10 ready"}                                   any number of them
    server   {"done": true, "ok": false, "reason": "…", "detail": "…", "data": null}   then end of file

A client that leaves before "done" was given up by its user (systemd kills the client of a reload that takes
too long): `receive` raises then, and the supervisor may undo what it was doing.

Change together with `client.py`.
"""

from __future__ import annotations

import json
import os
import socket

from stardust.base import process, system
from stardust.base.errors import ControlError, ListenError
from stardust.control import trust
from stardust.listeners import binding

COMMANDS = ("reload", "status", "stop")

COMMAND_BYTES = 4096
BACKLOG = 16

# An answer is sent at once or not at all. The kernel gives what net.core.wmem_max allows: some 400 KB.
SEND_BUFFER = 4 * 1024 * 1024

# Of an application's traceback the end says why.
DETAIL_CHARACTERS = 64 * 1024


class Client:
    """One connection to stardustctl. It is trusted: see `trust`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        system.setsockopt(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._socket = sock
        self._received = b""
        self._commanded = False
        self.gone = False
        """It left, or did not read: nothing reaches it any more."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> str | None:
        """The command, once; None if there is more to come. Call it when the socket is readable.

        Raises ControlError: the client left, or sent an unknown command, or more than one. `finish` tells it.
        """
        try:
            data = self._socket.recv(COMMAND_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self.gone = True
            raise ControlError(f"the client closed the connection: {error.strerror}") from error
        if not data:
            self.gone = True
            raise ControlError("the client closed the connection")
        if self._commanded:
            raise ControlError("only one command is allowed per connection")
        self._received += data
        line, end, rest = self._received.partition(b"\n")
        if len(line) > COMMAND_BYTES:
            raise ControlError(f"a command must have at most {COMMAND_BYTES} bytes")
        if not end:
            return None
        if rest:
            raise ControlError("only one command is allowed per connection")
        self._commanded = True
        return _command(line)

    def progress(self, text: str) -> None:
        """Tell how far it is."""
        self._send({"progress": text})

    def finish(self, ok: bool, reason: str, detail: str = "", data: object = None) -> None:
        """Give the verdict. `data` is anything JSON can say. The connection stays open until `close`."""
        detail = detail[-DETAIL_CHARACTERS:]
        self._send({"done": True, "ok": ok, "reason": reason, "detail": detail, "data": data})

    def close(self) -> None:
        self.gone = True
        self._socket.close()

    def _send(self, message: dict[str, object]) -> None:
        if self.gone:
            return
        line = json.dumps(message).encode() + b"\n"
        try:
            self.gone = self._socket.send(line, socket.MSG_NOSIGNAL) < len(line)
        except OSError:
            self.gone = True
        if self.gone:
            # The loop sees end of file, and so does the client: it must not wait for the rest.
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _command(line: bytes) -> str:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ControlError("a command must be one JSON object on one line") from error
    command = message.get("command") if isinstance(message, dict) else None
    if command not in COMMANDS:
        raise ControlError(f"unknown command {json.dumps(command)}: must be one of {', '.join(COMMANDS)}")
    return str(command)


class Control:
    """The listening socket. Made by the process that answers: whose descendants are refused."""

    def __init__(self, sock: socket.socket, path: str, file: binding.FileId) -> None:
        self.path = path
        self._socket = sock
        self._file = file

    @classmethod
    def bind(cls, path: str) -> Control:
        """Listen at `path`, for its owner only from the first moment.

        A missing directory is made if the one above exists. Raises ListenError, also if a server lives there.
        """
        directory = os.path.dirname(path)
        try:
            if directory:
                system.mkdir(directory, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            raise ListenError(f"control socket {path}: cannot make {directory}: {error.strerror}") from error
        try:
            sock, file = binding.bind_path(path, mode=0o600, backlog=BACKLOG)
        except ListenError as error:
            raise ListenError(f"control socket {error}") from error
        return cls(sock, path, file)

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> Client | None:
        """The next client, None if none waits. ControlError: one was refused, with an answer, and cut off."""
        try:
            sock, _ = system.accept(self._socket)
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:
            raise ControlError(f"control socket {self.path}: cannot accept: {error.strerror}") from error
        client = Client(sock)
        reason = trust.refusal(trust.peer(sock), pid=os.getpid(), uid=os.geteuid(), parent=process.parent)
        if reason:
            client.finish(False, reason)
            client.close()
            raise ControlError(f"control socket {self.path}: {reason}")
        return client

    def close(self) -> None:
        """Stop listening and remove the file, if it still is ours."""
        binding.remove(self.path, self._file)
        self._socket.close()
