"""Under each shipped drop-in, installed as operators do, the service serves, reloads, has what was promised.

The application answers what an expression comes to inside of the service, or the name of the error it ends
with.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.live.client import Connection, get
from tests.machine.instance import SETTINGS, Instance
from tests.machine.machine import Machine
from tests.units import AS_SHIPPED, extended_by, measured, promised

SHIPPED = "/usr/share/doc/stardust/examples/drop-ins"

EVALUATING = """
import errno, mmap, os, pwd, socket
from urllib.parse import unquote

def application(environ, start_response):
    try:
        answer = str(eval(unquote(environ["QUERY_STRING"])))
    except OSError as error:
        answer = errno.errorcode[error.errno]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""

# An address of the machine that is not "localhost"; from RFC 5737, for documentation.
ELSEWHERE = "192.0.2.1"
PORT = 8000
DATAGRAM = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{}', 9))"

NETLINK = "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).family"

DYNAMIC = range(61184, 65520)  # user ids; systemd.exec(5), DynamicUser=
FORBIDDEN = ("EPERM", "EACCES")


def told(instance: Instance, expression: str) -> str:
    """What an expression comes to inside of the service."""
    return instance.get("/?" + quote(expression, safe="")).text


def install(instance: Instance, *drop_ins: str) -> None:
    for name in drop_ins:
        unit = f"stardust@{instance.name}.{extended_by(name)}"
        place = f"/etc/systemd/system/{unit}.d/{name}"
        instance.machine.run("install", "-D", "--mode=644", f"{SHIPPED}/{name}", place)
    instance.machine.systemctl("daemon-reload")


def reload(instance: Instance) -> None:
    """Good, with systemctl's own verdict."""
    before = instance.status()["generation"]
    instance.machine.systemctl("reload", instance.service)
    assert instance.status()["generation"] == before + 1


@contextmanager
def serving(
    machine: Machine, *drop_ins: str, place: str = "", application: str = EVALUATING
) -> Iterator[Instance]:
    """An instance with these drop-ins, started by its first client; at the end it must still reload.

    `place`: where the code is, if it is not in /srv.
    """
    instance = Instance(machine, application=application)
    if place:
        machine.write(f"{place}/app.py", application)
        machine.write(instance.config, SETTINGS.format(name=instance.name).replace("/srv/myapp", place))
    install(instance, *drop_ins)
    machine.systemctl("start", instance.socket)
    assert machine.active(instance.service) == "inactive"
    yield instance
    machine.until(lambda: machine.active(instance.service) == "active", "the service is started")
    reload(instance)
    assert machine.active(instance.service) == "active"
    for unit in (instance.service, instance.socket):
        verified = machine.attempt("systemd-analyze", "verify", "--man=no", unit)
        assert verified == (0, "", "")
    report = machine.run("systemd-analyze", "security", "--no-pager", instance.service)
    counting = [name for name in drop_ins if extended_by(name) == "service"] or [AS_SHIPPED]
    assert measured(report) == promised()[counting[0]]


def add_user(machine: Machine, name: str = "myapp") -> None:
    machine.run("useradd", "--create-home", name)
    machine.run("chmod", "700", f"/home/{name}")


def own_address(machine: Machine) -> None:
    """Give the machine an address beside those of localhost."""
    machine.run("ip", "address", "replace", f"{ELSEWHERE}/32", "dev", "lo")


def test_as_shipped(machine: Machine) -> None:
    """What drop-ins loosen is closed without them."""
    own_address(machine)
    with serving(machine) as instance:
        assert int(told(instance, "os.getuid()")) in DYNAMIC
        assert told(instance, DATAGRAM.format(ELSEWHERE)) == "1"
        assert told(instance, "open('x', 'w')") == "EROFS"
        assert told(instance, "os.listdir('/home')") == "EACCES"
        assert told(instance, "open('/proc/meminfo')") == "ENOENT"
        assert told(instance, NETLINK) == "EAFNOSUPPORT"
        assert told(instance, "os.nice(1)") == "EPERM"
        assert told(instance, "os.chown('.', 0, 0)") == "EPERM"


