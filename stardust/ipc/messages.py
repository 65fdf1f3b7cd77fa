"""What supervisor, zygote and worker say to each other: every message, and how it becomes bytes and back.

A message is a record. On the wire it is one JSON object, of its "kind", which is the name of the class, and
its fields. A field that is a `Descriptor` travels beside it (SCM_RIGHTS, unix(7)), and the object has its
place in the row; the receiver owns it.

A `Side` knows what it may hear, and takes nothing else: zygote and workers run the application, and the
supervisor must survive whatever that does. It checks types, and that numbers are in the range of the system
calls that they are meant for.

A message is added as a class here and in the unions of the sides that hear it; mypy then names every place
that has to handle it. Records, not named tuples: two messages without a field, as tuples, would be equal.

Pure. Runs in the application's interpreter too: Python 3.9.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import (
    Annotated,
    Any,
    Generic,
    NoReturn,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from stardust.base.address import Address
from stardust.base.errors import ChannelError
from stardust.base.records import dataclass

LONGEST_TEXT = 32_000  # characters of a traceback
_LARGEST = 2**31 - 1  # of a number: process ids and the like are an int in C

Descriptor = Annotated[int, "descriptor"]
Status = Annotated[int, "status"]
"""As waitpid(2) gives it, of a process that has ended."""


# --- to a zygote -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a `handoff.Link`."""

    reader: Descriptor
    writer: Descriptor


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket. `own`: it closes with the server; else systemd has it too."""

    name: str
    address: Address
    own: bool
    socket: Descriptor


@dataclass(frozen=True, slots=True)
class Generation:
    """Once, first: be the zygote of generation `number`. Its answer is Loaded, Failed or Misconfigured.

    `config` is that of `settings.dump`; `journal` and `stamped` are the log's `Sink`. `link` leads from
    worker to worker, `shelf` to the next start of the server; without them it serves by itself, alone.
    `access_log` is None without an access log.
    """

    number: int
    config: str
    journal: str
    stamped: bool
    scoreboard: Descriptor
    link: Optional[Ends]
    shelf: Optional[Ends]
    access_log: Optional[Descriptor]
    listeners: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork a worker, with its end of a channel, and memory for its stacks: Forked or ForkFailed."""

    worker: int
    slot: int
    channel: Descriptor
    stacks: Descriptor


@dataclass(frozen=True, slots=True)
class Reap:
    """Wait for a worker that was seen ending: Exited. `why`: the supervisor has ended it; else that is ""."""

    worker: int
    pid: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Mourn:
    """Call `after-death` for process `pid`, which was another zygote's. No answer."""

    pid: int
    cause: str


@dataclass(frozen=True, slots=True)
class Reopen:
    """Go on in this access log. A worker does, a zygote has it for workers to come."""

    access_log: Descriptor


# --- from a zygote ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The application is there, or will be loaded by each worker. `holds`: what will break in workers that
    are forked from here, in words; it was told to fork them all the same."""

    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unforkable:
    """The application is there, and `holds`, in words, what would break in workers that are forked from here.
    They are not: the sender is of no use any more."""

    holds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The application cannot be loaded: in a line, and a traceback (`clipped`). The sender ends.

    A worker says it too, if each loads its own.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A setting is wrong in what only a zygote sees. The sender ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Forked:
    """The worker is process `pid`, which stays its own until it is reaped."""

    worker: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """There is no such worker."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker was reaped, and this is how it ended; None if somebody else has waited for it."""

    worker: int
    status: Optional[Status]


