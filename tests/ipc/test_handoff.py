"""Connections between workers: what arrives is what was given, and nothing else is believed."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import random
import resource
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address
from stardust.base.errors import HandoffError
from stardust.ipc.handoff import _FORM, MOST_DATA, Link, Passage, decode, encode
from tests.descriptors import open_descriptors

HERE = Address("tcp", "127.0.0.1", 8000)
PASSAGE = Passage(HERE, "192.0.2.1", "4711", 3, 10.5, 11.25, b"GET / HTT")
BITS = len(encode(PASSAGE)) * 8

listeners = st.one_of(
    st.builds(
        Address,
        kind=st.just("tcp"),
        host=st.from_regex(r"[0-9a-zA-Z.:%-]{0,64}", fullmatch=True),
        port=st.integers(0, 65535),
        path=st.just(""),
    ),
    st.builds(
        Address,
        kind=st.sampled_from(["unix", "abstract"]),
        host=st.just(""),
        port=st.just(0),
        path=st.binary(max_size=107).map(os.fsdecode),
    ),
)
moments = st.floats(0, 1e12)
passages = st.builds(
    Passage,
    listener=listeners,
    host=st.one_of(st.just(""), st.ip_addresses().map(str)),
    port=st.one_of(st.just(""), st.integers(0, 65535).map(str)),
    requests=st.integers(0, 2**32 - 1),
    began=moments,
    since=moments,
    data=st.binary(max_size=300),
)


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link.create()
    yield link
    link.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    client.settimeout(20)
    with client, server:
        yield client, server


def send_raw(link: Link, data: bytes, *descriptors: int) -> None:
    """What a worker could send that somebody else has taken over."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    link._writer.sendmsg([data], [rights] if descriptors else [])


# --- the message -------------------------------------------------------------------------------------------


@given(passages)
def test_what_arrives_is_what_was_sent(passage: Passage) -> None:
    assert decode(encode(passage)) == passage


@given(passages, st.data())
def test_a_part_of_a_message_is_none(passage: Passage, data: st.DataObject) -> None:
    """Its last bytes may be missing: they are the client's, and their number is that of the message."""
    message = encode(passage)
    head = len(message) - len(passage.data)
    with pytest.raises(HandoffError):
        decode(message[: data.draw(st.integers(0, head - 1))])


@given(st.binary(max_size=400))
def test_other_bytes_are_no_message(message: bytes) -> None:
    with pytest.raises(HandoffError):
        decode(b"c2" + message)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_an_error(rest: bytes) -> None:
    """And whatever is taken for a message could be one."""
    try:
        passage = decode(b"c1" + rest)
    except HandoffError:
        return
    assert decode(encode(passage)) == passage
    assert len(passage.data) <= MOST_DATA


@given(st.integers(0, BITS - 1), st.integers(0, BITS - 1))
def test_flipped_bits_are_a_message_or_an_error(first: int, second: int) -> None:
    message = bytearray(encode(PASSAGE))
    for bit in (first, second):
        message[bit // 8] ^= 1 << bit % 8
    try:
        assert encode(decode(bytes(message))) == message
    except HandoffError:
        pass


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), -1.0], ids=str)
def test_a_moment_that_is_none(moment: float) -> None:
    for passage in (PASSAGE._replace(began=moment), PASSAGE._replace(since=moment)):
        with pytest.raises(HandoffError, match="out of range"):
            decode(encode(passage))


@pytest.mark.parametrize(
    ("passage", "reason"),
    [
        (PASSAGE._replace(host="evil host"), "address"),
        (PASSAGE._replace(host="a\r\nb"), "address"),
        (PASSAGE._replace(host="::::"), "address"),
        (PASSAGE._replace(host="192.0.2.1.5"), "address"),
        (PASSAGE._replace(port="4711x"), "address"),
        (PASSAGE._replace(listener=Address("tcp", "a b", 1)), "address"),
        (PASSAGE._replace(listener=Address("tcp", "\x80", 1)), "not ASCII"),
        (PASSAGE._replace(data=bytes(MOST_DATA + 1)), "out of range"),
    ],
    ids=[
        "host with blank",
        "host with line end",
        "colons",
        "five numbers",
        "port",
        "listener",
        "not ASCII",
        "too much data",
    ],
)
def test_what_no_worker_sends(passage: Passage, reason: str) -> None:
    with pytest.raises(HandoffError, match=reason):
        decode(encode(passage))


# --- the link ----------------------------------------------------------------------------------------------


