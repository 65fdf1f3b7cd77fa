"""Credentials that systemd passes, from files that the dynamic user of a service could not read."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path

from tests.certificates import Authority, Issued
from tests.live.apps import versions
from tests.live.client import PATIENCE, request
from tests.live.secure import SecureConnection, presented, trusting
from tests.machine.instance import PROBE, Instance
from tests.machine.machine import Machine
from tests.machine.test_dropins import SHIPPED

SETTINGS = 'env-file = "credential:app.env"\n'
FROM_ROOT = "[Service]\nLoadCredential=app.env:/root/app.env\n"

# Answers what it finds under each name in $CREDENTIALS_DIRECTORY.
READER = """
import json, os, pathlib

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    found = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"]).iterdir()
    return [json.dumps({path.name: path.read_text() for path in found}).encode()]
"""


def secret(machine: Machine, text: str) -> None:
    machine.write("/root/app.env", f"SECRET={text}\n", mode=0o600)


def variables(instance: Instance) -> dict[str, str]:
    """The environment of the application."""
    found: dict[str, str] = json.loads(instance.get("/process").body)["environ"]
    return found


def test_an_env_file_for_root_only(machine: Machine) -> None:
    """It is passed at the start: a reload keeps what the service has, a restart takes what is there."""
    secret(machine, "one")
    instance = Instance(machine, settings=SETTINGS)
    instance.drop_in(FROM_ROOT)
    instance.start()
    assert machine.show(instance.service, "UID") != "0"
    assert variables(instance)["SECRET"] == "one"
    supervisor = instance.supervisor

    secret(machine, "two")
    machine.systemctl("reload", instance.service)
    assert instance.status()["generation"] == 2
    assert variables(instance)["SECRET"] == "one"
    assert instance.supervisor == supervisor

    machine.systemctl("restart", instance.service)
    assert variables(instance)["SECRET"] == "two"


def test_from_the_credential_store_by_name(machine: Machine) -> None:
    """As the unit is shipped: each instance has its own, and one that has none starts all the same."""
    machine.write("/etc/credstore/stardust.shop.tls.key", "key of shop", mode=0o600)
    machine.write("/etc/credstore/stardust.shop.tls.crt", "certificate of shop", mode=0o600)
    machine.path("/etc/credstore").chmod(0o700)
    shop, blog = (Instance(machine, name, application=READER) for name in ("shop", "blog"))
    for each in (shop, blog):
        each.start()
    assert json.loads(shop.get().body) == {"tls.key": "key of shop", "tls.crt": "certificate of shop"}
    assert json.loads(blog.get().body) == {}


def test_one_that_is_missing_is_named_where_one_looks(machine: Machine) -> None:
    instance = Instance(machine, application=versions.serving("one"), settings=SETTINGS)
    instance.drop_in("[Service]\nRestart=no\n")
    done = machine.attempt("systemctl", "start", instance.service)
    assert done.code == 1
    assert machine.show(instance.service, "ExecMainStatus") == "6"
    assert machine.show(instance.service, "Result") == "exit-code"
    reason = (
        "/etc/stardust/myapp.toml:5: env-file: must be a file or a list of files "
        '(a path, or "credential:NAME"), not "credential:app.env": '
        "there is no /run/credentials/stardust@myapp.service/app.env; "
        "start its unit with LoadCredential=app.env:PATH"
    )
    assert instance.status_line == f"could not start: {reason}"
    (said,) = machine.journal(f"_SYSTEMD_UNIT={instance.service}", "PRIORITY=3")
    assert said["MESSAGE"] == f"supervisor: {reason}"

    secret(machine, "one")
    instance.drop_in(FROM_ROOT)
    instance.start()
    assert instance.get().text == "one"


def test_one_that_is_new_takes_a_restart(machine: Machine) -> None:
    instance = Instance(machine, application=versions.serving("one"))
    instance.start()
    instance.configure(SETTINGS)
    secret(machine, "one")
    instance.drop_in(FROM_ROOT)
    assert machine.attempt("systemctl", "reload", instance.service).code == 1
    machine.until(lambda: "start its unit with LoadCredential=" in instance.status_line, "STATUS= says why")
    assert instance.get().text == "one"
    machine.systemctl("restart", instance.service)
    assert instance.get().text == "one"


TLS = """\
ssl-cert-file = "credential:tls.crt"
ssl-key-file = "credential:tls.key"
max-keepalive-reqs = 0
[listen.http]
[listen.https]
ssl = true
"""


PLAIN = """\
app = "/srv/plain.py"
listen.https.address = "127.0.0.1:443"
max-workers = 1
user = "nobody"
"""


def test_a_key_from_the_credential_store(machine: Machine, tmp_path: Path) -> None:
    """For root's eyes only, on port 443. A reload serves what the service has, a restart what is there."""
    authority = Authority(tmp_path)
    one, two = (authority.issue("localhost", file=name) for name in ("one", "two"))
    store(machine, one)
    instance = Instance(machine, settings=TLS)
    machine.run("cp", f"{SHIPPED}/stardust-tls@.socket", "/etc/systemd/system/")
    machine.systemctl("enable", f"stardust-tls@{instance.name}.socket")
    instance.start()
    assert machine.show(instance.service, "UID") != "0"
    assert instance.get().text == "hello\n"
    assert served(machine) == one.certificate.read_text()
    with machine.network():
        connection = SecureConnection(("127.0.0.1", 443), trusting(authority.certificate))
    with connection:
        environ = connection.variables()
        assert (environ["wsgi.url_scheme"], environ["SERVER_PORT"]) == ("https", "443")
        machine.systemctl("reload", instance.service)
        connection.send(request("GET", "/"))
        assert connection.receive().closes
    store(machine, two)
    machine.systemctl("reload", instance.service)
    assert served(machine) == one.certificate.read_text()
    machine.systemctl("restart", instance.service)
    assert served(machine) == two.certificate.read_text()


