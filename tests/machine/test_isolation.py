"""What an application is kept from: the other instances, its own server, and systemd behind it.

The applications here do what a request tells them to; the attacks are in the tests.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.live.client import exchange, request
from tests.machine.instance import Instance
from tests.machine.machine import Machine

# The body of a request is Python, and the answer what it leaves in `result`. All that it made stays.
OBEDIENT = """
import json

def application(environ, start_response):
    exec(environ["wsgi.input"].read(), globals())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(result).encode()]
"""

# reach(): what comes of opening a file, listing a directory, connecting to a socket.
REACH = """
import os, socket, stat

def reach(path):
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISSOCK(mode):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
        elif stat.S_ISDIR(mode):
            os.listdir(path)
        else:
            open(path, "rb").read()
    except OSError as error:
        return type(error).__name__
    return "reached"

"""

# command(): what the server answers to a command.
COMMAND = """
import json, os, socket

def command(what):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.environ["RUNTIME_DIRECTORY"] + "/control")
        try:
            client.sendall(json.dumps({"command": what}).encode() + b"\\n")
        except BrokenPipeError:
            pass  # refused at once
        return client.makefile().readline()

"""


def obedient(machine: Machine, name: str = "myapp") -> Instance:
    instance = Instance(machine, name, application=OBEDIENT)
    machine.write(f"/etc/credstore/stardust.{name}.tls.key", "secret", mode=0o600)
    instance.start()
    return instance


def told(instance: Instance, code: str) -> Any:
    """What comes of `code` in a worker."""
    address = str(instance.machine.path(instance.address))
    response = exchange(address, request("POST", "/", "Connection: close", body=code.encode()))
    assert response.status == 200, instance.machine.log(instance.service)
    return json.loads(response.body)


# --- other instances ------------------------------------------------------------------------------------


def possessions(instance: Instance) -> dict[str, str]:
    """Where the things are that an instance has for itself."""
    name = instance.name
    worker = next(iter(instance.workers().values()))
    return {
        "state directory": f"/var/lib/stardust/{name}",
        "file in it": f"/var/lib/stardust/{name}/data",
        "cache directory": f"/var/cache/stardust/{name}",
        "logs directory": f"/var/log/stardust/{name}",
        "runtime directory": f"/run/stardust/{name}",
        "control socket": f"/run/stardust/{name}/control",
        "credentials": f"/run/credentials/stardust@{name}.service",
        "key among them": f"/run/credentials/stardust@{name}.service/tls.key",
        "worker's environment": f"/proc/{worker}/environ",
        "worker's memory": f"/proc/{worker}/maps",
        "worker's descriptors": f"/proc/{worker}/fd",
        "supervisor's environment": f"/proc/{instance.supervisor}/environ",
    }


def test_two_instances_cannot_reach_each_other(machine: Machine) -> None:
    both = [obedient(machine, name) for name in ("blog", "shop")]
    users = [machine.show(each.service, "UID") for each in both]
    assert len({"0", *users}) == 3
    for each in both:
        told(each, "import os; result = open(os.environ['STATE_DIRECTORY'] + '/data', 'w').write('x')")
    for one, other in (both, both[::-1]):
        own, foreign = possessions(one), possessions(other)
        assert set(tried(one, own).values()) == {"reached"}
        assert set(tried(one, foreign).values()) <= {"PermissionError", "FileNotFoundError"}
        # Its listeners are for the proxy's group, which applications are not in.
        assert tried(one, {"listener": other.address}) == {"listener": "PermissionError"}
        code = f"import os\ntry: os.kill({other.supervisor}, 0)\nexcept OSError as e: result = e.strerror"
        assert told(one, code) == "Operation not permitted"


def tried(instance: Instance, places: dict[str, str]) -> dict[str, str]:
    """What comes of reaching for each of `places` from within the application."""
    code = REACH + f"result = {{name: reach(path) for name, path in {places!r}.items()}}"
    found: dict[str, str] = told(instance, code)
    return found


# --- systemd --------------------------------------------------------------------------------------------


def test_nothing_of_systemds_talk_with_the_server_is_in_its_environment(machine: Machine) -> None:
    instance = obedient(machine)
    given = machine.path(f"/proc/{instance.supervisor}/environ").read_text()
    names = told(
        instance,
        "import os; result = sorted(os.environ) + open('/proc/self/environ').read().split('\\0')",
    )
    for private in ("LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_"):
        assert f"\0{private}" in f"\0{given}"
        assert not [name for name in names if f"{name}=".startswith(private)]


FORGED = ("READY=1", "STATUS=forged", "ERRNO=2", "MAINPID=1", "RELOADING=1", "WATCHDOG=trigger", "STOPPING=1")

# What they would change.
SAID = ("ActiveState", "SubState", "MainPID", "StatusText", "StatusErrno", "Result", "NRestarts")


def test_it_cannot_speak_for_the_service(machine: Machine) -> None:
    instance = obedient(machine)
    before = {key: machine.show(instance.service, key) for key in SAID}
    notify(instance, *FORGED)
    assert {key: machine.show(instance.service, key) for key in SAID} == before

    instance.drop_in("[Service]\nNotifyAccess=all\n")
    notify(instance, "STATUS=forged")
    assert instance.status_line == "forged", "the unit alone stands between them"


def notify(instance: Instance, *states: str) -> None:
    """Have a worker send states to systemd, and wait until that has read them."""
    told(
        instance,
        f"""if True:
            import socket
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                for state in {states!r}:
                    client.sendto(state.encode(), "/run/systemd/notify")
            result = None
        """,
    )
    # A service whose own message has come stands behind them: there is one queue.
    options = ("--quiet", "--wait", "--property=Type=notify", "--property=NotifyAccess=all")
    instance.machine.run("systemd-run", *options, "systemd-notify", "--ready")


# --- the server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["reload", "stop", "status"])
def test_it_cannot_command_its_server(machine: Machine, what: str) -> None:
    instance = obedient(machine)
    before = instance.supervisor
    answer = json.loads(told(instance, COMMAND + f"result = command({what!r})"))
    refused(instance, answer)
    assert (instance.status()["generation"], instance.supervisor) == (1, before)


def test_nor_can_an_orphan_that_it_leaves(machine: Machine) -> None:
    """Whose parent has ended is the supervisor's child."""
    instance = obedient(machine)
    answer = told(
        instance,
        f"""if True:
            import os
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.setsid()
                parent = os.getpid()
                try:
                    if os.fork() == 0:
                        while os.getppid() == parent:
                            os.sched_yield()
                        exec({COMMAND!r})
                        os.write(writing, json.dumps([os.getppid(), command("reload")]).encode())
                finally:
                    os._exit(0)
            os.close(writing)
            os.wait()
            result = json.load(open(reading))
        """,
    )
    adopted_by, line = answer
    assert adopted_by == instance.supervisor
    refused(instance, json.loads(line))
    assert instance.status()["generation"] == 1


