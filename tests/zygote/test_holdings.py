"""What is found in a process that has loaded something; each in an interpreter of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

LOOK = """
import json, sys
sys.path.insert(0, {top!r})
from stardust.base import system
from stardust.zygote import holdings
{before}
known = holdings.descriptors()
{code}
print(json.dumps(holdings.look(known)), flush=True)
import os
os._exit(0)
"""

FOUND = {
    "thread": (
        "import threading as t\nt.Thread(target=t.Event().wait, name='ticker', daemon=True).start()",
        [r'thread "ticker".*'],
    ),
    "thread that runs a function": (
        "import threading, time\ndef poll_broker(): time.sleep(1000)\n"
        "threading.Thread(target=poll_broker, daemon=True).start()",
        [r'thread "Thread-1.*" \(__main__\.poll_broker\)'],
    ),
    "thread of a class": (
        "import threading\nclass Poller(threading.Thread):\n    def run(self): threading.Event().wait()\n"
        "Poller(name='p', daemon=True).start()",
        [r'thread "p" \(__main__\.Poller\)'],
    ),
    "timer": (
        "import threading\nthreading.Timer(1000, print).start()",
        [r'thread "Thread-1" \(threading\..*'],
    ),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        "for _ in range(2): pool.submit(__import__('time').sleep, 1000)",
        [r'thread "ThreadPoolExecutor-0_0" .*', r'thread "ThreadPoolExecutor-0_1" .*'],
    ),
    "thread that Python's module does not know": (
        "import _thread, time\n_thread.start_new_thread(time.sleep, (1000,))",
        [r"thread of compiled code \(task \d+, .*"],
    ),
    "thread of C": (
        "import ctypes\nlibc = ctypes.CDLL('libc.so.6')\n"
        "libc.pthread_create.argtypes = [ctypes.c_void_p] * 4\n"
        "room = ctypes.create_string_buffer(64)\n"
        "libc.pthread_create(room, None, ctypes.cast(libc.sleep, ctypes.c_void_p), 1000)",
        [r"thread of compiled code \(task \d+, .*"],
    ),
    "connection": (
        "import socket\nclient = socket.create_connection(('127.0.0.1', PORT))",
        [r"connection to 127\.0\.0\.1:PORT \(descriptor \d+\)"],
    ),
    "connection without an object of Python's": (
        "import os, socket\nsock = socket.create_connection(('127.0.0.1', PORT)).detach()",
        [r"connection to 127\.0\.0\.1:PORT \(descriptor \d+\)"],
    ),
    "connection that somebody accepted": (
        "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\nserver = listener.accept()[0]",
        [r"connection to 127\.0\.0\.1:\d+ \(descriptor \d+\)"] * 2,
    ),
    "connection whose peer has closed": (
        "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\nlistener.accept()[0].close()",
        [r"connection to 127\.0\.0\.1:\d+ \(descriptor \d+\)"],
    ),
    "UNIX connection": (
        "import socket\nlistener = socket.socket(socket.AF_UNIX)\nlistener.bind('\\0shop-PORT')\n"
        "listener.listen()\nclient = socket.socket(socket.AF_UNIX)\nclient.connect('\\0shop-PORT')",
        [r"connection to @shop-PORT \(descriptor \d+\)"],
    ),
    "UDP": (
        "import socket\nclient = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "client.connect(('127.0.0.1', 9))",
        [r"UDP connection to 127\.0\.0\.1:9 \(descriptor \d+\)"],
    ),
    "socket pair": ("import socket\npair = socket.socketpair()", [r"socket pair \(descriptors \d+, \d+\)"]),
    "child": (
        "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])",
        [r"child process \d+ \(sleep 1000\)"],
    ),
    "epoll": ("import select\npoll = select.epoll()", [r"event loop \(epoll, descriptor \d+\)"]),
    "asyncio": (
        "import asyncio\nloop = asyncio.new_event_loop()",
        [r"socket pair \(descriptors \d+, \d+\)", r"event loop \(epoll, descriptor \d+\)"],
    ),
    "two things": (
        "import select, socket\npoll = select.epoll()\n"
        "client = socket.create_connection(('127.0.0.1', PORT))",
        [r"connection to .*", r"event loop .*"],
    ),
    "very many": (
        "import select\npolls = [select.epoll() for _ in range(50)]",
        [r"event loop .*"] * 20 + ["30 more"],
    ),
}

HARMLESS = {
    "nothing": "",
    "thread that was joined": (
        "import threading\nfor _ in range(20):\n    thread = threading.Thread(target=int)\n"
        "    thread.start()\n    thread.join()"
    ),
    "pool that was left": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    list(pool.map(int, '1234'))"
    ),
    "connection that was closed": ("import socket\nsocket.create_connection(('127.0.0.1', PORT)).close()"),
    "connection that is garbage": (
        "import gc, socket, warnings\nwarnings.simplefilter('ignore')\ngc.disable()\n"
        "own = [socket.create_connection(('127.0.0.1', PORT))]\nown.append(own)\ndel own"
    ),
    "child that was waited for": "import subprocess\nsubprocess.run(['true'])",
    "zombie": (
        "import os\npid = os.fork()\nif not pid: os._exit(0)\n"
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)"
    ),
    "listener": "import socket\nlistener = socket.create_server(('127.0.0.1', 0))",
    "socket that is not connected": (
        "import socket\nsock = socket.socket()\nudp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
    ),
    "files and pipes": "import os, tempfile\nfile = tempfile.TemporaryFile()\nends = os.pipe()",
    "datagrams that nobody answers": (  # as logging.handlers.SysLogHandler has
        "import socket\nlog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nlog.bind('\\0log-PORT')\n"
        "client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nclient.connect('\\0log-PORT')"
    ),
    "loop that was closed": "import asyncio\nasyncio.run(asyncio.sleep(0))",
}

# What starts its thread again after a fork; and what only seems to.
BATCHES = """
import os, threading, weakref
class Batches:  # as OpenTelemetry's
    def __init__(self):
        self.start()
        os.register_at_fork(after_in_child=self.AGAIN)
    def start(self):
        self.thread = threading.Thread(target=threading.Event().wait, name="Batch-1", daemon=True)
        self.thread.start()
    def nothing(self):
        pass
