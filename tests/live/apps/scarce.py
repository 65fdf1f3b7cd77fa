"""An application that lives where something is scarce, which SCARCE names. Python 3.9, standard library.

disk            temporary files have 256 KiB, on a file system of their own
file            no file may grow beyond 256 KiB (RLIMIT_FSIZE)
descriptors     64 of them (RLIMIT_NOFILE)
memory          as much as is in use, and 64 MiB (RLIMIT_AS)
place           there is none for temporary files
processes       as long as the file FAIL_FORK exists, there are none
clock           the clock on the wall is off by as many seconds as the file OFFSET says
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

SCARCE = os.environ["SCARCE"]
ROOM = 256 << 10
MORE = 64 << 20

CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
MS_REC_PRIVATE = 0x4000 | 0x40000

held: list[int] = []


def small_disk() -> None:
    """A tmpfs that nobody else sees; who is not root needs a user namespace for it (user_namespaces(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    if uid:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    place = tempfile.mkdtemp().encode()
    for source, target, kind, flags, data in (
        (b"none", b"/", None, MS_REC_PRIVATE, None),
        (b"tmpfs", place, b"tmpfs", 0, f"size={ROOM}".encode()),
    ):
        if libc.mount(source, target, kind, flags, data):
            raise OSError(ctypes.get_errno(), "mount")
    tempfile.tempdir = place.decode()


def no_processes() -> None:
    fork = os.fork

    def failing() -> int:
        if os.path.exists(os.environ["FAIL_FORK"]):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = failing


def wrong_clock() -> None:
    right = time.time

    def wrong() -> float:
        with open(os.environ["OFFSET"]) as file:
            return right() + float(file.read())

    # The server does not see what an application patches, so this goes where the server looks.
    sys.modules["stardust.base.pristine"].time.time = wrong


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    body = b"hello\n"
    if path == "/take":
        # In the process that serves: those before it need what they have.
        if SCARCE == "descriptors":
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                pass
        else:
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MORE, resource.RLIM_INFINITY))
            body = bytes(2 * MORE)
    elif path == "/give":
        while held:
            os.close(held.pop())
    elif path == "/descriptors":
        body = str(len(os.listdir("/proc/self/fd"))).encode()
    elif path == "/large":
        start_response("200 OK", [])
        return (bytes(65536) for _ in range(512))
    else:
        body = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


if SCARCE == "disk":
    small_disk()
elif SCARCE == "file":
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
elif SCARCE == "descriptors":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
elif SCARCE == "place":
    tempfile.tempdir = "/nowhere"
elif SCARCE == "processes":
    no_processes()
elif SCARCE == "clock":
    wrong_clock()
