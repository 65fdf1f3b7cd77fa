"""Names in the descriptor store: what goes in comes out, and no socket unit's socket is taken for ours."""

from __future__ import annotations

import os
import socket
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base import address as addresses
from stardust.base.address import Address, parse
from stardust.systemd import store
from stardust.systemd.store import Stored

TCP = Stored(84213, True, None, parse("127.0.0.1:5000"))
UNIX = Stored(7, False, (25, 1031), parse("/run/my app/ü.sock"))


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        pytest.param(TCP, "bound-84213-ipv6-0.0-127.0.0.1%3A5000", id="tcp"),
        pytest.param(TCP._replace(ipv6=False), "bound-84213-ipv4-0.0-127.0.0.1%3A5000", id="ipv6 off"),
        pytest.param(TCP._replace(address=parse("[::1]:80")), "bound-84213-ipv6-0.0-[%3A%3A1]%3A80", id="v6"),
        pytest.param(TCP._replace(address=parse(":0")), "bound-84213-ipv6-0.0-%3A0", id="wildcard, any port"),
        pytest.param(TCP._replace(address=parse("@app")), "bound-84213-ipv6-0.0-@app", id="abstract"),
        pytest.param(UNIX, "bound-7-ipv4-25.1031-/run/my%20app/%C3%BC.sock", id="path"),
    ],
)
def test_names(stored: Stored, name: str) -> None:
    assert store.name(stored) == name
    assert store.parse(name) == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stored",
        "http",
        "bound-",
        "bound-1-ipv6-0.0-",
        "bound-1-ipv6-0.0-nonsense",
        "bound-1-ipv5-0.0-@app",
        "bound-x-ipv6-0.0-@app",
        "bound-01-ipv6-0.0-@app",
        "bound-1-ipv6-0.0-@%61pp",
        "bound-1-ipv6-0.0-@%ff",
        "bound-1-ipv6-0.0-@app\n",
        "bound-²-ipv6-0.0-@app",
    ],
)
def test_what_no_name_of_ours_is(text: str) -> None:
    assert store.parse(text) is None


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
hosts = st.just("") | st.text(string.ascii_lowercase + string.digits, min_size=1).map("a".__add__)
ports = st.integers(0, 65535)


@given(
    st.builds(
        Stored,
        inode=st.integers(1, 2**64),
        ipv6=st.booleans(),
        file=st.none() | st.tuples(st.integers(1, 2**64), st.integers(1, 2**64)),
        address=st.builds(lambda host, port: Address(addresses.TCP, host, port), hosts, ports)
        | names.map(lambda name: Address(addresses.ABSTRACT, path=name))
        | names.map(lambda name: Address(addresses.UNIX, path=f"/run/{name}.sock")),
    )
)
def test_every_name_is_one_for_systemd_and_reads_back(stored: Stored) -> None:
    """systemd's fdname_is_valid(): ASCII without control characters and ":", at most 255."""
    name = store.name(stored)
    assert len(name) <= store.LONGEST
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set(":\\\"' ")
    assert name == "" or store.parse(name) == stored


@given(st.text() | st.from_regex(r"bound-[0-9]{1,3}-ipv[46]-[0-9]\.[0-9]-.*", fullmatch=True))
def test_whatever_parses_is_what_we_would_write(text: str) -> None:
    stored = store.parse(text)
    assert stored is None or store.name(stored) == text


def test_what_has_no_room_is_not_stored() -> None:
    assert store.name(UNIX._replace(address=Address(addresses.UNIX, path="/" + "ü" * 53))) == ""


@pytest.mark.parametrize(
    ("limit", "room"),
    [
        pytest.param(64, 0, id="hardly any"),
        pytest.param(1024, 448, id="systemd's own limit"),
        pytest.param(524288, 16000, id="so many names make a long variable"),
    ],
)
def test_room_for_connections(limit: int, room: int) -> None:
    assert store.room(limit) == room
    assert len(f"LISTEN_FDNAMES={':'.join([store.CONNECTION] * room)}") < 2 * 131072 // 3


def test_a_name_belongs_to_one_socket() -> None:
    """A FileDescriptorName= that was copied from a store says nothing about another socket."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        stored = TCP._replace(inode=os.fstat(one.fileno()).st_ino)
        assert store.read(one.fileno(), store.name(stored)) == stored
        assert store.read(other.fileno(), store.name(stored)) is None
        assert store.read(one.fileno(), "http") is None


def test_a_file_is_no_stored_socket() -> None:
    with open(__file__) as file:
        inode = os.fstat(file.fileno()).st_ino
        assert store.read(file.fileno(), store.name(TCP._replace(inode=inode))) is None