def refused(instance: Instance, answer: dict[str, Any]) -> None:
    """Told so, and in the log."""
    assert (answer["done"], answer["ok"]) == (True, False)
    assert "belongs to the server" in answer["reason"]
    assert f"control socket /run/stardust/{instance.name}/control: " in instance.machine.log(instance.service)


def test_it_cannot_pose_as_its_server(machine: Machine) -> None:
    """The runtime directory is its own, and so may the socket in it be; systemctl does not fall for it."""
    instance = obedient(machine)
    told(
        instance,
        """if True:
            import os, socket
            path = os.environ["RUNTIME_DIRECTORY"] + "/control"
            os.unlink(path)
            posing = socket.socket(socket.AF_UNIX)
            posing.bind(path)
            posing.listen()
            result = None
        """,
    )
    assert machine.attempt("systemctl", "reload", instance.service).code == 1
    assert f"but the server is process {instance.supervisor}" in machine.log(instance.service)
    # It was connected to, and not told a word.
    hears = """if True:
        result = None  # by another worker
        if "posing" in globals():
            with posing.accept()[0] as client:
                result = client.recv(100).decode()
    """
    heard = next(each for each in (told(instance, hears) for _ in range(100)) if each is not None)
    assert heard == ""
    assert machine.active(instance.service) == "active"
    machine.systemctl("restart", instance.service)
    machine.systemctl("reload", instance.service)
    assert instance.status()["generation"] == 2


def test_a_worker_has_its_own_descriptors_and_what_all_must_share(machine: Machine) -> None:
    instance = obedient(machine)
    supervisor = held(instance, instance.supervisor)
    first, second = (held(instance, pid) for pid in instance.workers().values())
    common = {first[each] for each in first.keys() & second.keys()}
    links = {name for name in common if name.startswith("socket:")}
    assert common - links == {"journal", "listener", "/memfd:stardust-scoreboard (deleted)"}
    assert len(links) == 4  # both ends of the link between workers, and of the shelf
    for worker in (first, second):
        # The memory for its stacks is between the two of them.
        stacks = "/memfd:stardust-stacks (deleted)"
        assert {supervisor[each] for each in supervisor.keys() & worker.keys()} == {*common, stacks}
        assert not [name for name in worker.values() if "pidfd" in name]


def held(instance: Instance, pid: int) -> dict[tuple[int, int], str]:
    """What a process has open that leads to others or can be shared with them, by device and inode."""
    directory = instance.machine.path(f"/proc/{pid}/fd")
    names = {
        os.readlink(directory / "1"): "journal",
        f"socket:[{inode(instance.machine, instance.address)}]": "listener",
    }
    found = {}
    for entry in directory.iterdir():
        link, status = os.readlink(entry), entry.stat()
        if link.startswith(("socket:", "/memfd:")) or "pidfd" in link:
            found[status.st_dev, status.st_ino] = names.get(link, link)
    return found


def inode(machine: Machine, path: str) -> int:
    """Of a listening UNIX socket: /proc/net/unix, proc(5)."""
    for line in machine.run("cat", "/proc/net/unix").splitlines():
        fields = line.split()
        if fields[-1] == path:
            return int(fields[6])
    raise LookupError(path)


# --- the unit -------------------------------------------------------------------------------------------


def test_what_it_started_ends_with_the_service(machine: Machine) -> None:
    instance = obedient(machine)
    pid = told(
        instance,
        """if True:
            import subprocess
            script = "trap '' TERM HUP; setsid sleep infinity >/dev/null 2>&1 & echo $!"
            result = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout)
        """,
    )
    assert pid in instance.processes()
    assert machine.alive([pid]) == [pid]
    machine.systemctl("stop", instance.service)
    assert machine.alive([pid]) == []
    assert machine.show(instance.service, "Result") == "success"


def test_systemd_thinks_well_of_the_units(machine: Machine) -> None:
    instance = obedient(machine)
    # The manual pages are there, but no man to look at them.
    checked = machine.attempt(
        "systemd-analyze", "verify", "--man=no", instance.service, instance.socket, "stardust.target"
    )
    assert checked == (0, "", "")
    # In tenths; the exit code says whether it is more.
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=11", instance.service)
