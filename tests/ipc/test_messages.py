"""Every message there and back, and what none of ours sends. That each has a handler is mypy's business."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from itertools import count
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base import errors
from stardust.base.address import Address
from stardust.base.errors import ChannelError
from stardust.ipc import messages
from stardust.ipc.messages import LONGEST_TEXT, Descriptor, Side, Status, clipped

SIDES: dict[str, Side[Any, Any]] = {
    "supervisor of zygote": messages.SUPERVISOR_OF_ZYGOTE,
    "supervisor of worker": messages.SUPERVISOR_OF_WORKER,
    "zygote": messages.ZYGOTE,
    "worker": messages.WORKER,
}
KINDS: dict[str, type] = {name: kind for side in SIDES.values() for name, kind in side.kinds.items()}
HEARD = [(side, kind) for side, heard in SIDES.items() for kind in heard.kinds]
# One of each, the fields all different.
EXAMPLES: list[Any] = [
    messages.Generation(
        number=2,
        config="{}",
        journal="/run/journal",
        stamped=True,
        scoreboard=70,
        link=messages.Ends(71, 72),
        shelf=messages.Ends(73, 74),
        access_log=75,
        listeners=(
            messages.Listener("http", Address("tcp", "127.0.0.1", 80), True, 76),
            messages.Listener("admin", Address("unix", path="/run/x.sock"), False, 77),
        ),
    ),
    messages.Fork(worker=3, slot=1, channel=70, stacks=71),
    messages.Reap(worker=3, pid=4711, why="request-timeout"),
    messages.Mourn(pid=4711, cause="exit code 3"),
    messages.Reopen(access_log=70),
    messages.Loaded(("thread a", "connection b")),
    messages.Unforkable(("thread c",)),
    messages.Failed("ImportError", "Traceback"),
    messages.Misconfigured("ssl-key-file: k.pem: none"),
    messages.Forked(worker=3, pid=4711),
    messages.ForkFailed(worker=3, reason="Cannot allocate memory"),
    messages.Exited(worker=3, status=256),
    messages.Retire(),
    messages.Stop(),
    messages.Ping(),
    messages.Pause(7),
    messages.Resume(),
    messages.Ready(),
    messages.Leaving(),
    messages.Paused(pause=7, connections=2, since=1.5),
]
NO_KINDS: list[Any] = ["redy", "ready", "", "Ends", "Listener", "Address", None, 3, [], {}]


def content_of(message: Any) -> tuple[dict[str, Any], list[int]]:
    data, descriptors = messages.encode(message)
    content: dict[str, Any] = json.loads(data)
    return content, descriptors


def refused(side: Side[Any, Any], content: object, descriptors: list[int]) -> bool:
    try:
        side.decode(json.dumps(content).encode(), descriptors)
    except ChannelError:
        return True
    return False


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place in a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from places(each, (*path, index))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        content = content[step]
    return content


# --- there and back --------------------------------------------------------------------------------------


def test_there_is_an_example_of_each() -> None:
    assert sorted(type(example).__name__ for example in EXAMPLES) == sorted(KINDS)


def values(kind: Any, descriptors: Iterator[int]) -> st.SearchStrategy[Any]:
    """What may stand in a field. Descriptors are all different, so that none takes the place of another."""
    numbers = st.integers(0, 2**31 - 1)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        Descriptor: st.builds(lambda: next(descriptors)),
        Status: st.integers(0, 0xFFFF).filter(lambda status: status & 0x7F != 0x7F),
        str: st.text(),
        bool: st.booleans(),
        int: numbers,
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    if kind in plain:
        return plain[kind]
    if get_origin(kind) is tuple:
        return st.lists(values(get_args(kind)[0], descriptors), max_size=3).map(tuple)
    if get_origin(kind) is Union:
        return st.none() | values(get_args(kind)[0], descriptors)
    fields = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(each, descriptors) for name, each in fields.items()})


@pytest.mark.parametrize(("side", "kind"), HEARD, ids=str)
@given(st.data())
def test_what_is_sent_is_received(side: str, kind: str, data: st.DataObject) -> None:
    message = data.draw(values(KINDS[kind], count(100)))
    written, descriptors = messages.encode(message)
    assert len(set(descriptors)) == len(descriptors)
    again = SIDES[side].decode(written, descriptors)
    assert (type(again), again) == (type(message), message)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_no_message_is_taken_for_another(example: Any) -> None:
    """Above all those without a field."""
    assert [each for each in EXAMPLES if each == example] == [example]
    assert example


def test_descriptors_travel_by_name() -> None:
    """In the order of the fields, whatever the order of the names in the object."""
    content, descriptors = content_of(messages.Fork(worker=3, slot=1, channel=8, stacks=9))
    assert content == {"kind": "Fork", "worker": 3, "slot": 1, "channel": 0, "stacks": 1}
    assert descriptors == [8, 9]
    turned = json.dumps(dict(reversed(content.items()))).encode()
    assert messages.ZYGOTE.decode(turned, [8, 9]) == messages.Fork(3, 1, 8, 9)


def test_a_moment_may_be_a_whole_number() -> None:
    """For type checkers an int is a float; for `decode` it is none."""
    data, _ = messages.encode(messages.Paused(pause=1, connections=0, since=7))
    assert messages.SUPERVISOR_OF_WORKER.decode(data, []) == messages.Paused(1, 0, 7.0)


# --- what none of ours sends -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "kind", [*KINDS, "redy", "ready", "", "Ends", "Listener", "Address", None, 3, [], {}]
)
def test_a_side_hears_its_own_kinds_only(side: str, kind: Any) -> None:
    """No kind of the wrong direction, and none that there is not."""
    example = [each for each in EXAMPLES if type(each).__name__ == kind]
    content, descriptors = content_of(example[0]) if example else ({"kind": kind}, [])
    hears = isinstance(kind, str) and kind in SIDES[side].kinds
    assert refused(SIDES[side], content, descriptors) is not hears


def side_of(message: Any) -> Side[Any, Any]:
    return next(side for side in SIDES.values() if type(message).__name__ in side.kinds)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_no_field_may_be_missing_and_none_too_many(example: Any) -> None:
    side = side_of(example)
    whole, descriptors = content_of(example)
    assert not refused(side, whole, descriptors)
    for path in places(whole):
        content, _ = content_of(example)
        if path and isinstance(path[-1], str):
            del at(content, path[:-1])[path[-1]]
            assert refused(side, content, descriptors), path
        content, _ = content_of(example)
        if isinstance(at(content, path), dict):
            at(content, path)["surplus"] = None
            assert refused(side, content, descriptors), path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
@pytest.mark.parametrize("wrong", [None, True, 7, 1.5, "text", [], {}], ids=repr)
def test_no_field_may_be_of_another_type(example: Any, wrong: Any) -> None:
    """A bool is no int, an int no float."""
    side = side_of(example)
    whole, descriptors = content_of(example)
    for path in places(whole):
        content, _ = content_of(example)
        optional = wrong is None and path in {("link",), ("shelf",), ("access_log",), ("status",)}
        if path and not optional and type(wrong) is not type(at(content, path)):
            at(content, path[:-1])[path[-1]] = wrong
            assert refused(side, content, descriptors), path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
@pytest.mark.parametrize("wrong", [-1, 2**31, 10**100])
def test_numbers_are_what_system_calls_take(example: Any, wrong: int) -> None:
    side = side_of(example)
    whole, descriptors = content_of(example)
    for path in places(whole):
        content, _ = content_of(example)
        if type(at(content, path)) is int:
            at(content, path[:-1])[path[-1]] = wrong
            assert refused(side, content, descriptors), path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_as_many_descriptors_as_it_needs(example: Any) -> None:
    side = side_of(example)
    content, descriptors = content_of(example)
    assert refused(side, content, [*descriptors, 99])
    assert not descriptors or refused(side, content, descriptors[:-1])


@pytest.mark.parametrize("given_places", [(1, 0), (0, 0), (1, 1), (1, 2), (False, True), (0.0, 1.0)], ids=str)
def test_no_descriptor_is_taken_twice_or_left(given_places: tuple[Any, Any]) -> None:
    content = {"kind": "Fork", "worker": 3, "slot": 1, "channel": given_places[0], "stacks": given_places[1]}
    assert refused(messages.ZYGOTE, content, [8, 9])


@pytest.mark.parametrize("status", [0x7F, 0x137F, 0xFFFF, 0x10000, 2**31 - 1])
def test_a_status_that_no_process_ends_with(status: int) -> None:
    """os.waitstatus_to_exitcode() raises for some of them; for the others, see `test_all_statuses`."""
    content = {"kind": "Exited", "worker": 3, "status": status}
    assert refused(messages.SUPERVISOR_OF_ZYGOTE, content, [])


def test_all_statuses() -> None:
    for status in range(0x10000):
        content = {"kind": "Exited", "worker": 3, "status": status}
        if not refused(messages.SUPERVISOR_OF_ZYGOTE, content, []):
            os.waitstatus_to_exitcode(status)  # does not raise


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\xff",
        b"[]",
        b"3",
        b'"Ready"',
        b"null",
        b"{}",
        b'{"kind": []}',
        b"[" * 100_000,
        b'{"kind":' * 20_000,
        b'{"kind": "Ready"} {"kind": "Ready"}',
        b'{"kind": "Paused", "pause": 1, "connections": 0, "since": NaN}',
        b'{"kind": "Paused", "pause": 1, "connections": 0, "since": -Infinity}',
        b'{"kind": "Paused", "pause": 1, "connections": 0, "since": 1e999}',
        b'{"kind": "Paused", "pause": ' + b"9" * 10_000 + b', "connections": 0, "since": 1.5}',
    ],
    ids=lambda data: data[:60].decode("latin-1"),
)
def test_nonsense_is_refused(data: bytes) -> None:
    for side in SIDES.values():
        with pytest.raises(ChannelError, match=r"^an invalid message: b'"):
            side.decode(data, [])


def test_no_side_can_say_what_is_not_finite() -> None:
    """It would be refused; that it is no JSON is the receiver's to see."""
    data, _ = messages.encode(messages.Paused(1, 0, math.inf))
    with pytest.raises(ChannelError):
        messages.SUPERVISOR_OF_WORKER.decode(data, [])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    for side in SIDES.values():
        try:
            message = side.decode(data, [])
        except ChannelError:
            continue
        assert type(message).__name__ in side.kinds


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(HEARD), st.data(), st.lists(st.integers(3, 9), max_size=3))
def test_a_kind_with_any_fields(heard: tuple[str, str], data: st.DataObject, descriptors: list[int]) -> None:
    """What is taken could have been sent: it is written again as it came."""
    side, kind = heard
    names = list(get_type_hints(KINDS[kind]))
    content = data.draw(st.fixed_dictionaries({name: json_values | st.integers(0, 3) for name in names}))
    try:
        message = SIDES[side].decode(json.dumps({"kind": kind, **content}).encode(), descriptors)
    except ChannelError:
        return
    assert content_of(message) == ({"kind": kind, **content}, descriptors)


# --- tracebacks ------------------------------------------------------------------------------------------


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


# --- the end of a chain ----------------------------------------------------------------------------------


def test_what_no_chain_should_reach() -> None:
    with pytest.raises(AssertionError, match=r"not handled: Ready\(\)"):
        errors.assert_never(messages.Ready())  # type: ignore[arg-type]
