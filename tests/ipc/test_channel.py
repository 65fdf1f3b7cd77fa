"""Messages, descriptors and end of file between two ends in one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.address import Address
from stardust.base.errors import ChannelError
from stardust.ipc import messages
from stardust.ipc.channel import MOST_BYTES, MOST_DESCRIPTORS, Channel, pair
from stardust.ipc.messages import LONGEST_TEXT, FromZygote, ToZygote, clipped
from tests.descriptors import open_descriptors

Ends = tuple[Channel[ToZygote, FromZygote], Channel[FromZygote, ToZygote]]
FAILURE = messages.Failed("ImportError", "Traceback")


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A zygote's, and its supervisor's."""
    ours, theirs = pair()
    with ours, theirs:
        yield Channel(ours, messages.ZYGOTE), Channel(theirs, messages.SUPERVISOR_OF_ZYGOTE)


def test_messages_stay_whole_and_in_order(ends: Ends) -> None:
    ours, theirs = ends
    assert ours.send(messages.Forked(worker=3, pid=1))
    assert ours.send(messages.Loaded())
    assert theirs.receive() == messages.Forked(worker=3, pid=1)
    assert theirs.receive() == messages.Loaded()


@pytest.mark.parametrize("count", [1, 64, MOST_DESCRIPTORS])
def test_descriptors_come_along_and_close_on_exec(ends: Ends, count: int) -> None:
    theirs, ours = ends
    reader, writer = os.pipe()
    listener = messages.Listener("http", Address("tcp"), own=True, socket=writer)
    listeners = (listener,) * (count - 1)
    assert ours.send(messages.Generation(1, "{}", "", True, writer, None, None, None, listeners))
    message = theirs.receive()
    assert isinstance(message, messages.Generation)
    descriptors = [message.scoreboard, *(each.socket for each in message.listeners)]
    assert len(set(descriptors)) == count
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    os.write(descriptors[-1], b"through")
    assert os.read(reader, 9) == b"through"
    for descriptor in [reader, writer, *descriptors]:
        os.close(descriptor)


def test_nothing_has_come_yet(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        ends[1].receive()
    assert not ends[1].at_end


def test_end_of_file_after_what_was_sent(ends: Ends) -> None:
    """Above all "failed", the last word of a zygote."""
    ours, theirs = ends
    ours.send(FAILURE)
    ours.close()
    assert theirs.receive() == FAILURE
    assert theirs.receive() is None
    assert theirs.at_end
    assert theirs.receive() is None


def test_last_words_of_one_who_left_something_unread(ends: Ends) -> None:
    """The kernel says ECONNRESET first, and only then gives what had been sent before."""
    ours, theirs = ends
    theirs.send(messages.Reap(worker=1, pid=1))
    ours.send(FAILURE)
    ours.close()
    assert theirs.receive() == FAILURE
    assert theirs.receive() is None
    assert theirs.at_end


def test_sending_to_nobody(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.send(messages.Loaded())


def test_sending_to_one_who_does_not_read(ends: Ends) -> None:
    """The supervisor never waits for anybody."""
    ours, theirs = ends
    sent = 0
    while ours.send(messages.Loaded()):
        sent += 1
        assert sent < 100_000
    for _ in range(sent):
        assert theirs.receive() == messages.Loaded()
    assert ours.send(messages.Loaded())


def test_the_longest_messages_fit(ends: Ends) -> None:
    """A traceback of the most expensive characters, and a configuration of MOST_BYTES."""
    ours, theirs = ends
    for text in (clipped("é" * 2 * LONGEST_TEXT), "x" * (MOST_BYTES - 100)):
        assert ours.send(messages.Failed("", text))
        message = theirs.receive()
        assert isinstance(message, messages.Failed)
        assert message.detail == text


def test_blocking_is_for_the_zygote_only() -> None:
    ours, theirs = pair()
    with ours, theirs:
        assert not Channel(ours, messages.SUPERVISOR_OF_ZYGOTE).socket.getblocking()
        assert Channel(theirs, messages.ZYGOTE, blocking=True).socket.getblocking()
        assert not ours.get_inheritable()
        assert not theirs.get_inheritable()


def test_adopting_a_descriptor() -> None:
    ours, theirs = pair()
    with ours:
        adopted = Channel.adopt(theirs.detach(), messages.WORKER, blocking=True)
        Channel(ours, messages.SUPERVISOR_OF_WORKER).send(messages.Ping())
        assert adopted.receive() == messages.Ping()
        assert adopted.socket.type == socket.SOCK_SEQPACKET
        adopted.close()


@given(st.text(), st.text())
def test_what_is_sent_is_received(reason: str, detail: str) -> None:
    """Of whatever kind: tests/ipc/test_messages.py."""
    ours, theirs = pair()
    with ours, theirs:
        assert Channel(ours, messages.WORKER).send(messages.Failed(reason, detail))
        heard = Channel(theirs, messages.SUPERVISOR_OF_WORKER).receive()
        assert heard == messages.Failed(reason, detail)


# --- what none of ours sends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"kind": []}',
        b"[" * 100_000,
        b'{"kind": "redy"}',
        b'{"kind": "Ping"}',
        b'{"kind": "Loaded"}',
        b'{"kind": "Forked", "worker": 1}',
        b'{"kind": "Forked", "worker": 1, "pid": "1"}',
        b'{"kind": "Forked", "worker": true, "pid": 1}',
        b'{"kind": "Paused", "pause": 1, "connections": 0, "since": NaN}',
        b'{"kind": "Failed", "reason": 1, "detail": ""}',
        b'{"kind": "Loaded"}' + b" " * MOST_BYTES,
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)
def test_nonsense_is_refused(ends: Ends, data: bytes) -> None:
    """With whatever descriptors came along, and what comes behind it is heard."""
    before = open_descriptors()
    socket.send_fds(ends[0].socket, [data], [0, 1])
    ends[0].send(messages.Loaded())
    with pytest.raises(ChannelError, match=r"^an invalid message: "):
        ends[1].receive()
    assert open_descriptors() == before
    assert not ends[1].at_end
    assert ends[1].receive() == messages.Loaded()


def test_more_descriptors_than_a_message_may_have(ends: Ends) -> None:
    before = open_descriptors()
    socket.send_fds(ends[0].socket, [b'{"kind": "Loaded"}'], [0] * (MOST_DESCRIPTORS + 3))
    with pytest.raises(ChannelError):
        ends[1].receive()
    assert open_descriptors() == before


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        ours.send(data)
        try:
            message = Channel(theirs, messages.SUPERVISOR_OF_WORKER).receive()
        except ChannelError:
            return
        assert message is not None