batches = Batches()
"""
TRANSPORT = """
import os, threading
class Transport:  # as Sentry's
    def __init__(self):
        self.start()
    def start(self):
        self.made_by = os.getpid()
        self.threads = KEPT(threading.Thread(target=threading.Event().wait, daemon=True))
        thread = self.threads
        getattr(thread, "start", lambda: thread[0].start())()
    def submit(self):
        if WHEN:
            self.start()
transport = Transport()
"""
GLOBAL = """
import os, threading
pid = os.getpid()
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
def ensure():
    if pid != os.getpid():
        thread.start()
"""
COMPARES = "self.made_by != os.getpid()"
SURVIVING = {
    "started again by a hook": BATCHES.replace("AGAIN", "start"),
    "started again when it is used": TRANSPORT.replace("KEPT", "").replace("WHEN", COMPARES),
    "the same in a container": TRANSPORT.replace("KEPT(", "list([")
    .replace("daemon=True))", "daemon=True)])")
    .replace("WHEN", COMPARES),
    "the same in a module": GLOBAL,
}
NOT_SURVIVING = {
    "a hook that starts nothing": BATCHES.replace("AGAIN", "nothing"),
    "an owner that knows the process id only": TRANSPORT.replace("KEPT", "").replace(
        "WHEN", "not os.getpid()"
    ),
    "multiprocessing.Queue": "import multiprocessing\nqueue = multiprocessing.Queue()\nqueue.put(1)",
    "a hook that hangs": (
        "import os, threading\nlock = threading.Lock()\nlock.acquire()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "os.register_at_fork(after_in_child=lock.acquire)"
    ),
    "one of two": (
        BATCHES.replace("AGAIN", "start")
        + 'threading.Thread(target=threading.Event().wait, name="lost", daemon=True).start()\n'
    ),
}


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield str(sock.getsockname()[1])


def look(code: str, interpreter: str = sys.executable, before: str = "") -> list[str]:
    script = LOOK.format(top=str(TOP), code=code, before=before)
    with subprocess.Popen(
        [interpreter, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()  # not to the end: its children may hold that up
        os.killpg(process.pid, signal.SIGKILL)
        assert line, process.stderr.read()
        found: list[str] = json.loads(line)
        return found


def pypy() -> str:
    path = shutil.which("pypy3")
    assert path is not None, "pypy3 is missing: apt-get install pypy3"
    return path


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name: str, port: str) -> None:
    code, wanted = FOUND[name]
    found = look(code.replace("PORT", port))
    assert len(found) == len(wanted), found
    for text, pattern in zip(found, wanted, strict=True):
        assert re.fullmatch(pattern.replace("PORT", port), text), found


@pytest.mark.parametrize("name", ["thread", "thread of C", "connection", "child", "epoll"])
def test_what_is_found_in_pypy(name: str, port: str) -> None:
    code, wanted = FOUND[name]
    found = look(code.replace("PORT", port), pypy())
    assert len(found) == len(wanted), found
    for text, pattern in zip(found, wanted, strict=True):
        assert re.fullmatch(pattern.replace("PORT", port), text), found


# A process that was root may not list its descriptors (proc(5), "dumpable"); or there is no /proc.
REFUSED = """
listdir = system.listdir
def refuse(path):
    if path.startswith({path!r}):
        raise PermissionError(13, "Permission denied", path)
    return listdir(path)
