"""Inputs for a drafted code problem, and the outputs of its reference program on them.

The reference is the kit's own text and runs in this process; programs that a model wrote never do (see `sandbox/`).
"""

import random
import re
from collections.abc import Callable, Sequence

from lit_pref.tasks.embedded.code.grammar import Argument, Draft
from lit_pref.tasks.embedded.code.operations import Kind
from lit_pref.types import Case

Value = int | str | list[int] | list[str]
Function = Callable[..., Value]

NUM_CASES = 8
_MIN_DISTINCT = 3  # fewer distinct outputs, and a constant could pass too much
_MIN_EACH_BRANCH = 2
_MAX_LITERAL = 160  # characters; longer outputs say no more about a program and are slow to compare
_LITERAL = re.compile(r"\d+")
_EDGES: dict[Kind, tuple[Value, ...]] = {"ints": ([], [0]), "words": ([], ["a"]), "text": ("", "a"), "int": (0, -3)}
_ELEMENTS, _NUMBERS = range(-6, 13), range(-5, 25)
# fmt: off
_WORD_POOL = (
    "a", "to", "is", "on", "no", "it", "ant", "sea", "red", "ten", "sun", "net", "pea", "rose", "tree", "noon",
    "area", "ears", "into", "rain", "stone", "train", "otter", "alien", "extra", "season", "radio", "salad", "orange",
    "insect", "errors", "station", "nearest",
)
# fmt: on


def make_cases(draft: Draft, rng: random.Random) -> tuple[Case, ...] | None:
    """`NUM_CASES` cases with edge inputs first, or None where they could not tell programs apart.

    That is: fewer than three distinct outputs, a branch that is hardly taken, or an output too long to compare.
    Operations are defined on every value of the kind that they take, so a reference that raises is a defect of ours.
    """
    solve, condition = _compile(draft)
    first, rest = draft.arguments[0], draft.arguments[1:]
    literals = [int(number) for number in _LITERAL.findall(draft.description)]
    edges = (int(first.choices[0]),) if first.choices else _EDGES[first.kind]
    cases: list[Case] = []
    branches = 0
    for index in range(NUM_CASES):
        others = [int(rng.choice(other.choices)) for other in rest]
        main = edges[index] if index < len(edges) else _draw_value(rng, first, literals + others)
        call = "solve(" + ", ".join(map(repr, (main, *others))) + ")"
        if condition is not None:
            branches += bool(condition(main, *others))
        expected = repr(solve(main, *others))
        if len(expected) > _MAX_LITERAL:
            return None
        cases.append(Case(call, expected))
    if len({case.expected for case in cases}) < _MIN_DISTINCT:
        return None
    if condition is not None and not _MIN_EACH_BRANCH <= branches <= NUM_CASES - _MIN_EACH_BRANCH:
        return None
    return tuple(cases)


def _compile(draft: Draft) -> tuple[Function, Function | None]:
    """The reference function, and the condition it branches on, where it does, as a function of the same arguments."""
    source = draft.prompt + draft.body
    if draft.condition:
        names = ", ".join(argument.name for argument in draft.arguments)
        source += f"def condition({names}):\n    return {draft.condition}\n"
    namespace: dict[str, Function] = {}
    exec(compile(source, "<reference>", "exec"), namespace)
    return namespace["solve"], namespace.get("condition")


def _draw_value(rng: random.Random, argument: Argument, numbers: Sequence[int]) -> Value:
    """A random input. `numbers`, those of the problem, come often: only there a `>` differs from a `>=`."""
    if argument.choices:
        return int(rng.choice(argument.choices))
    if argument.kind == "ints":
        return rng.choices((*_ELEMENTS, *numbers, *numbers, *numbers), k=_uniform(rng, 2, 7))
    if argument.kind == "words":
        return rng.choices(_WORD_POOL, k=_uniform(rng, 2, 6))
    if argument.kind == "text":
        return " ".join(rng.choices(_WORD_POOL, k=_uniform(rng, 1, 4)))
    pool: Sequence[int] = (*_NUMBERS, *numbers, *numbers, *numbers)
    return pool[int(rng.random() * len(pool))]


def _uniform(rng: random.Random, low: int, high: int) -> int:
    """`rng.randint` in a third of its time; the ranges are too small for its bias to show."""
    return low + int(rng.random() * (high - low + 1))
