"""Forks in a request, in each place where a program of the application's runs, and ends in each way.

/fork?where=…&how=…     the answer tells the request's X-Id, and how the child has ended
/last                   how the child of the last request ended that forked where it could no longer tell
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

FORK = multiprocessing.get_context("fork")
last: list[str] = []


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if environ["PATH_INFO"] == "/fork":
        return WHERE[query["where"]](Forking(query["how"], environ, start_response))
    body = ROUTES[environ["PATH_INFO"]](query)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Forking:
    """A request that forks. `now()` is None in the child; the parent gets the answer, with the child's exit
    code in it."""

    def __init__(self, how: str, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.how = how
        self.id = environ.get("HTTP_X_ID", "")
        self.start_response = start_response
        self.environ = environ

    def start(self) -> Callable[[bytes], object]:
        return self.start_response("200 OK", [("Content-Type", "text/plain")])

    def now(self) -> bytes | None:
        pid = os.fork()
        if pid:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return f"{self.id} {code}".encode()
        self.child()
        return None

    def child(self) -> None:
        if self.how == "raise":
            raise LookupError("in the child")
        if self.how == "sys.exit":
            sys.exit(7)
        if self.how == "message":
            sys.exit("no more")
        if self.how == "os._exit":
            os._exit(8)
        if self.how == "print":
            print("printed by the child")
        if self.how == "socket":
            self.environ["stardust.socket"].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def in_call(it: Forking) -> Iterable[bytes]:
    body = it.now()
    write = it.start()
    if body is None and it.how == "write":
        write(b"nobody reads this")
    return [b"of the child" if body is None else body]


def in_call_none(it: Forking) -> Any:
    body = it.now()
    if body is None:
        return None
    it.start()
    return [body]


def in_write(it: Forking) -> Iterable[bytes]:
    write = it.start()
    write(b"<")
    body = it.now()
    write(b"of the child" if body is None else body)
    return [b">"]


def in_generator(it: Forking) -> Iterator[bytes]:
    it.start()
    yield b"<"
    body = it.now()
    yield b"of the child" if body is None else body
    yield b">"


def in_generator_at_its_end(it: Forking) -> Iterator[bytes]:
    body = b"<0>"
    it.start_response("200 OK", [("Content-Length", "3")])
    yield body
    last[:] = [(it.now() or b"").decode()]


def in_generator_that_says_nothing(it: Forking) -> Iterator[bytes]:
    it.start()
    body = it.now()
    while body is None:
        yield b""
    yield body


class Closing:
    def __init__(self, it: Forking) -> None:
        self.it = it

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"<0>"])

    def close(self) -> None:
        body = self.it.now()
        if body is not None:
            last[:] = [body.decode()]


def in_close(it: Forking) -> Iterable[bytes]:
    it.start_response("200 OK", [("Content-Length", "3")])
    return Closing(it)


def with_close(it: Forking) -> Iterable[bytes]:
    """Its close() is the parent's to call."""
    body = it.now()
    it.start()
    result = Closing(it)
    if body is None:
        result.close = lambda: os._exit(99)  # type: ignore[method-assign]
        return result
    return [body]


def in_terminal(it: Forking) -> Iterable[bytes]:
    pid, descriptor = pty.fork()
    it.start()
    if not pid:
        it.child()
        return [b"of the child"]
    try:
        while os.read(descriptor, 1000):
            pass
    except OSError:
        pass  # the child has ended
    os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [f"{it.id} {code}".encode()]


WHERE: dict[str, Callable[[Forking], Iterable[bytes]]] = {
    "call": in_call,
    "none": in_call_none,
    "write": in_write,
    "generator": in_generator,
    "end": in_generator_at_its_end,
    "empty": in_generator_that_says_nothing,
    "close": in_close,
    "closing": with_close,
    "terminal": in_terminal,
}


def wait_at(gate: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(gate)
        connection.sendall(str(os.getpid()).encode())
        connection.recv(1)


def leave(query: dict[str, str]) -> bytes:
    """Leaves a process behind that waits at the gate."""
    how = query["how"]
    if how in ("process", "daemon"):
        FORK.Process(target=wait_at, args=[query["gate"]], daemon=how == "daemon").start()
    elif how == "later":
        threading.Thread(target=later, args=[query["gate"]], daemon=True).start()
    elif how in ("thread", "fork", "session", "group", "stubborn", "twice"):
        thread = threading.Thread(target=left, args=[how, query["gate"]])
        thread.start()
        thread.join()
    else:
        command = [sys.executable, "-c", WAIT, query["gate"]]
        subprocess.Popen(command, start_new_session=how == "exec-session", stdin=subprocess.DEVNULL)
    return str(os.getpid()).encode()


def later(gate: str) -> None:
    """While the server waits for something to do."""
    wait_at(gate)
    left("thread", gate)


WAIT = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(str(os.getpid()).encode())
connection.recv(1)
"""


def left(how: str, gate: str) -> None:
    if os.fork():
        return
    if how == "twice" and os.fork():
        os._exit(0)
    if how == "session":
        os.setsid()
    if how == "group":
        os.setpgid(0, 0)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_at(gate)
    os._exit(0)


def forks(query: dict[str, str]) -> bytes:
    for _ in range(int(query["count"])):
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
    return str(os.getpid()).encode()


def ready(descriptor: int) -> None:
    os.write(descriptor, b"!")
    os.read(READ_FOREVER[0], 1)


READ_FOREVER = os.pipe()


def terminate(query: dict[str, str]) -> bytes:
    reader, writer = os.pipe()
    process = FORK.Process(target=ready, args=[writer])
    process.start()
    os.read(reader, 1)
    process.terminate()
    process.join()
    os.close(reader)
    os.close(writer)
    return f"{process.exitcode}".encode()


def square(number: int) -> int:
    return number * number


def pool(query: dict[str, str]) -> bytes:
    with ProcessPoolExecutor(2, mp_context=FORK) as executor:
        return str(sum(executor.map(square, range(10)))).encode()


def killed_by(query: dict[str, str]) -> bytes:
    """How a program ends that gets a signal which means nothing to a worker."""
    process = subprocess.Popen(["sleep", "1000"])
    process.send_signal(int(query["signal"]))
    return str(process.wait()).encode()


def take_wakeup(query: dict[str, str]) -> bytes:
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR2, loop.stop)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
    loop.run_forever()
    if query["how"] == "closed":
        loop.close()
    return str(os.getpid()).encode()


ROUTES: dict[str, Callable[[dict[str, str]], bytes]] = {
    "/last": lambda query: " ".join(last).encode(),
    "/pid": lambda query: str(os.getpid()).encode(),
    "/leave": leave,
    "/forks": forks,
    "/terminate": terminate,
    "/pool": pool,
    "/killed-by": killed_by,
    "/wakeup": take_wakeup,
}
