"""HAProxy and nginx before a server, as processes of their own, which keep their connections to it.

They never retry: a connection that the server loses is a 502, or an end without an answer, which their
clients see. Like the server they are handed their socket, so there is no port to race for.

They are what .venv/proxies of the Makefile has, or what is installed. What they are told is what
docs/proxies.md tells its readers, with other addresses.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.live.client import PATIENCE, Address
from tests.live.harness import listening

GUIDE = Path(__file__).parents[2] / "docs/proxies.md"
# What the guide has where the tests have their own.
HTTP_PORT, SERVER = "80", "/run/stardust/myapp.sock"

UNPACKED = Path(sys.prefix) / "proxies"

HAPROXY = """
defaults
    retries 0
    timeout connect 10m
    timeout client 10m
    timeout server 10m
{guided}
"""

NGINX = """
daemon off;
user {user};
pid {place}/nginx.pid;
load_module {modules}/ngx_stream_module.so;
events {{ }}
{block} {{
    {settings}
    {guided}
}}
"""
NGINX_HTTP = """
    access_log off;
    client_body_temp_path {place}/nginx-body;
    proxy_temp_path {place}/nginx-proxy;
    fastcgi_temp_path {place}/nginx-fastcgi;
    uwsgi_temp_path {place}/nginx-uwsgi;
    scgi_temp_path {place}/nginx-scgi;
    keepalive_requests 1000000;
    proxy_next_upstream off;
"""


class Guided(NamedTuple):
    """A section of the guide: what it tells the server, and what the proxy."""

    title: str
    settings: str
    proxy: str


class Start(NamedTuple):
    """What starts a proxy, and the variables beside ours."""

    command: list[str]
    environ: dict[str, str]


def guided(title: str) -> Guided:
    _, found, rest = GUIDE.read_text().partition(f"\n### {title}\n")
    assert found, f"the guide has no section {title!r}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    settings, proxy = re.findall(r"(?:^(?: {4}.*)?\n)*^ {4}.*\n", section, re.MULTILINE)
    return Guided(title, re.sub("^    ", "", settings, flags=re.MULTILINE), proxy)


@contextlib.contextmanager
def proxy(place: Path, told: Guided, server: Address) -> Iterator[Address]:
    """The proxy of a section before the server at `server`; where it listens itself."""
    there = server if isinstance(server, str) else "{}:{}".format(*server)
    prepare = haproxy if told.title.startswith("HAProxy") else nginx
    with listening() as listener:
        start = prepare(place, told.proxy, str(there), listener)
        with running(place, listener, start):
            yield listener.getsockname()


def haproxy(place: Path, lines: str, server: str, listener: socket.socket) -> Start:
    config = place / "haproxy.cfg"
    lines = lines.replace(f"bind :{HTTP_PORT}", f"bind fd@{listener.fileno()}").replace(SERVER, server)
    config.write_text(HAPROXY.format(guided=lines))
    return Start(["haproxy", "-db", "-f", str(config)], {})


def nginx(place: Path, lines: str, server: str, listener: socket.socket) -> Start:
    config = place / "nginx.conf"
    address = "{}:{}".format(*listener.getsockname())
    lines = lines.replace(f"listen {HTTP_PORT};", f"listen {address};")
    lines = lines.replace(f"unix:{SERVER}", f"unix:{server}" if "/" in server else server)
    stream = "proxy_protocol" in lines
    config.write_text(
        NGINX.format(
            place=place,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            modules=modules(),
            block="stream" if stream else "http",
            settings="" if stream else NGINX_HTTP.format(place=place),
            guided=lines,
        )
    )
    # As one nginx hands its sockets to the next when it is upgraded: they do not block.
    listener.setblocking(False)
    command = ["nginx", "-p", str(place), "-c", str(config), "-e", "stderr"]
    return Start(command, {"NGINX": f"{listener.fileno()};"})


def modules() -> Path:
    """Where nginx has its modules."""
    for place in (UNPACKED / "usr/lib/nginx/modules", Path("/usr/lib/nginx/modules")):
        if (place / "ngx_stream_module.so").exists():
            return place
    raise AssertionError("nginx's stream module is missing: rm -r .venv/proxies; make .venv/proxies")


@contextlib.contextmanager
def running(place: Path, listener: socket.socket, start: Start) -> Iterator[None]:
    """A proxy from entering the context to leaving it; it must not end before."""
    command, environ = start
    program = shutil.which(command[0], path=f"{UNPACKED}/usr/sbin:/usr/sbin:{os.environ['PATH']}")
    assert program is not None, f"{command[0]} is missing: make .venv/proxies"
    libraries = ":".join(map(str, UNPACKED.glob("usr/lib/*")))
    log = place / f"{command[0]}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [program, *command[1:]],
            cwd=place,
            env={**os.environ, "LD_LIBRARY_PATH": libraries, **environ},
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield
            assert process.poll() is None, "it has ended by itself"
        except BaseException:
            print(f"--- log of {command[0]}:\n{log.read_text()}")
            raise
        finally:
            process.terminate()
            process.wait(PATIENCE)
