"""What the journal has of a server and of its application: events with fields, whole, and nothing forged."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stardust.logs import events
from stardust.logs.events import Event
from tests.live.client import BrokenError
from tests.machine.instance import Instance
from tests.machine.machine import Machine

SERVER_CODE = "/usr/lib/python3/dist-packages/stardust/"
ERROR, WARNING, INFO = "3", "4", "6"

SHOP = """
import logging, sys, time

from systemd.journal import JournalHandler

logging.getLogger().addHandler(JournalHandler(SYSLOG_IDENTIFIER="shop"))

def application(environ, start_response):
    PAGES[environ["PATH_INFO"]](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

def front(environ):
    pass

def say(environ):
    print("<0>boom", flush=True)
    print("<0>boom", file=sys.stderr, flush=True)
    environ["wsgi.errors"].write("<0>boom\\n")

def record(environ):
    logging.warning("few left\\n<0>boom", extra={"SHELF": "7"})

def sell(environ):
    raise LookupError("sold out\\n<0>for good")

def hang(environ):
    time.sleep(3600)

PAGES = {"/": front, "/say": say, "/record": record, "/sell": sell, "/hang": hang}
"""

# Of a stuck worker the client sees the end of the connection.
CUT = (BrokenError, ConnectionError)


@pytest.fixture
def shop(machine: Machine) -> Instance:
    instance = Instance(machine, "shop", application=SHOP, settings='request-timeout = "1s"\n')
    instance.start()
    return instance


def records(instance: Instance, *matches: str) -> list[dict[str, Any]]:
    """What the processes of the present run have sent, by the fields that journald itself fills in."""
    run = instance.machine.show(instance.service, "InvocationID")
    trusted = (f"_SYSTEMD_UNIT={instance.service}", f"_SYSTEMD_INVOCATION_ID={run}")
    return instance.machine.journal(*trusted, *matches)


def expect(instance: Instance, match: str) -> dict[str, Any]:
    """The only record with this field, when it has come."""
    instance.machine.until(lambda: bool(records(instance, match)), match)
    (record,) = records(instance, match)
    return record


def event(instance: Instance, what: Event) -> dict[str, Any]:
    """The only record of an event, which the supervisor must have sent."""
    record = expect(instance, f"MESSAGE_ID={what.id}")
    assert record["_PID"] == str(instance.supervisor)
    assert record["_UID"] == instance.machine.show(instance.service, "UID")
    assert record["_TRANSPORT"] == "journal"
    assert (record["SYSLOG_IDENTIFIER"], record["STARDUST_INSTANCE"]) == ("stardust", "shop")
    assert record["CODE_FILE"].startswith(SERVER_CODE)
    assert int(record["CODE_LINE"]) > 0
    assert record["CODE_FUNC"]
    return record


# --- events ---------------------------------------------------------------------------------------------


def test_start_and_reloads(shop: Instance) -> None:
    started = event(shop, events.STARTED)
    assert (started["PRIORITY"], started["STARDUST_GENERATION"]) == (INFO, "1")
    assert started["MESSAGE"].startswith("supervisor: generation 1 serves app.py ")

    shop.machine.systemctl("reload", shop.service)
    reloaded = event(shop, events.RELOADED)
    assert (reloaded["PRIORITY"], reloaded["STARDUST_GENERATION"]) == (INFO, "2")

    shop.deploy("def stock():\n    raise LookupError('oops')\n\nstock()\n")
    assert shop.machine.attempt("systemctl", "reload", shop.service).code == 1
    failed = event(shop, events.RELOAD_FAILED)
    assert (failed["PRIORITY"], failed["STARDUST_GENERATION"]) == (ERROR, "3")
    first, second, *lines = failed["MESSAGE"].splitlines()
    assert first.endswith("LookupError: oops (/srv/shop/app.py:2); generation 2 keeps serving")
    assert second == "Traceback (most recent call last):"
    assert '  File "/srv/shop/app.py", line 2, in stock' in lines
    assert lines[-1] == "LookupError: oops"
    # Once, and not in pieces: neither from the zygote nor from the client that systemd ran.
    assert [each["MESSAGE"] for each in records(shop) if "Traceback" in each["MESSAGE"]] == [
        failed["MESSAGE"]
    ]


def test_a_worker_that_is_killed_from_outside_died(shop: Instance) -> None:
    """With or without a count of the kills that were the kernel's, nobody is told of a want of memory."""
    number, pid = next(iter(shop.workers().items()))
    shop.machine.run("kill", "-KILL", str(pid))
    died = event(shop, events.WORKER_DIED)
    assert (died["PRIORITY"], died["STARDUST_GENERATION"]) == (ERROR, "1")
    assert died["STARDUST_WORKER"] == str(number)
    assert f"worker {number} (process {pid}) ended: killed by SIGKILL" in died["MESSAGE"]
    assert records(shop, f"MESSAGE_ID={events.OUT_OF_MEMORY.id}") == []


def test_a_worker_that_hangs_timed_out(shop: Instance) -> None:
    workers = shop.workers()
    with pytest.raises(CUT):
        shop.get("/hang?why", "X-Request-Id: 4f-2")
    stuck = event(shop, events.WORKER_TIMED_OUT)
    assert (stuck["PRIORITY"], stuck["STARDUST_GENERATION"]) == (ERROR, "1")
    assert int(stuck["STARDUST_WORKER"]) in workers
    assert stuck["STARDUST_REQUEST"] == "GET /hang?why HTTP/1.1"
    assert "request-timeout" in stuck["MESSAGE"].splitlines()[0]
    assert re.search('File "/srv/shop/app.py", line [0-9]+ in hang$', stuck["MESSAGE"], re.MULTILINE)


def test_systemctl_status_ends_with_what_was_said_last(shop: Instance) -> None:
    shop.deploy("raise LookupError('oops')\n")
    assert shop.machine.attempt("systemctl", "reload", shop.service).code == 1
    log = shop.machine.attempt("systemctl", "status", "--no-pager", "--full", shop.service).out
    log = log.partition("\n\n")[2]
    assert "supervisor: generation 2 failed: cannot load app.py: LookupError: oops" in log
    assert "stardustctl: reload failed: cannot load app.py: LookupError: oops" in log


# --- the catalog ----------------------------------------------------------------------------------------


def test_journalctl_explains_an_event_with_its_fields(shop: Instance) -> None:
    number, pid = next(iter(shop.workers().items()))
    shop.machine.run("kill", "-SEGV", str(pid))
    event(shop, events.WORKER_DIED)
    explained = shop.machine.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={events.WORKER_DIED.id}")
    assert f"Subject: Worker {number} died" in explained
    assert "Documentation: man:stardust(8)" in explained


def test_every_event_is_in_the_catalog(machine: Machine) -> None:
    for each in events.EVENTS:
        text = machine.run("journalctl", "--no-pager", "--dump-catalog", each.id)
        assert f"Subject: {each.subject}\nDefined-By: stardust\n" in text


# --- the application ------------------------------------------------------------------------------------


def test_an_exception_is_one_record(shop: Instance) -> None:
    assert shop.get("/sell?all", "X-Request-Id: 7f-1").status == 500
    raised = expect(shop, "REQUEST_ID=7f-1")
    assert (raised["PRIORITY"], raised["STARDUST_INSTANCE"]) == (ERROR, "shop")
    assert (raised["CODE_FILE"], raised["CODE_FUNC"]) == ("/srv/shop/app.py", "sell")
    assert raised["STARDUST_REQUEST"] == "GET /sell?all HTTP/1.1"
    assert shop.workers()[int(raised["STARDUST_WORKER"])] == int(raised["_PID"])
    assert raised["STARDUST_GENERATION"] == "1"
    assert raised["MESSAGE"].splitlines()[-2:] == ["LookupError: sold out", "<0>for good"]
    assert [each for each in records(shop) if "LookupError" in each["MESSAGE"]] == [raised]
    assert expect(shop, f"CODE_FILE={raised['CODE_FILE']}") == raised


def test_what_it_prints_chooses_no_priority(shop: Instance) -> None:
    """With SyslogLevelPrefix=yes, systemd's default, `<0>` would reach every terminal of the machine."""
    assert shop.get("/say").status == 200
    shop.machine.until(lambda: len(records(shop, "_TRANSPORT=stdout")) >= 3, "all three lines are there")
    said = records(shop, "_TRANSPORT=stdout")
    assert [(each["MESSAGE"], each["PRIORITY"]) for each in said] == [("<0>boom", INFO)] * 3
    assert {int(each["_PID"]) for each in said} <= set(shop.workers().values())


def test_what_it_sends_as_a_record_keeps_its_level(shop: Instance) -> None:
    assert shop.get("/record").status == 200
    sent = expect(shop, "SYSLOG_IDENTIFIER=shop")
    assert (sent["MESSAGE"], sent["PRIORITY"]) == ("few left\n<0>boom", WARNING)
    assert (sent["SHELF"], sent["CODE_FUNC"]) == ("7", "record")
    assert sent["_TRANSPORT"] == "journal"
