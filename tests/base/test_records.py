"""Records behave as those of `dataclasses`: the same classes are made by both, and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base import records

FRESH = object()
REFUSED = "refused"


class Nothing:
    """No fields."""


class Event:
    """With required fields."""

    worker: int
    pause: object


class Policy:
    """Each kind of default, and a method."""

    workers: object
    pause: object = 0.5
    rows: Any = FRESH
    listen: tuple[str, ...] = ()

    def total(self) -> object:
        return self.workers


def made(module: Any, of: type, **options: bool) -> Any:
    """The class `of`, made a record by `module`, with a default of each kind."""
    namespace = {name: value for name, value in vars(of).items() if name not in ("__dict__", "__weakref__")}
    if namespace.get("rows") is FRESH:
        namespace["rows"] = module.field(default_factory=list)
        namespace["listen"] = module.field(default=(), metadata={"help": "text"})
    return module.dataclass(**options)(type(of.__name__, (), namespace))


def outcome(act: Callable[[], Any]) -> object:
    """What comes of it; of an exception only whether it is one: the original has FrozenInstanceError, and
    stumbles over its own slots with a TypeError."""
    try:
        return act()
    except (TypeError, AttributeError):
        return REFUSED


def traits(cls: Any, values: tuple[object, ...], named: dict[str, object]) -> dict[str, object]:
    """What can be seen of a class, and of what these arguments make."""
    seen: dict[str, object] = {
        "match": cls.__match_args__,
        "name": (cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__),
        "slots": getattr(cls, "__slots__", None),
        "attributes": [getattr(cls, name, FRESH) for name in ("pause", "listen", "rows")]
        if not hasattr(cls, "__slots__")
        else [],
    }
    one = outcome(lambda: cls(*values, **named))
    if one == REFUSED:
        return {**seen, "made": REFUSED}
    again = cls(*values, **named)
    names = cls.__match_args__
    seen["values"] = [getattr(one, name) for name in names]
    seen["repr"] = repr(one)
    seen["equal"] = (one == again, one != again, one == 1, one == made(dataclasses, Nothing)())
    seen["hash"] = outcome(lambda: hash(one) == hash(again))
    seen["set"] = outcome(lambda: setattr(again, names[0], 7)) if names else None
    seen["other"] = outcome(lambda: setattr(again, "nonsense", 7))
    seen["deleted"] = outcome(lambda: delattr(again, names[0])) if names else None
    return seen


OPTIONS = [
    pytest.param({}, id="mutable"),
    pytest.param({"slots": True}, id="mutable, slots"),
    pytest.param({"frozen": True}, id="frozen"),
    pytest.param({"frozen": True, "slots": True}, id="frozen, slots"),
]
NAMES = ["worker", "pause", "workers", "rows", "nonsense"]
VALUES = st.none() | st.integers(0, 2) | st.text(max_size=2)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("of", [Nothing, Event, Policy])
@given(
    values=st.lists(VALUES, max_size=5),
    named=st.dictionaries(
        st.sampled_from(["worker", "pause", "workers", "rows", "nonsense"]), VALUES, max_size=3
    ),
)
def test_a_record_is_a_dataclass(
    of: type, options: dict[str, bool], values: list[object], named: dict[str, object]
) -> None:
    mine = traits(made(records, of, **options), tuple(values), named)
    theirs = traits(made(dataclasses, of, **options), tuple(values), named)
    assert mine == theirs


@pytest.mark.parametrize("options", OPTIONS)
def test_a_default_factory_is_asked_each_time(options: dict[str, bool]) -> None:
    cls = made(records, Policy, **options)
    assert cls(1).rows is not cls(1).rows


@pytest.mark.parametrize("options", OPTIONS)
@given(changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
def test_replace(options: dict[str, bool], changes: dict[str, Any]) -> None:
    seen = []
    for module in (records, dataclasses):
        first = made(module, Policy, **options)(1)
        other = outcome(lambda module=module, first=first: module.replace(first, **changes))  # type: ignore[misc]
        seen.append((repr(first), repr(other)))
    assert seen[0] == seen[1]


def test_fields_are_in_order_with_what_was_said_of_them() -> None:
    cls = made(records, Policy)
    found = records.fields(cls)
    assert found == records.fields(cls(1))
    assert [each.name for each in found] == ["workers", "pause", "rows", "listen"]
    assert [each.default for each in found[1:4:2]] == [0.5, ()]
    assert [dict(each.metadata) for each in found] == [{}, {}, {}, {"help": "text"}]


def test_methods_are_kept_and_patterns_match() -> None:
    one = made(records, Policy, frozen=True, slots=True)(4, 2)
    assert one.total() == 4
    match one:
        case object(workers=4, pause=pause):
            assert pause == 2
        case _:
            pytest.fail("no match")


def test_classes_with_the_same_fields_differ() -> None:
    one, other = made(records, Event, frozen=True)(1, 2), made(records, Event, frozen=True)(1, 2)
    assert one != other