# --- to a worker -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retire:
    """Leave; another worker follows."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave; no worker follows."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Show on the scoreboard that the loop turns."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Accept nothing until Resume, and say what is held: Paused, with the same number."""

    pause: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Accept again."""


# --- from a worker ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """It serves from now on."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """It takes nothing new: by order, or because it reached its own limit."""


@dataclass(frozen=True, slots=True)
class Paused:
    """What it holds in this pause, and if that is nothing, since when (monotonic seconds)."""

    pause: int
    connections: int
    since: float


# --- who says what ---------------------------------------------------------------------------------------

ToZygote = Union[Generation, Fork, Reap, Mourn, Reopen]
FromZygote = Union[Loaded, Unforkable, Failed, Misconfigured, Forked, ForkFailed, Exited]
ToWorker = Union[Retire, Stop, Ping, Pause, Resume, Reopen]
FromWorker = Union[Ready, Failed, Leaving, Paused]

Heard = TypeVar("Heard", covariant=True)
Said = TypeVar("Said", contravariant=True)


class Side(Generic[Heard, Said]):
    """One side of a channel: what it hears, a union of messages, and, for type checkers, what it says."""

    def __init__(self, heard: Any) -> None:
        self.kinds = {kind.__name__: kind for kind in get_args(heard)}

    def decode(self, data: bytes, descriptors: Sequence[int]) -> Heard:
        """The message of `data` and what came with it. Raises ChannelError; then the descriptors
        are still the caller's."""
        try:
            content = json.loads(data, parse_constant=_refuse)
            if type(content) is not dict:
                _refuse(content)
            kind = self.kinds[content.pop("kind")]
            places = enumerate(descriptors)
            message: Heard = _read(kind, content, places)
            for place in places:
                _refuse(place)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ChannelError(f"an invalid message: {data[:100]!r}") from None
        return message


SUPERVISOR_OF_ZYGOTE: Side[FromZygote, ToZygote] = Side(FromZygote)
SUPERVISOR_OF_WORKER: Side[FromWorker, ToWorker] = Side(FromWorker)
ZYGOTE: Side[ToZygote, FromZygote] = Side(ToZygote)
WORKER: Side[ToWorker, FromWorker] = Side(ToWorker)


# --- records and bytes -----------------------------------------------------------------------------------

_PLAIN: dict[Any, tuple[type, Callable[[Any], bool]]] = {
    str: (str, lambda text: True),
    bool: (bool, lambda flag: True),
    int: (int, lambda number: 0 <= number <= _LARGEST),
    float: (float, math.isfinite),
    Status: (int, lambda status: 0 <= status <= 0xFFFF and status & 0x7F != 0x7F),  # else it was stopped
}
"""What JSON has itself: the type it must be of, exactly (a bool is not an int), and its range."""


def encode(message: object) -> tuple[bytes, list[int]]:
    """The bytes of a message, and the descriptors that go with them. `Side.decode` is the way back."""
    descriptors: list[int] = []
    content = _written(type(message), message, descriptors)
    return json.dumps({"kind": type(message).__name__, **content}).encode(), descriptors


def _written(kind: Any, value: Any, descriptors: list[int]) -> Any:
    """A value of a field, as JSON has it."""
    if kind == Descriptor:
        descriptors.append(value)
        return len(descriptors) - 1
    if kind is float:
        return float(value)  # for type checkers, an int is one
    if kind in _PLAIN:
        return value
    if get_origin(kind) is tuple:
        return [_written(get_args(kind)[0], each, descriptors) for each in value]
    if get_origin(kind) is Union:
        return None if value is None else _written(get_args(kind)[0], value, descriptors)
    return {name: _written(each, getattr(value, name), descriptors) for name, each in _fields(kind).items()}


def _read(kind: Any, value: Any, places: Iterator[tuple[int, int]]) -> Any:
    """What `_written` made that of, of exactly its type. Raises ValueError and KeyError."""
    if kind == Descriptor:
        place, descriptor = next(places, (None, 0))
        return descriptor if type(value) is int and value == place else _refuse(value)
    if kind in _PLAIN:
        wanted, possible = _PLAIN[kind]
        return value if type(value) is wanted and possible(value) else _refuse(value)
    if get_origin(kind) is tuple:
        if type(value) is not list:
            _refuse(value)
        return tuple([_read(get_args(kind)[0], each, places) for each in value])
    if get_origin(kind) is Union:
        return None if value is None else _read(get_args(kind)[0], value, places)
    fields = _fields(kind)
    if type(value) is not dict or value.keys() != fields.keys():
        _refuse(value)
    return kind(**{name: _read(each, value[name], places) for name, each in fields.items()})


@cache
def _fields(kind: type) -> dict[str, Any]:
    """By name, in their order, the types of a record's fields."""
    return get_type_hints(kind, include_extras=True)


def _refuse(value: object) -> NoReturn:
    """Above all NaN and Infinity, which are not JSON (RFC 8259 6), and cannot be compared as moments."""
    raise ValueError(value)


def clipped(text: str) -> str:
    """A traceback short enough for a message: its beginning and its end, where the news is."""
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n… {len(text) - LONGEST_TEXT} characters left out …\n{text[-half:]}"
