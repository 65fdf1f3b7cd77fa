"""Who goes past `stardust.base.system`: the system calls in a syntax tree that are not made there.

What may be used of a module that makes system calls is listed, not what may not: so what nobody has thought
of is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from stardust.base import system

# By module: what makes no system call, or one that cannot fail, or asks a question to which failure is an
# answer (os.path, shutil.which).
HARMLESS: dict[str, set[str]] = {
    "os": {
        *("path", "environ", "fsencode", "fsdecode", "devnull", "strerror", "PathLike"),
        *("getpid", "urandom", "getuid", "geteuid", "getgid", "umask", "_exit", "waitstatus_to_exitcode"),
        *("register_at_fork", "getpgrp"),
    },
    "socket": {"gaierror", "getdefaulttimeout", "gethostname"},
    "select": set(),
    "signal": {
        *("Signals", "signal", "getsignal", "set_wakeup_fd", "default_int_handler"),
        *("siginterrupt", "pthread_sigmask"),
    },
    "pathlib": {"Path"},
    "shutil": {"which"},
    **{name: set() for name in ("ctypes", "fcntl", "mmap", "resource", "subprocess", "tempfile", "termios")},
    **{name: set() for name in ("_posixsubprocess", "_socket", "posix", "pty", "selectors", "socketserver")},
}
# Types to write down, not to call: an object of theirs comes from the seam.
TYPES = {"socket.socket", "socket.SocketType", "select.epoll", "select.poll", "mmap.mmap"}
# What has the same names, by which it may be used in the same way.
PRISTINE = "stardust.base.pristine"
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]+")

# Methods of sockets and paths for which there is a call. Those of every request (recv, send, poll) are free.
METHODS = {
    *("accept", "_accept", "bind", "connect", "connect_ex", "getsockopt", "listen", "setsockopt"),
    *("recvmsg", "recvmsg_into", "sendmsg", "sendto", "sendfile"),
    *("read_bytes", "read_text", "write_bytes", "write_text", "iterdir", "glob", "touch", "unlink", "rmdir"),
}


def offences(tree: ast.AST) -> Iterator[str]:
    """What in `tree` is no business of its: "os.open", ".sendmsg", "import fcntl"."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    late = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.Lambda))
        for part in (function.body if isinstance(function, ast.FunctionDef) else [function.body])
        for inner in ast.walk(part)
    }
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stardust")
        if node.module != PRISTINE
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _imported(node)
        elif isinstance(node, ast.Call):
            yield from _loaded(node)
        elif isinstance(node, ast.Name) and node.id == "open" and id(node) in called:
            yield "open"
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner == "system":
                if node.attr in system.CALLS and not {id(node)} <= called & late:
                    yield f"system.{node.attr}, but not called there and then"
            elif owner not in ours:
                yield from _used(owner, node.attr, called=id(node) in called)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name in HARMLESS and (alias.asname or not _is_useful(alias.name)):
                yield f"import {alias.name}"
    elif node.module == PRISTINE:
        yield from (f"import {alias.name}" for alias in node.names if not _is_useful(alias.name))
    elif node.module == "stardust.base.system":
        # What was imported by itself stays what it was when the seam is replaced.
        yield from (f"from system import {alias.name}" for alias in node.names if alias.name in system.CALLS)
    elif node.module in HARMLESS:
        names = {alias.name for alias in node.names} - HARMLESS[node.module]
        yield from (
            f"from {node.module} import {name}" for name in sorted(names) if not CONSTANT.fullmatch(name)
        )


def _is_useful(module: str) -> bool:
    """Whether there is something in it that may be used."""
    if module not in HARMLESS:
        return True
    return bool(HARMLESS[module]) or any(name.startswith(f"{module}.") for name in TYPES)


def _loaded(node: ast.Call) -> Iterator[str]:
    """importlib.import_module("ctypes")."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if function == "import_module" and isinstance(node.args[0], ast.Constant):
        name = str(node.args[0].value)
        if name in HARMLESS:
            yield f"import {name}"


def _used(owner: str, name: str, *, called: bool) -> Iterator[str]:
    whole = f"{owner}.{name}"
    if owner in HARMLESS:
        harmless = name in HARMLESS[owner] or CONSTANT.fullmatch(name) or (whole in TYPES and not called)
        if not harmless:
            yield whole
    elif name in METHODS and called:
        yield f".{name}"
