"""Messages, descriptors and end of file between two ends in one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ChannelError
from stardust.ipc.channel import (
    LONGEST_TEXT,
    MOST_BYTES,
    MOST_DESCRIPTORS,
    Channel,
    Message,
    clipped,
    pair,
)
from tests.descriptors import open_descriptors

Ends = tuple[Channel, Channel]
FAILURE = {"reason": "ImportError", "detail": "Traceback"}


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = pair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def test_messages_stay_whole_and_in_order(ends: Ends) -> None:
    ours, theirs = ends
    assert ours.send("fork", {"worker": 3, "slot": 1})
    assert ours.send("ping")
    assert theirs.receive() == Message("fork", {"worker": 3, "slot": 1}, [])
    assert theirs.receive() == Message("ping", {}, [])


@pytest.mark.parametrize("count", [1, 64, MOST_DESCRIPTORS])
def test_descriptors_come_along_and_close_on_exec(ends: Ends, count: int) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    assert ours.send("generation", {}, [writer] * count)
    message = theirs.receive()
    assert message is not None
    assert len(message.descriptors) == count
    assert not any(os.get_inheritable(descriptor) for descriptor in message.descriptors)
    os.write(message.descriptors[-1], b"through")
    assert os.read(reader, 9) == b"through"
    for descriptor in [reader, writer, *message.descriptors]:
        os.close(descriptor)


def test_nothing_has_come_yet(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        ends[1].receive()
    assert not ends[1].at_end


def test_end_of_file_after_what_was_sent(ends: Ends) -> None:
    """Above all "failed", the last word of a zygote."""
    ours, theirs = ends
    ours.send("failed", FAILURE)
    ours.close()
    assert theirs.receive() == Message("failed", FAILURE, [])
    assert theirs.receive() is None
    assert theirs.at_end
    assert theirs.receive() is None


def test_last_words_of_one_who_left_something_unread(ends: Ends) -> None:
    """The kernel says ECONNRESET first, and only then gives what had been sent before."""
    ours, theirs = ends
    theirs.send("reopen")
    ours.send("failed", FAILURE)
    ours.close()
    assert theirs.receive() == Message("failed", FAILURE, [])
    assert theirs.receive() is None
    assert theirs.at_end


def test_sending_to_nobody(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    assert not ours.send("ping")


def test_sending_to_one_who_does_not_read(ends: Ends) -> None:
    """The supervisor never waits for anybody."""
    ours, theirs = ends
    sent = 0
    while ours.send("ping"):
        sent += 1
        assert sent < 100_000
    for _ in range(sent):
        assert theirs.receive() == Message("ping", {}, [])
    assert ours.send("ping")


def test_the_longest_messages_fit(ends: Ends) -> None:
    """A traceback of the most expensive characters, and a configuration of MOST_BYTES."""
    ours, theirs = ends
    for text in (clipped("é" * 2 * LONGEST_TEXT), "x" * (MOST_BYTES - 100)):
        assert ours.send("failed", {"reason": "", "detail": text})
        message = theirs.receive()
        assert message is not None
        assert message.content["detail"] == text


def test_blocking_is_for_the_zygote_only() -> None:
    ours, theirs = pair()
    with ours, theirs:
        assert not Channel(ours).socket.getblocking()
        assert Channel(theirs, blocking=True).socket.getblocking()
        assert not ours.get_inheritable()
        assert not theirs.get_inheritable()


def test_adopting_a_descriptor() -> None:
    ours, theirs = pair()
    with ours:
        adopted = Channel.adopt(theirs.detach(), blocking=True)
        Channel(ours).send("ping")
        assert adopted.receive() == Message("ping", {}, [])
        assert adopted.socket.type == socket.SOCK_SEQPACKET
        adopted.close()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.text(), st.dictionaries(st.text().filter(lambda key: key != "kind"), json_values, max_size=5))
def test_what_is_sent_is_received(kind: str, content: dict[str, object]) -> None:
    ours, theirs = pair()
    with ours, theirs:
        assert Channel(ours).send(kind, content)
        assert Channel(theirs).receive() == Message(kind, content, [])


@given(st.text(max_size=50))
def test_short_texts_are_not_clipped(text: str) -> None:
    assert clipped(text) == text


@pytest.mark.parametrize("length", [LONGEST_TEXT + 1, 10 * LONGEST_TEXT])
def test_long_texts_keep_both_ends(length: int) -> None:
    text = "".join(chr(97 + position % 26) for position in range(length))
    short = clipped(text)
    assert short.startswith(text[:1000])
    assert short.endswith(text[-1000:])
    assert f"{length - LONGEST_TEXT} characters left out" in short
    assert len(short) < LONGEST_TEXT + 100


# --- what none of ours sends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"kind": []}',
        b"[" * 100_000,
        b'{"kind": "forked", "worker": 1}',
        b'{"kind": "forked", "worker": 1, "pid": "1"}',
        b'{"kind": "forked", "worker": true, "pid": 1}',
        b'{"kind": "paused", "pause": 1, "connections": 0, "since": NaN}',
        b'{"kind": "failed", "reason": 1, "detail": ""}',
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)
def test_nonsense_is_refused(ends: Ends, data: bytes) -> None:
    """With whatever descriptors came along, and what comes behind it is heard."""
    before = open_descriptors()
    socket.send_fds(ends[0].socket, [data], [0, 1])
    ends[0].send("ready")
    with pytest.raises(ChannelError):
        ends[1].receive()
    assert open_descriptors() == before
    assert ends[1].receive() == Message("ready", {}, [])


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        ours.send(data)
        try:
            message = Channel(theirs).receive()
        except ChannelError:
            return
        assert message is not None
