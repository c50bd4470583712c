"""The vocabulary of the code task: typed operations, each a Python expression and its English phrases.

They stand in `operations.txt`, one a line. How operations are chained is in `grammar.py`, how their code goes wrong in
`bugs.py`. `{v}` in an expression is its input, `{k}` its parameter; `{p}` in a story's phrase is a person. Phrases of
operations that take the same kind are all different, so that a description says what to do without ambiguity.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

Kind = Literal["ints", "words", "text", "int"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One step: an expression over its input, and how to say it. One that gives "if" is a condition.

    choices: the values its parameter takes, as they stand in code and in words; empty where it has none.
    """

    name: str
    gives: Kind
    code: str
    phrases: tuple[str, ...]
    choices: tuple[str, ...] = ()


def _choices(written: str) -> tuple[str, ...]:
    """`0-9` are numbers, `aeio` letters."""
    low, dash, high = written.partition("-")
    return tuple(map(str, range(int(low), int(high) + 1))) if dash else tuple(written)


def _table() -> dict[tuple[str, bool], tuple[Operation, ...]]:
    """By what they take, and whether they are conditions; in the order of the file, which the draws depend on."""
    found: dict[tuple[str, bool], tuple[Operation, ...]] = {}
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()[1:]:
        takes, name, gives, written, code, phrases = (cell.strip() for cell in line.split("|"))
        step = Operation(name, cast(Kind, gives), code, tuple(phrases.split("; ")), _choices(written))
        found[takes, gives == "if"] = (*found.get((takes, gives == "if"), ()), step)
    return found


_TABLE = _table()
OPERATIONS: dict[Kind, tuple[Operation, ...]] = {kind: _TABLE[kind, False] for kind in get_args(Kind)}
PREDICATES: dict[Kind, tuple[Operation, ...]] = {kind: _TABLE[kind, True] for kind in get_args(Kind)}
STORY_STEPS = _TABLE["story", False]  # x is what the person has, y a second argument of the function
PEOPLE = ("Tom", "Ana", "Sam", "Mia", "Ben", "Eva")
THINGS = ("apples", "books", "cards", "pens", "shells", "stamps")