system.listdir = refuse
"""


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found_after_a_change_of_the_user(name: str, port: str) -> None:
    code, wanted = FOUND[name]
    found = look(code.replace("PORT", port), before=REFUSED.format(path="/proc/self/fd"))
    assert len(found) == len(wanted), found
    for text, pattern in zip(found, wanted, strict=True):
        assert re.fullmatch(pattern.replace("PORT", port), text), found


@pytest.mark.parametrize("name", ["thread", "connection", "epoll", "asyncio"])
def test_what_is_found_without_proc(name: str, port: str) -> None:
    code, wanted = FOUND[name]
    found = look(code.replace("PORT", port), before=REFUSED.format(path="/proc"))
    assert len(found) == len(wanted), found


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_after_a_change_of_the_user(name: str, port: str) -> None:
    found = look(HARMLESS[name].replace("PORT", port), before=REFUSED.format(path="/proc/self/fd"))
    assert found == []


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless(name: str, port: str) -> None:
    assert look(HARMLESS[name].replace("PORT", port)) == []


@pytest.mark.parametrize("interpreter", ["this", "pypy3"])
@pytest.mark.parametrize("name", SURVIVING)
def test_threads_that_their_owner_starts_again(name: str, interpreter: str) -> None:
    assert look(SURVIVING[name], pypy() if interpreter == "pypy3" else sys.executable) == []


@pytest.mark.parametrize("name", NOT_SURVIVING)
def test_threads_that_are_lost(name: str) -> None:
    [found] = look(NOT_SURVIVING[name])
    assert found.startswith("thread ")


def test_what_was_open_before_is_not_the_applications(port: str) -> None:
    before = "client = __import__('socket').create_connection(('127.0.0.1', PORT))\n".replace("PORT", port)
    assert look(f"{before}known = holdings.descriptors()") == []
    reused = "client.close()\nother = __import__('socket').create_connection(('127.0.0.1', PORT))\n"
    assert len(look(f"{before}known = holdings.descriptors()\n{reused.replace('PORT', port)}")) == 1