def test_a_connection_goes_over(link: Link, pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    assert link.give(server.fileno(), PASSAGE)
    server.close()
    taken = link.take()
    assert taken is not None
    sock, passage = taken
    assert passage == PASSAGE
    assert not os.get_inheritable(sock.fileno())
    sock.send(b"hello")
    sock.close()
    assert client.recv(100) == b"hello"
    assert client.recv(100) == b""


def test_as_much_data_as_allowed(link: Link, pair: tuple[socket.socket, socket.socket]) -> None:
    passage = PASSAGE._replace(data=random.Random(1).randbytes(MOST_DATA))
    assert link.give(pair[1].fileno(), passage)
    taken = link.take()
    assert taken is not None
    taken[0].close()
    assert taken[1] == passage


def test_a_nudge_is_no_connection(link: Link) -> None:
    link.nudge()
    assert link.take() is None
    with pytest.raises(BlockingIOError):
        link.take()


def test_what_is_not_taken_yet_can_be_told(link: Link, pair: tuple[socket.socket, socket.socket]) -> None:
    assert not link.untaken()
    assert link.give(pair[0].fileno(), PASSAGE)
    link.nudge()
    assert link.untaken()
    taken = link.take()
    assert taken is not None
    taken[0].close()
    assert link.untaken()
    assert link.take() is None
    assert not link.untaken()


def test_a_full_link_takes_no_more(link: Link, pair: tuple[socket.socket, socket.socket]) -> None:
    """Nobody waits for room; when somebody has taken one, there is room for another."""
    given = 0
    while link.give(pair[1].fileno(), PASSAGE):
        given += 1
        assert given < 10_000
    link.nudge()
    for _ in range(given):
        taken = link.take()
        assert taken is not None
        taken[0].close()
        assert link.give(pair[1].fileno(), PASSAGE)


def test_what_was_given_outlives_the_giver(link: Link, pair: tuple[socket.socket, socket.socket]) -> None:
    """The ends of a link are as good as each other's, and a message waits as long as one is open."""
    giver = Link.adopt(*map(os.dup, link.descriptors))
    assert giver.give(pair[1].fileno(), PASSAGE)
    giver.close()
    pair[1].close()
    taken = link.take()
    assert taken is not None
    taken[0].send(b"hello")
    taken[0].close()
    assert pair[0].recv(100) == b"hello"


def test_without_a_free_descriptor_nothing_is_taken(
    link: Link, pair: tuple[socket.socket, socket.socket]
) -> None:
    assert link.give(pair[1].fileno(), PASSAGE)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, open_descriptors())), limits[1]))
    hoard: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while len(hoard) < limits[0]:
                hoard.append(os.dup(0))
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            link.take()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in hoard:
            os.close(descriptor)
    taken = link.take()
    assert taken is not None
    taken[0].close()


# --- what nobody of ours would send ------------------------------------------------------------------------


def test_bytes_without_sense(link: Link) -> None:
    """Whatever they are and whatever comes with them: an error, and no descriptor is left open."""
    chance = random.Random(2)
    before = open_descriptors()
    for _ in range(2000):
        kind = chance.choice([b"", b"c1", b"n1", encode(PASSAGE)[: chance.randrange(60)]])
        send_raw(link, kind + chance.randbytes(chance.randrange(1, 200)), *[0] * chance.randrange(3))
        try:
            taken = link.take()
        except HandoffError:
            continue
        assert taken is not None
        taken[0].close()
    assert open_descriptors() == before


@pytest.mark.parametrize("count", [0, 2, 3, 200])
def test_a_wrong_number_of_descriptors(
    link: Link, pair: tuple[socket.socket, socket.socket], count: int
) -> None:
    before = open_descriptors()
    send_raw(link, encode(PASSAGE), *[pair[1].fileno()] * count)
    with pytest.raises(HandoffError, match="descriptor"):
        link.take()
    assert open_descriptors() == before


def test_a_message_too_long(link: Link, pair: tuple[socket.socket, socket.socket]) -> None:
    before = open_descriptors()
    send_raw(link, encode(PASSAGE) + bytes(100_000), pair[1].fileno())
    with pytest.raises(HandoffError, match="too long"):
        link.take()
    assert open_descriptors() == before


def test_a_nudge_with_a_descriptor(link: Link) -> None:
    before = open_descriptors()
    send_raw(link, b"n1", 0)
    with pytest.raises(HandoffError):
        link.take()
    assert open_descriptors() == before


def test_no_bytes_at_all(link: Link) -> None:
    """To a reader of a SEQPACKET socket an empty message looks like the end of the file."""
    send_raw(link, b"", 0)
    with pytest.raises(HandoffError, match="0 bytes"):
        link.take()


@pytest.mark.parametrize("kind", ["file", "pipe", "datagram", "seqpacket", "listener"])
def test_what_is_no_connection(link: Link, kind: str) -> None:
    with (
        open(os.devnull) as file,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as seqpacket,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        reader, writer = os.pipe()
        descriptor = {
            "file": file.fileno(),
            "pipe": reader,
            "datagram": datagram.fileno(),
            "seqpacket": seqpacket.fileno(),
            "listener": listener.fileno(),
        }[kind]
        before = open_descriptors()
        send_raw(link, encode(PASSAGE), descriptor)
        with pytest.raises(HandoffError, match=r"not a socket|not a stream connection"):
            link.take()
        assert open_descriptors() == before
        os.close(reader)
        os.close(writer)


def test_the_form_has_no_gaps() -> None:
    """Bytes between fields would be uninitialised, or ignored."""
    assert _FORM.size == 2 + 4 + 8 + 8 + 2 + 4


def test_a_default_timeout_is_not_for_a_connection_that_comes(
    link: Link, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It would wait so long for what is not there, whatever flags say."""
    assert link.give(pair[1].fileno(), PASSAGE)
    socket.setdefaulttimeout(20)
    try:
        taken = link.take()
    finally:
        socket.setdefaulttimeout(None)
    assert taken is not None
    sock, _ = taken
    assert sock.gettimeout() is None
    sock.close()
