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
    mode http
    retries 0
    timeout connect 10m
    timeout client 10m
    timeout server 10m
    http-reuse always
frontend front
    bind fd@{listener}
    default_backend application
backend application
    server one {server} pool-purge-delay 10m
"""

NGINX = """
daemon off;
user {user};
pid {place}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {place}/nginx-body;
    proxy_temp_path {place}/nginx-proxy;
    fastcgi_temp_path {place}/nginx-fastcgi;
    uwsgi_temp_path {place}/nginx-uwsgi;
    scgi_temp_path {place}/nginx-scgi;
    keepalive_requests 1000000;
    upstream application {{
        server {server} max_fails=0;
        keepalive 100;
        keepalive_requests 1000000;
        keepalive_timeout 10m;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""


GUIDED_HAPROXY = """
defaults
    retries 0
    timeout connect 10m
    timeout client 10m
    timeout server 10m
{guided}
"""

GUIDED_NGINX = """
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
GUIDED_HTTP = """
    access_log off;
    client_body_temp_path {place}/nginx-body;
    proxy_temp_path {place}/nginx-proxy;
    fastcgi_temp_path {place}/nginx-fastcgi;
    uwsgi_temp_path {place}/nginx-uwsgi;
    scgi_temp_path {place}/nginx-scgi;
    proxy_next_upstream off;
"""


class Guided(NamedTuple):
    """A section of the guide: what it tells the server, and what the proxy."""

    title: str
    settings: str
    proxy: str


def guided(title: str) -> Guided:
    _, found, rest = GUIDE.read_text().partition(f"\n### {title}\n")
    assert found, f"the guide has no section {title!r}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    settings, proxy = re.findall(r"(?:^(?: {4}.*)?\n)*^ {4}.*\n", section, re.MULTILINE)
    return Guided(title, re.sub("^    ", "", settings, flags=re.MULTILINE), proxy)


@contextlib.contextmanager
def guided_proxy(place: Path, told: Guided, server: Address) -> Iterator[Address]:
    """The proxy of a section before the server at `server`; where it listens itself."""
    with listening() as listener:
        address = ":".join(map(str, listener.getsockname()))
        if told.title.startswith("HAProxy"):
            there = server if isinstance(server, str) else "{}:{}".format(*server)
            lines = told.proxy.replace(f"bind :{HTTP_PORT}", f"bind fd@{listener.fileno()}")
            config = place / "haproxy.cfg"
            config.write_text(GUIDED_HAPROXY.format(guided=lines.replace(SERVER, str(there))))
            command, environ = ["haproxy", "-db", "-f", str(config)], {}
        else:
            there = f"unix:{server}" if isinstance(server, str) else "{}:{}".format(*server)
            lines = told.proxy.replace(f"listen {HTTP_PORT};", f"listen {address};")
            config = place / "nginx.conf"
            block, settings = ("stream", "") if "proxy_protocol" in lines else ("http", GUIDED_HTTP)
            config.write_text(
                GUIDED_NGINX.format(
                    place=place,
                    user=pwd.getpwuid(os.geteuid()).pw_name,
                    modules=modules(),
                    block=block,
                    settings=settings.format(place=place),
                    guided=lines.replace(f"unix:{SERVER}", there),
                )
            )
            command = ["nginx", "-p", str(place), "-c", str(config), "-e", "stderr"]
            listener.setblocking(False)
            environ = {"NGINX": f"{listener.fileno()};"}
        with running(place, listener, command, environ):
            yield listener.getsockname()


def modules() -> Path:
    """Where nginx has its modules."""
    for place in (UNPACKED / "usr/lib/nginx/modules", Path("/usr/lib/nginx/modules")):
        if (place / "ngx_stream_module.so").exists():
            return place
    raise AssertionError("nginx's stream module is missing: rm -r .venv/proxies; make .venv/proxies")


@contextlib.contextmanager
def haproxy(place: Path, server: str) -> Iterator[Address]:
    """Before the server at `server`, as host:port; where it listens itself."""
    with listening() as listener:
        config = place / "haproxy.cfg"
        config.write_text(HAPROXY.format(listener=listener.fileno(), server=server))
        with running(place, listener, ["haproxy", "-db", "-f", str(config)], {}):
            yield listener.getsockname()


@contextlib.contextmanager
def nginx(place: Path, server: str) -> Iterator[Address]:
    """Before the server at `server`, as host:port; where it listens itself."""
    with listening() as listener:
        config = place / "nginx.conf"
        address = ":".join(map(str, listener.getsockname()))
        user = pwd.getpwuid(os.geteuid()).pw_name
        config.write_text(NGINX.format(place=place, user=user, address=address, server=server))
        command = ["nginx", "-p", str(place), "-c", str(config), "-e", "stderr"]
        # As one nginx hands its sockets to the next when it is upgraded: they do not block.
        listener.setblocking(False)
        with running(place, listener, command, {"NGINX": f"{listener.fileno()};"}):
            yield listener.getsockname()


@contextlib.contextmanager
def running(
    place: Path, listener: socket.socket, command: list[str], environ: dict[str, str]
) -> Iterator[None]:
    """A proxy from entering the context to leaving it; it must not end before."""
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
