"""Which socket serves which table: systemd's, one from before, or a new one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address, parse
from stardust.base.errors import ActivationError
from stardust.listeners.choice import Bind, Choice, Inherit, Keep, match, wanted
from stardust.settings.table import DEFAULT_ADDRESS, Listen
from stardust.systemd.store import Stored
from tests.listeners.given import config

A, B = parse("127.0.0.1:8000"), parse("/run/app.sock")
HTTP, ADMIN = Listen(name="http", address=A), Listen(name="admin", address=B)
FROM_SYSTEMD = Listen(name="http")
ANY_PORT = parse("127.0.0.1:0")
ANY, ANOTHER = Listen(name="any", address=ANY_PORT), Listen(name="another", address=ANY_PORT)
DEFAULT = Listen(name="default", address=DEFAULT_ADDRESS)


@pytest.mark.parametrize(
    ("tables", "inherited", "bound", "choices"),
    [
        pytest.param([], [], [], [Bind(DEFAULT)], id="nothing said: the default address"),
        pytest.param([], [], [("default", DEFAULT_ADDRESS)], [Keep(DEFAULT, 0)], id="and it is kept"),
        pytest.param(
            [],
            [("web", A), ("web", B)],
            [],
            [Inherit(Listen(name="web"), 0), Inherit(Listen(name="web"), 1)],
            id="no tables: all of systemd's, with defaults",
        ),
        pytest.param([HTTP, ADMIN], [], [], [Bind(HTTP), Bind(ADMIN)], id="bind all"),
        pytest.param([HTTP], [("http", B)], [], [Inherit(HTTP, 0)], id="by name, whatever the address"),
        pytest.param(
            [ADMIN, FROM_SYSTEMD],
            [("http", A), ("http", B)],
            [],
            [Bind(ADMIN), Inherit(FROM_SYSTEMD, 0), Inherit(FROM_SYSTEMD, 1)],
            id="several of one name beside an own one",
        ),
        pytest.param([HTTP, ADMIN], [], [("x", B)], [Bind(HTTP), Keep(ADMIN, 0)], id="kept by address"),
        pytest.param(
            [ANY, ANOTHER],
            [],
            [("x", ANY_PORT), ("y", ANY_PORT)],
            [Keep(ANY, 0), Keep(ANOTHER, 1)],
            id="two on any port keep theirs",
        ),
        pytest.param(
            [HTTP], [("http", A)], [("http", A)], [Inherit(HTTP, 0)], id="systemd's before an own one"
        ),
    ],
)
def test_match(
    tables: list[Listen],
    inherited: list[tuple[str, Address]],
    bound: list[tuple[str, Address]],
    choices: list[Choice],
) -> None:
    assert match(tables, inherited, bound) == choices


def test_match_refuses_a_descriptor_without_a_table() -> None:
    with pytest.raises(ActivationError) as caught:
        match([HTTP, ADMIN], [("htpp", A)], [])
    assert str(caught.value) == (
        'systemd passed the socket "htpp" (127.0.0.1:8000), but the configuration has only '
        "[listen.http], [listen.admin]; add [listen.htpp], or change FileDescriptorName= of the .socket unit"
        '; did you mean "http"?'
    )


def test_match_refuses_a_table_with_neither_address_nor_descriptor() -> None:
    with pytest.raises(ActivationError) as caught:
        match([FROM_SYSTEMD, ADMIN], [("admin", A)], [])
    assert str(caught.value) == (
        "[listen.http] has no address, and systemd passed no socket of that name (it passed: "
        '"admin"); set its address, or start the .socket unit with FileDescriptorName=http'
    )


names = st.sampled_from(["http", "admin", "api"])
addresses = st.sampled_from([A, B, parse(":80"), parse("@x")])


@given(
    tables=st.lists(
        st.builds(Listen, name=names, address=st.none() | addresses), unique_by=lambda table: table.name
    ),
    inherited=st.lists(st.tuples(names, addresses)),
    bound=st.lists(st.tuples(names, addresses)),
)
def test_match_uses_every_descriptor_once_and_serves_every_table(
    tables: list[Listen], inherited: list[tuple[str, Address]], bound: list[tuple[str, Address]]
) -> None:
    try:
        choices = match(tables, inherited, bound)
    except ActivationError:
        return
    used = [choice.position for choice in choices if isinstance(choice, Inherit)]
    assert sorted(used) == list(range(len(inherited)))
    if tables:
        assert {choice.table.name for choice in choices} == {table.name for table in tables}
    kept = [choice.position for choice in choices if isinstance(choice, Keep)]
    assert len(kept) == len(set(kept)), "no socket serves two tables"
    for choice in choices:
        if isinstance(choice, Keep):
            assert bound[choice.position][1] == choice.table.address
        elif isinstance(choice, Bind):
            assert choice.table.address is not None


def stored(text: str, *, ipv6: bool = True) -> Stored:
    return Stored(1, ipv6, None, parse(text))


@pytest.mark.parametrize(
    ("tables", "ipv6", "returned", "positions"),
    [
        pytest.param(["127.0.0.1:80"], True, [stored("127.0.0.1:80")], [0], id="asked for"),
        pytest.param(["127.0.0.1:80"], True, [stored("127.0.0.1:81")], [], id="another port"),
        pytest.param(["127.0.0.1:80"], True, [stored(":80")], [], id="another host"),
        pytest.param([], True, [stored(str(DEFAULT_ADDRESS))], [0], id="the default address"),
        pytest.param([], True, [], [], id="nothing stored"),
        pytest.param([None], True, [stored("127.0.0.1:80")], [], id="a table for a socket unit"),
        pytest.param([":80"], False, [stored(":80", ipv6=True)], [], id="a wildcard that loses IPv6"),
        pytest.param([":80"], True, [stored(":80", ipv6=False)], [], id="a wildcard that gets IPv6"),
        pytest.param([":80"], False, [stored(":80", ipv6=False)], [0], id="a wildcard as it was"),
        pytest.param(["@x"], False, [stored("@x", ipv6=True)], [0], id="ipv6 is about the wildcard"),
        pytest.param(
            ["127.0.0.1:0", "@x", "127.0.0.1:0"],
            True,
            [stored("127.0.0.1:0")] * 3 + [stored("@x")],
            [0, 1, 3],
            id="one for each that asks",
        ),
    ],
)
def test_wanted(tables: list[str | None], ipv6: bool, returned: list[Stored], positions: list[int]) -> None:
    listen = [
        Listen(name=str(number), address=parse(text) if text else None) for number, text in enumerate(tables)
    ]
    assert wanted(config(*listen, ipv6=ipv6), returned) == positions


@given(
    tables=st.lists(st.builds(Listen, name=names, address=addresses)),
    returned=st.lists(st.builds(Stored, st.integers(1), st.booleans(), st.none(), addresses)),
    ipv6=st.booleans(),
)
def test_all_that_is_wanted_is_kept(tables: list[Listen], returned: list[Stored], ipv6: bool) -> None:
    """`match` has a table for each, so that nothing goes on listening for nobody."""
    positions = wanted(config(*tables, ipv6=ipv6), returned)
    bound = [("", returned[position].address) for position in positions]
    kept = [each.position for each in match(tables, [], bound) if isinstance(each, Keep)]
    assert sorted(kept) == [*range(len(positions))]
