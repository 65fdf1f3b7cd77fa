"""A process that is forked without the server's doing: what becomes of what it had, and of itself.

Each test runs in an interpreter of its own, for the hooks of os.register_at_fork cannot be taken back. Whole
servers are in tests/applications/test_forks.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stardust.base import signals

TOP = Path(__file__).parents[2]
BEGIN = """
import os, signal, sys
from stardust.base import signals
from stardust.worker import forked
from stardust.wsgi import gateway

def waited(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code], cwd=TOP, capture_output=True, text=True, timeout=30, check=False
    )


def output(code: str) -> str:
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_child_lets_go_and_the_parent_knows() -> None:
    """In the order that they were told, whatever one of them raises; and nothing in the parent."""
    told = output(
        """
def fail(): raise OSError("closed already")
forked.own([lambda: print("old", flush=True)])
forked.own([lambda: print("first", flush=True), fail])
forked.own_too(lambda: print("second", flush=True))
print(forked.happened, forked.away, flush=True)
pid = os.fork()
if not pid:
    print(forked.happened, forked.away, gateway.away is forked.end, flush=True)
    os._exit(0)
waited(pid)
print(forked.happened, forked.away, gateway.away)
"""
    )
    assert told == "False False\nfirst\nsecond\nFalse True True\nTrue False None\n"


def test_what_the_server_forks_itself_is_not_meant() -> None:
    told = output(
        """
forked.own([lambda: print("let go")])
with forked.ours():
    pid = os.fork()
if not pid:
    os._exit(0)
print(waited(pid), forked.happened)
"""
    )
    assert told == "0 False\n"


def test_a_child_of_a_child_has_nothing_to_lose() -> None:
    told = output(
        """
forked.own([lambda: print("let go", flush=True)])
pid = os.fork()
if not pid:
    other = os.fork()
    os._exit(0 if not other else waited(other))
print(waited(pid))
"""
    )
    assert told == "let go\n0\n"


def test_fork_in_a_thread() -> None:
    """That thread is all that the child has. Signals that it held back come there, too."""
    told = output(
        """
import threading
wakeup = signals.Wakeup((signal.SIGTERM,))
forked.own([wakeup.forsake])
def fork():
    pid = os.fork()
    if not pid:
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.set_wakeup_fd(-1), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    print(waited(pid), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
thread = threading.Thread(target=fork)
thread.start()
thread.join()
print(wakeup.take())
"""
    )
    assert told == "True -1\n-15 set()\n[]\n"


def test_signals_that_the_application_has_taken_stay_its_own() -> None:
    told = output(
        """
wakeup = signals.Wakeup((signal.SIGTERM,))
signals.ignore(signals.MEANT_FOR_OTHERS)
def theirs(number, frame): pass
signal.signal(signal.SIGHUP, theirs)
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
forked.own([wakeup.forsake])
pid = os.fork()
if not pid:
    print(signal.getsignal(signal.SIGHUP) == theirs, signal.set_wakeup_fd(-1) == writer)
    print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)
    print({signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)})
    forked.end()
print(waited(pid), signal.getsignal(signal.SIGINT) == signal.default_int_handler)
"""
    )
    assert told == "True True\nTrue\n{<Handlers.SIG_DFL: 0>}\n0 False\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("None", 0, ""),
        ("SystemExit()", 0, ""),
        ("SystemExit(None)", 0, ""),
        ("SystemExit(7)", 7, ""),
        ("SystemExit(True)", 1, ""),
        ("SystemExit(256 + 3)", 3, ""),
        ("SystemExit('no more')", 1, "no more\n"),
        ("LookupError('oops')", 1, "LookupError: oops\n"),
        ("KeyboardInterrupt()", 1, "KeyboardInterrupt\n"),
    ],
)
def test_the_end_is_that_of_a_program(error: str, code: int, said: str) -> None:
    """What was printed is seen, and no exit handler runs."""
    done = run(
        f"""
import atexit
atexit.register(print, "at exit")
print("printed")
forked.end({error})
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "printed\n", said)


@pytest.mark.parametrize("stream", ["None", "object()", "open(os.devnull)"])
def test_the_end_needs_no_streams(stream: str) -> None:
    assert run(f"sys.stdout = sys.stderr = {stream}\nforked.end()").returncode == 0
    assert run(f"sys.stdout = sys.stderr = {stream}\nforked.end(ValueError())").returncode == 1


def test_children_of_the_zygote_are_not_the_worker_s() -> None:
    told = output(
        """
forked.forget_children()
import multiprocessing
context = multiprocessing.get_context("fork")
process = context.Process(target=os._exit, args=[0])
process.start()
forked.forget_children()
print(multiprocessing.active_children())
process.join()
"""
    )
    assert told == "[]\n"


def test_what_is_held_back_meanwhile() -> None:
    """All that a worker hears: a byte in the wake-up descriptor is in that of the parent."""
    assert {*signals.MEANT_FOR_OTHERS, signal.SIGTERM} == {
        *(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGUSR1, signal.SIGTERM),
    }