def test_connections(machine: Machine) -> None:
    """What goes on then, test_restart.py has."""
    with serving(machine, "connections.conf") as instance:
        assert told(instance, "1") == "1"
        assert machine.show(instance.service, "FileDescriptorStoreMax") == "1024"
        assert machine.show(instance.service, "LimitNOFILESoft") == "4096"


def test_sealed(machine: Machine) -> None:
    own_address(machine)
    with serving(machine, "sealed.conf", "tcp.conf"):
        with machine.network():
            address = (ELSEWHERE, PORT)
            assert get(address, "/?1").text == "1"
            namespace = get(address, "/?" + quote("os.readlink('/proc/self/ns/net')")).text
            for family in ("AF_INET", "AF_INET6"):
                assert get(address, f"/?socket.socket(socket.{family})").text == "EAFNOSUPPORT"
            mapping = quote(f"mmap.mmap(-1, 4096, prot={0x1 | 0x2 | 0x4})")
            assert get(address, "/?" + mapping).text in FORBIDDEN
            bus = quote("socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket')")
            assert get(address, "/?" + bus).text == "None"
        assert namespace != os.readlink(machine.path("/proc/1/ns/net"))


def test_local_database(machine: Machine) -> None:
    """The service reaches this machine only; its clients are from anywhere."""
    own_address(machine)
    with serving(machine, "local-database.conf", "tcp.conf"), machine.network():
        for client in ((ELSEWHERE, PORT), ("127.0.0.1", PORT)):
            assert get(client, "/?" + quote(DATAGRAM.format("127.0.0.1"))).text == "1"
            assert get(client, "/?" + quote(DATAGRAM.format(ELSEWHERE))).text == "EPERM"


def test_static_user(machine: Machine) -> None:
    add_user(machine)
    with serving(machine, "static-user.conf") as instance:
        assert told(instance, "pwd.getpwuid(os.getuid()).pw_name") == "myapp"
        assert told(instance, "os.listdir('/home')") == "EACCES"


def test_uploads(machine: Machine) -> None:
    add_user(machine)
    machine.run("install", "-d", "--owner=myapp", "/srv/myapp/uploads")
    with serving(machine, "uploads.conf") as instance:
        assert told(instance, "open('uploads/photo', 'w').write('x')") == "1"
        assert told(instance, "open('elsewhere', 'w')") == "EROFS"
        assert machine.run("stat", "--format=%U %a", "/srv/myapp/uploads/photo") == "myapp 644\n"


def test_home(machine: Machine) -> None:
    add_user(machine)
    add_user(machine, "ann")
    with serving(machine, "home.conf", place="/home/myapp/app") as instance:
        assert told(instance, "os.getcwd()") == "/home/myapp/app"
        assert told(instance, "os.listdir('/home'), os.listdir('/home/myapp')") == "(['myapp'], ['app'])"
        assert told(instance, "open('x', 'w')") == "EROFS"


@pytest.mark.usefixtures("release")
def test_gpu(machine: Machine) -> None:
    """The driver is missing here, and says so itself (ENXIO) when it is asked: nobody on the way refused."""
    machine.shell("""
        getent group render || groupadd --system render
        mkdir -p /dev/dri
        mknod --mode=660 /dev/dri/renderD128 c 226 128
        chgrp render /dev/dri/renderD128
        mknod --mode=666 /dev/other c 203 9
        sed '/^Character/a 226 drm' /proc/devices >/run/devices
        mount --bind /run/devices /proc/devices
    """)
    with serving(machine, "gpu.conf") as instance:
        assert told(instance, "open('/dev/dri/renderD128')") == "ENXIO"
        assert told(instance, "open('/dev/other')") == "EPERM"


