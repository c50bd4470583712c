"""Plain values as JSON that keeps their types: what crosses between a program's process and its checker's.

Subclasses of builtin types are sent as the builtin value that they hold, whatever their methods say of it; any other
object stays where it is and is sent as a reference. Decoding makes builtin values and references only, so nothing
that a program sends is ever executed, and no `__eq__` of its own is asked.

Standard library only: the sandbox's worker script imports this file by its own path.
"""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 64
MAX_BYTES = 1 << 20  # of one message
_HELD: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}  # by subclasses


class TooLargeError(ValueError):
    """The value is nested too deep or its text is too long."""


def dumps(message: Any) -> bytes:
    """One line. Raises TooLargeError."""
    line = json.dumps(message).encode() + b"\n"
    if len(line) > MAX_BYTES:
        raise TooLargeError("a value longer than the limit")
    return line


def allow_long_integers() -> None:
    """Python refuses to print integers of more than 4,300 digits; here the length of a message is limited instead."""
    sys.set_int_max_str_digits(0)


_ATOMS = frozenset({type(None), bool, int, float, str})  # JSON's own


def encode(value: Any, refer: Callable[[Any], int | str], depth: int = 0) -> Any:
    """What `json` can write. `refer` names an object that is no plain value. Raises TooLargeError."""
    if type(value) in _ATOMS:
        return value
    if depth > MAX_DEPTH:
        raise TooLargeError(f"a value nested deeper than {MAX_DEPTH}")

    def inner(items: Iterable[Any]) -> list[Any]:
        return [item if type(item) in _ATOMS else encode(item, refer, depth + 1) for item in items]

    # Not isinstance, which believes what an object says of its class.
    for kind in type(value).__mro__[:-1]:
        if kind is list:
            return inner(list.__iter__(value))
        if kind is tuple:
            return {"tuple": inner(tuple.__iter__(value))}
        if kind is dict:
            return {"dict": [inner(item) for item in dict.items(value)]}
        if kind in (set, frozenset):
            return {kind.__name__: inner(kind.__iter__(value))}
        if kind in _HELD:
            return _HELD[kind](value)
        if kind in (bytes, bytearray):
            return {kind.__name__: kind.hex(value)}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is range:
            return {"range": [value.start, value.stop, value.step]}
    return {"object": [refer(value), type(value).__name__]}


_OF_PARTS: dict[str, Callable[[Any], Any]] = {
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*parts),
}
_OF_ITEMS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def decode(data: Any, find: Callable[[int | str, str], Any], depth: int = 0) -> Any:
    """The value that `encode` was given; `find` gives what stands for an object. Raises ValueError for what is none."""
    if type(data) in _ATOMS:
        return data
    if depth > MAX_DEPTH:
        raise TooLargeError(f"a value nested deeper than {MAX_DEPTH}")

    def inner(items: Any) -> list[Any]:
        if type(items) is not list:
            raise ValueError("no list of items")
        return [item if type(item) in _ATOMS else decode(item, find, depth + 1) for item in items]

    if type(data) is list:
        return inner(data)
    if len(data) != 1:
        raise ValueError("no value of a known kind")
    ((kind, content),) = data.items()
    try:
        if kind in _OF_ITEMS:
            return _OF_ITEMS[kind](inner(content))
        if kind == "dict":
            return dict(map(inner, content))
        if kind == "object":
            return find(*content)
        return _OF_PARTS[kind](content)
    except KeyError:
        raise ValueError(f"no value of kind {kind!r}") from None
    except TypeError as error:  # an unhashable key, a part of another type
        raise ValueError(f"no {kind}: {error}") from error