def test_a_key_that_a_group_may_read(machine: Machine, tmp_path: Path) -> None:
    """Debian's way. What is put in its place is served without a word to anybody."""
    authority = Authority(tmp_path)
    one, two = (authority.issue("localhost", file=name) for name in ("one", "two"))
    machine.run("groupadd", "--system", "--force", "ssl-cert")
    place(machine, one)
    credential = '"credential:tls.{}"'
    settings = TLS.replace(credential.format("crt"), '"/etc/ssl/shop.crt"')
    instance = Instance(machine, settings=settings.replace(credential.format("key"), '"/etc/ssl/shop.key"'))
    instance.drop_in("[Service]\nSupplementaryGroups=ssl-cert\n")
    machine.run("cp", f"{SHIPPED}/stardust-tls@.socket", "/etc/systemd/system/")
    machine.systemctl("enable", f"stardust-tls@{instance.name}.socket")
    instance.start()
    supervisor = instance.supervisor
    assert served(machine) == one.certificate.read_text()
    place(machine, two)
    deadline = time.monotonic() + PATIENCE
    while served(machine) != two.certificate.read_text():
        assert time.monotonic() < deadline, "the old one is served"
    assert (instance.supervisor, instance.status()["generation"]) == (supervisor, 1)
    machine.systemctl("reload", instance.service)
    assert served(machine) == two.certificate.read_text()


def test_a_key_for_root_only_without_systemd(machine: Machine, tmp_path: Path) -> None:
    """It is read before the server becomes somebody else. Workers cannot read what takes its place, and say
    so; a reload does."""
    authority = Authority(tmp_path)
    one, two = (authority.issue("localhost", file=name) for name in ("one", "two"))
    keep(machine, one)
    machine.write("/srv/plain.py", PROBE.read_text())
    settings = TLS.partition("max")[0].replace("credential:tls.", "/etc/ssl/shop.")
    machine.write("/root/plain.toml", f"{PLAIN}ssl = true\n{settings}")
    machine.run("systemd-run", "--unit=stardust-plain", "stardust", "--config", "/root/plain.toml")
    machine.until(lambda: "serves /srv/plain.py" in machine.log("stardust-plain.service"), "it serves")
    with machine.network():
        connection = SecureConnection(("127.0.0.1", 443), trusting(authority.certificate))
    with connection:
        pid = int(connection.get("/pid"))
    assert machine.run("ps", "-o", "user=", "-p", str(pid)) == "nobody\n"
    assert "cannot" not in machine.log("stardust-plain.service")
    keep(machine, two)

    def told() -> bool:
        served(machine)
        return "cannot be taken over" in machine.log("stardust-plain.service")

    machine.until(told, "a worker says that it cannot read the key")
    assert "/etc/ssl/shop.key: cannot be read: Permission denied" in machine.log("stardust-plain.service")
    assert served(machine) == one.certificate.read_text()
    machine.run("stardustctl", "--config", "/root/plain.toml", "reload")
    assert served(machine) == two.certificate.read_text()
    machine.systemctl("stop", "stardust-plain.service")


def keep(machine: Machine, issued: Issued) -> None:
    machine.write("/etc/ssl/shop.crt", issued.certificate.read_text(), mode=0o644)
    machine.write("/etc/ssl/shop.key", issued.key.read_text(), mode=0o600)


def store(machine: Machine, issued: Issued) -> None:
    for name, file in (("crt", issued.certificate), ("key", issued.key)):
        machine.write(f"/etc/credstore/stardust.myapp.tls.{name}", file.read_text(), mode=0o600)


def place(machine: Machine, issued: Issued) -> None:
    """Each in one step, the key for a group."""
    machine.write("/etc/ssl/shop.crt.new", issued.certificate.read_text(), mode=0o644)
    machine.write("/etc/ssl/shop.key.new", issued.key.read_text(), mode=0o640)
    machine.run("chgrp", "ssl-cert", "/etc/ssl/shop.key.new")
    for name in ("crt", "key"):
        machine.run("mv", f"/etc/ssl/shop.{name}.new", f"/etc/ssl/shop.{name}")


def served(machine: Machine) -> str:
    """The certificate that a client gets."""
    with machine.network():
        return ssl.DER_cert_to_PEM_cert(presented(("127.0.0.1", 443), "localhost"))