def test_low_port(machine: Machine) -> None:
    instance = Instance(machine, settings='[listen.http]\naddress = ":80"\n')
    machine.systemctl("mask", instance.socket)
    assert machine.attempt("systemctl", "start", instance.service).code == 1
    assert "permission denied" in instance.status_line
    machine.systemctl("stop", instance.service)
    install(instance, "low-port.conf")
    instance.start()
    with machine.network():
        assert get(("127.0.0.1", 80)).text == "hello\n"
        reload(instance)
        assert get(("::1", 80)).text == "hello\n"
    report = machine.run("systemd-analyze", "security", "--no-pager", instance.service)
    assert measured(report) == promised()["low-port.conf"]


def test_psutil(machine: Machine) -> None:
    with serving(machine, "psutil.conf") as instance:
        assert told(instance, "open('/proc/meminfo').read(9)") == "MemTotal:"
        assert float(told(instance, "os.getloadavg()[0]")) >= 0
        assert told(instance, NETLINK) != "EAFNOSUPPORT"
        assert told(instance, DATAGRAM.format("127.0.0.1")) == "1"


def test_nice(machine: Machine) -> None:
    with serving(machine, "nice.conf") as instance:
        assert told(instance, "os.nice(1)") == "1"
        assert told(instance, "os.sched_setaffinity(0, os.sched_getaffinity(0))") == "None"
        assert told(instance, "os.chown('.', 0, 0)") == "EPERM"


def test_pycache(machine: Machine) -> None:
    cached = re.compile(r"app\.cpython-3\d+\.pyc")
    with serving(machine, "pycache.conf") as instance:
        assert told(instance, "1") == "1"
        found = machine.path("/var/cache/private/stardust/myapp/pycache").rglob("*.pyc")
        assert any(cached.fullmatch(path.name) for path in found)


def test_log_namespace(machine: Machine) -> None:
    own = ("journalctl", "--namespace=stardust-myapp", "--output=cat", "--no-pager", "--quiet")
    with serving(machine, "log-namespace.conf") as instance:
        assert told(instance, "print('from the application', flush=True)") == "None"
        lines = ("generation 1 serves", "from the application")
        machine.until(lambda: all(line in machine.run(*own) for line in lines), "both in its own journal")
        assert [line for line in lines if line in machine.log(instance.service)] == []


def test_proxy(machine: Machine) -> None:
    with serving(machine, "proxy.conf") as instance:
        ask = ("curl", "--silent", "--unix-socket", instance.address, "http://localhost/?1")
        assert machine.run("runuser", "--user=www-data", "--", *ask) == "1"
        refused = machine.attempt("runuser", "--user=nobody", "--", *ask)
        assert refused.code == 7


@pytest.mark.parametrize("address", [("127.0.0.1", PORT), ("::1", PORT)], ids=["IPv4", "IPv6"])
def test_tcp(machine: Machine, address: tuple[str, int]) -> None:
    with serving(machine, "tcp.conf") as instance, machine.network():
        assert not machine.path(instance.address).exists()
        with Connection(address):
            # DeferAcceptSec=: nothing was sent, so nobody has connected yet.
            assert machine.active(instance.service) == "inactive"
        assert get(address, "/?1").text == "1"
        remote = get(address, "/?environ['REMOTE_ADDR']").text
        assert remote == address[0]


def test_from_one_socket_to_another(machine: Machine) -> None:
    """What the manual says of changing a socket unit while the service runs."""
    instance = Instance(machine)
    machine.systemctl("start", instance.socket)
    assert instance.get().text == "hello\n"
    install(instance, "tcp.conf")
    machine.systemctl("stop", instance.socket, instance.service)
    machine.systemctl("start", instance.socket)
    with machine.network():
        assert get(("127.0.0.1", PORT)).text == "hello\n"
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(machine.path(instance.address)))
