"""`dataclasses` for processes that must start fast and stay small: all records share their methods.

    from stardust.base.records import dataclass, field, fields, replace

The original writes the methods of each class as text and has Python compile it, and needs `inspect` for that.
With the sixty records of the supervisor it was a quarter of its start and a tenth of its memory
(docs/performance.md). Here all classes share the same few methods, which walk over the names of the fields.
Making one takes some microseconds more: these are for what is made once a decision, never once a request.

Type checkers take this for `dataclasses`, and so check all of it. Rules:

- What is offered behaves as there (tests/base/test_records.py compares them): `frozen`, `slots`; `default`,
  `default_factory`, `metadata`; equality within a class, `__match_args__`, the text of `repr`.
- What is not offered: records that inherit from records, `ClassVar`, `InitVar`, `__post_init__`, order.

Pure. Runs in the application's interpreter too: Python 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Optional

_MISSING: Any = object()


class Field(NamedTuple):
    """What is known of a field; `default` and `default_factory` may be missing."""

    name: str
    default: Any
    default_factory: Any
    metadata: Any


def _field(*, default: Any = _MISSING, default_factory: Any = _MISSING, metadata: Any = None) -> Any:
    return Field("", default, default_factory, metadata or {})


def _fields(record: Any) -> tuple[Field, ...]:
    """Of a class or of one that was made of it, in their order."""
    found: tuple[Field, ...] = record.__record_fields__
    return found


def _replace(record: Any, **changes: Any) -> Any:
    """Another one that differs in `changes`."""
    for name in type(record).__match_args__:
        if name not in changes:
            changes[name] = getattr(record, name)
    return type(record)(**changes)


def _dataclass(cls: Optional[type] = None, *, frozen: bool = False, slots: bool = False) -> Any:
    def made(cls: type) -> type:
        return _record(cls, frozen, slots)

    return made if cls is None else made(cls)


def _record(cls: type, frozen: bool, slots: bool) -> type:
    fields = tuple(_found(cls, name) for name in getattr(cls, "__annotations__", ()))
    names = tuple(each.name for each in fields)
    methods: dict[str, Any] = {
        "__record_fields__": fields,
        "__match_args__": names,
        "__init__": _init,
        "__repr__": _repr,
        "__eq__": _eq,
        "__hash__": _hash if frozen else None,
    }
    if frozen:
        methods.update(__setattr__=_refuse_to_set, __delattr__=_refuse_to_delete)
    if slots:
        # Slots are made with their class, and so the class is made again, as the original does.
        kept = {name: value for name, value in vars(cls).items() if name not in (*names, *_OF_A_CLASS)}
        return type(cls)(
            cls.__name__,
            cls.__bases__,
            {**kept, **methods, "__slots__": names, "__qualname__": cls.__qualname__},
        )
    for each in fields:
        if each.default is not _MISSING:
            setattr(cls, each.name, each.default)
        elif each.name in vars(cls):
            delattr(cls, each.name)
    for name, method in methods.items():
        setattr(cls, name, method)
    return cls


_OF_A_CLASS = ("__dict__", "__weakref__")


def _found(cls: type, name: str) -> Field:
    value = vars(cls).get(name, _MISSING)
    field: Field = value if isinstance(value, Field) else _field(default=value)
    return field._replace(name=name)


def _init(self: Any, *values: Any, **named: Any) -> None:
    put = object.__setattr__
    names = self.__match_args__
    if len(values) > len(names):
        raise TypeError(f"{type(self).__name__} has {len(names)} fields, not {len(values)}")
    for name, value in zip(names, values):  # noqa: B905 - Python 3.9
        put(self, name, value)
    for each in self.__record_fields__[len(values) :]:
        if each.name in named:
            value = named.pop(each.name)
        elif each.default is not _MISSING:
            value = each.default
        elif each.default_factory is not _MISSING:
            value = each.default_factory()
        else:
            raise TypeError(f"{type(self).__name__} is missing a value for {each.name}")
        put(self, each.name, value)
    if named:
        raise TypeError(f"{type(self).__name__} has no use for {', '.join(named)}")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__match_args__)


def _repr(self: Any) -> str:
    pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({pairs})"


def _eq(self: Any, other: Any) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse_to_set(self: Any, name: str, value: Any) -> None:
    raise AttributeError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise AttributeError(f"cannot delete field {name!r}")


if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, replace
else:
    dataclass, field, fields, replace = _dataclass, _field, _fields, _replace

__all__ = ["dataclass", "field", "fields", "replace"]
