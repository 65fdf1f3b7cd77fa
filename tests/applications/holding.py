"""Texts of applications that hold something once they are loaded, each in another form.

`answer(text)` gives the answer to a request with that query. PORT is where a database listens.
"""

from __future__ import annotations

SERVE = """
import os, random

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/pid":
        return [str(os.getpid()).encode()]
    return [answer(environ["QUERY_STRING"]).encode()]
"""

CONNECT = """
import socket

class Session:
    def __init__(self, sock):
        self.sock = sock
        self.lines = sock.makefile("r")
        self.number = self.lines.readline().strip()
    def ask(self, text):
        self.sock.sendall(text.encode() + b"\\n")
        return self.lines.readline().strip()
"""

# Who asks the database by a connection that was made while it was imported.
CONNECTED = {
    "a module's": "session = Session(socket.create_connection(('127.0.0.1', PORT)))\nanswer = session.ask\n",
    "a factory's": """
def make():
    session = Session(socket.create_connection(('127.0.0.1', PORT)))
    global answer
    answer = session.ask
    return application
""",
    "a pool's": """
pool = [Session(socket.create_connection(('127.0.0.1', PORT))) for _ in range(3)]
def answer(text):
    session = pool.pop()
    try:
        return session.ask(text)
    finally:
        pool.append(session)
""",
    "a thread's": """
import queue, threading
work = queue.Queue()
def run():
    session = Session(socket.create_connection(('127.0.0.1', PORT)))
    while True:
        text, told = work.get()
        told.put(session.ask(text))
started = threading.Thread(target=run, name="client", daemon=True)
started.start()
def answer(text):
    told = queue.Queue()
    work.put((text, told))
    return told.get()
""",
}

# Who would hang, or get the answers of others, for other reasons; and what is said of it.
HOLDING = {
    "a thread": (
        """
import queue, threading
work, done = queue.Queue(), queue.Queue()
def run():
    while True:
        done.put(work.get())
threading.Thread(target=run, name="background", daemon=True).start()
def answer(text):
    work.put(text)
    return done.get()
""",
        'thread "background" ',
    ),
    "an executor": (
        """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1, thread_name_prefix="executor")
pool.submit(int).result()
def answer(text):
    return pool.submit(str, text).result()
""",
        'thread "executor_0" ',
    ),
    "a thread of C": (
        """
import ctypes
libc = ctypes.CDLL("libc.so.6")
libc.pthread_create.argtypes = [ctypes.c_void_p] * 4
room = ctypes.create_string_buffer(64)
libc.pthread_create(room, None, ctypes.cast(libc.sleep, ctypes.c_void_p), 100000)
def answer(text):
    return text
""",
        "thread of compiled code ",
    ),
    "a child": (
        """
import subprocess
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def answer(text):
    child.stdin.write(text.encode() + b"\\n")
    child.stdin.flush()
    return child.stdout.readline().decode().strip()
""",
        "child process ",
    ),
    "an event loop": (
        """
import asyncio
loop = asyncio.new_event_loop()
async def echo(text):
    await asyncio.sleep(0.001)
    return text
def answer(text):
    return loop.run_until_complete(echo(text))
""",
        "event loop (epoll",
    ),
    "an event loop in a thread": (  # a2wsgi.ASGIMiddleware
        """
import asyncio, threading
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()
async def echo(text):
    await asyncio.sleep(0.001)
    return text
def answer(text):
    return asyncio.run_coroutine_threadsafe(echo(text), loop).result()
""",
        'thread "loop" ',
    ),
}

# Who holds nothing that a fork would break.
FREE = {
    "nothing": "def answer(text):\n    return text\n",
    "a thread that starts again": """
import os, queue, threading
def run():
    while True:
        done.put(work.get())
def start():
    global work, done
    work, done = queue.Queue(), queue.Queue()  # in the old ones the old thread waits
    threading.Thread(target=run, name="background", daemon=True).start()
start()
os.register_at_fork(after_in_child=start)
def answer(text):
    work.put(text)
    return done.get()
""",
    "a connection of each worker's": CONNECT
    + """
import os
def connect():
    global answer
    answer = Session(socket.create_connection(('127.0.0.1', PORT))).ask
os.register_at_fork(after_in_child=connect)
""",
}


def application(code: str, port: int) -> str:
    return (CONNECT + code).replace("PORT", str(port)) + SERVE
