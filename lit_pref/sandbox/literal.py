"""Plain values as one canonical line of text, so that two values are equal exactly when their texts are.

Type-strict and recursive: True is not 1, 1 is not 1.0, a list is not a tuple; the order of a dict or set does not
count; 0.0 and -0.0 are equal. A program's process writes this text and the parent compares it with the text of the
expected value: no object of a program, and no text that it wrote, is ever interpreted outside.
Not covered: float tolerance, and values of any type but the builtin literals (no subclasses: they could lie).

Standard library only: the sandbox's worker script imports this file by its own path.
"""

import ast
from functools import lru_cache

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


@lru_cache(maxsize=1 << 16)
def canonical_literal(text: str) -> str:
    """The canonical text of a Python literal. Raises ValueError where `text` is none."""
    try:
        return canonical(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a plain literal: {text[:80]!r}") from error
