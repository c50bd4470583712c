"""Plain values as one canonical line of text, so that two values are equal exactly when their texts are.

Type-strict and recursive: True is not 1, 1 is not 1.0, a list is not a tuple; the order of a dict or set does not
count; 0.0 and -0.0 are equal. A program's process writes this text and the parent compares it with the text of the
expected value: no object of a program, and no text that it wrote, is ever interpreted outside.
Not covered: float tolerance, and values of any type but the builtin literals (no subclasses: they could lie).
"""

import ast
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

MAX_DEPTH = 64
_ATOMS = (bool, int, str, bytes, type(None))


class NotPlainError(ValueError):
    """The value holds something that is not a plain literal; the message says what."""


def canonical(value: object, depth: int = 0) -> str:
    """The value's canonical text: ASCII, one line. Raises `NotPlainError`."""
    if depth > MAX_DEPTH:
        raise NotPlainError(f"a value nested deeper than {MAX_DEPTH}")
    if type(value) in _ATOMS:
        return ascii(value)
    if type(value) is float or type(value) is complex:
        return repr(value + 0)  # -0.0 + 0 is 0.0
    if type(value) is list:
        return "[" + ", ".join([canonical(item, depth + 1) for item in value]) + "]"
    if type(value) is tuple:
        return "(" + "".join([canonical(item, depth + 1) + ", " for item in value]) + ")"
    if type(value) is set:
        return "{" + ", ".join(sorted([canonical(item, depth + 1) for item in value])) + "}" if value else "set()"
    if type(value) is dict:
        items = [f"{canonical(key, depth + 1)}: {canonical(item, depth + 1)}" for key, item in value.items()]
        return "{" + ", ".join(sorted(items)) + "}"
    raise NotPlainError(f"an object of type {type(value).__name__}")


def loose(value: Any, depth: int = 0) -> str:
    """The value's text up to Python's `==`: 1, 1.0 and True have one text, as have a set and its frozen twin.

    Subclasses of builtin types count as the builtin value that they hold, whatever their methods say of it. Raises
    `NotPlainError` for anything else, and for what does not even equal itself. `Decimal` and `Fraction` are numbers.
    """
    if depth > MAX_DEPTH:
        raise NotPlainError(f"a value nested deeper than {MAX_DEPTH}")

    def inner(items: Iterable[Any]) -> list[str]:
        return [loose(item, depth + 1) for item in items]

    # Not isinstance, which believes what an object says of its class.
    kinds: tuple[Any, ...] = type(value).__mro__
    for kind in kinds:
        if kind in _NUMBERS:
            return _number(_NUMBERS[kind](value))
        if kind is str:
            return ascii(str.__str__(value))
        if kind in (bytes, bytearray):
            return ascii(bytes.fromhex(kind.hex(value)))
        if kind in (list, tuple):
            opening, closing = "[]" if kind is list else "()"
            return opening + "".join(f"{text}, " for text in inner(kind.__iter__(value))) + closing
        if kind in (set, frozenset):
            return "{" + ", ".join(sorted(inner(kind.__iter__(value)))) + "}"
        if kind is dict:
            pairs = [": ".join(inner(pair)) for pair in dict.items(value)]
            return "{" + ", ".join(sorted(pairs)) + ":}"
        if kind is type(None):
            return "None"
        if (kind.__module__, kind.__name__) in _RATIOS:
            try:
                return _ratio(*kind.as_integer_ratio(value))
            except (ValueError, OverflowError) as error:  # Decimal's infinities and what is no number
                raise NotPlainError(str(error)) from error
    raise NotPlainError(f"an object of type {type(value).__name__}")


_NUMBERS: dict[type, Callable[[Any], Any]] = {int: int.__int__, float: float.__float__, complex: complex.__complex__}
_NUMBERS[bool] = int.__int__


_RATIOS = ("decimal", "Decimal"), ("fractions", "Fraction")


def _ratio(numerator: int, denominator: int) -> str:
    """Of an exact number: the text of the int or float that equals it, where there is one."""
    if denominator == 1:
        return repr(numerator)
    try:
        nearest = numerator / denominator
    except OverflowError:  # beyond the floats
        nearest = 0.0
    exact = nearest.as_integer_ratio() == (numerator, denominator)
    return _number(nearest) if exact else f"{numerator}/{denominator}"


def _number(value: Any) -> str:
    if value != value:
        raise NotPlainError("a number that does not equal itself")
    if type(value) is complex and value.imag == 0:
        value = value.real
    if type(value) is float and value.is_integer():
        value = int(value)
    return repr(value)


@lru_cache(maxsize=1 << 16)
def canonical_literal(text: str) -> str:
    """The canonical text of a Python literal. Raises ValueError where `text` is none."""
    try:
        return canonical(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a plain literal: {text[:80]!r}") from error
