from __future__ import annotations

import string

from loads import LOADS
from servers import SERVERS

SINGLE = [server for server in SERVERS if "keep-alive" in server.loads]


def test_names_are_unique() -> None:
    assert len({server.name for server in SERVERS}) == len(SERVERS)


def test_a_server_has_a_command_for_every_way_in_which_it_is_asked() -> None:
    for server in SERVERS:
        for load in LOADS:
            if load.name in server.loads:
                command = server.asked(load.way)
                fields = {field for part in command for _, field, _, _ in string.Formatter().parse(part)}
                assert fields - {None} <= {"app", "module", "port", "scratch"}, command


def test_nobody_is_said_to_be_unable_who_takes_part() -> None:
    known = {load.name for load in LOADS}
    for server in SERVERS:
        assert server.cannot.keys() <= known
        assert not server.cannot.keys() & set(server.loads), server.name


def test_the_peers_of_the_bars_take_part_in_every_load_or_say_why_not() -> None:
    for server in SERVERS:
        if server.name in {"stardust", "gunicorn-gthread", "granian", "bjoern", "waitress", "cheroot"}:
            missing = {load.name for load in LOADS} - set(server.loads) - server.cannot.keys()
            assert missing == set(), server.name
