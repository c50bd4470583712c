"""Slips that people make in short programs, put into correct code by rewriting its surface.

A slip is drawn without a look at the description or at the tests: a model that imitates such code cannot tell when
one is due, and only execution can. A slip does not always change what a program returns.
"""

import random
import re
from typing import NamedTuple


class _Slip(NamedTuple):
    pattern: re.Pattern[str]
    replacement: str


_SLIPS = tuple(
    _Slip(re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" >= ", " > "),
        (r" <= ", " < "),
        (r" < ", " <= "),
        (r" // ", " / "),
        (r" and ", " or "),
        (r" \+ (?=\w+( for| if|\n))", " - "),
        (r", default=(0|\"\")", ""),
        (r", reverse=True", ""),
        (r"\[-(\w):\]", r"[:\1]"),
        (r"range\(1, (\w+) \+ 1\)", r"range(1, \1)"),
        (r"\[:i \+ 1\]", "[:i]"),
        (r"(range\(len\(\w+\)) - 1\)", r"\1)"),
        (r"sorted\(set\((\w+)\)\)", r"sorted(\1)"),
    )
)


def insert_bug(body: str, rng: random.Random) -> str:
    """The body with one slip at a place drawn among all where one applies; as it was where none does."""
    places = [(slip, match) for slip in _SLIPS for match in slip.pattern.finditer(body)]
    if not places:
        return body
    slip, match = rng.choice(places)
    return body[: match.start()] + match.expand(slip.replacement) + body[match.end() :]
