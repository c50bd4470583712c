"""EvalPlus' (arXiv 2305.01210) data: many inputs a problem, and the reference to compare with, as a `Check`.

Two formats. Releases (HumanEvalPlus.jsonl.gz, MbppPlus.jsonl.gz) hold inputs as JSON; those of MBPP+ that are no JSON
are made again here. The hub's rows hold a test's source, whose own oracle is wrong in places (evalplus issues 147 and
253), so its inputs and tolerance are taken and EvalPlus' own comparison is used. Inputs whose arguments or result are
longer than a message of the sandbox are left out; EvalPlus leaves the like out of its NoExtreme releases.
Not covered: contracts (what inputs are legal); a time limit for each input, in place of one for all together.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.syntax.names import text_of
from lit_pref.syntax.python import parse
from lit_pref.tasks.published import evalplus_oracle
from lit_pref.tasks.rows import lists_in, number_in, text_in
from lit_pref.types import Check

_ORACLE = Path(evalplus_oracle.__file__)
# Each in a namespace of its own: a program's function may bear any name.
_CONTEXT = """
import copy

_oracle, _reference = {{}}, {{}}
exec({oracle!r}, _oracle)
exec({reference!r}, _reference)
_cases = [(_inputs, _reference[{name!r}](*copy.deepcopy(_inputs))) for _inputs in map(_oracle["value"], {inputs!r})]
_cases = [_case for _case in _cases if max(map(_oracle["size"], _case)) <= _oracle["LARGEST"]]
if not _cases:
    raise ValueError("no input is short enough to cross the sandbox")
"""
_CODE = """
for _inputs, _expected in _cases:
    assert _oracle["accepted"]({name!r}, _inputs, {name}(*_inputs), _expected, {atol!r})
"""


def differential_check(reference: str, entry_point: str, inputs: Sequence[str], atol: float) -> Check:
    """The program's results on all inputs against those of the reference, which runs beside the test.

    reference: source that defines the entry point.
    inputs: the source of each argument list; one by one, since a megabyte of literals takes 160 to compile as one.
    atol: by how much a result that is no float's may differ; 0 for not at all.
    """
    context = _CONTEXT.format(oracle=_ORACLE.read_text(), reference=reference, name=entry_point, inputs=list(inputs))
    return Check(_CODE.format(name=entry_point, atol=atol), context, (entry_point,))


class Inputs(NamedTuple):
    """The source of each argument list, and by how much results may differ."""

    arguments: list[str]
    atol: float


def hub_inputs(row: Row) -> Inputs:
    """What stands in the test of one of the hub's rows; Raises RowError where it does not."""
    test = text_in(row, "test")
    inputs = re.search(r"^ *inputs = (\[.*\])$", test, re.MULTILINE)
    tolerance = re.search(r"(?:, | <= )([\d.e+-]+)\)?\s*\Z", test)
    if inputs is None or tolerance is None:
        raise RowError(
            "no inputs",
            f'{row.location}: expected a "test" as EvalPlus writes it, with a line "inputs = [...]" and a tolerance at '
            f"its end, got {test[:60]!r}",
        )
    items = parse(inputs[1]).root_node.named_children[0].named_children[0].named_children
    return _some(row, Inputs([text_of(item) for item in items], float(tolerance[1])))


def released_inputs(row: Row, convert: Callable[[list[list[Any]]], list[list[Any]]] = list) -> Inputs:
    """What stands in a row of a release; `convert` gives its arguments their types back. Raises RowError without."""
    try:
        arguments = convert(lists_in(row, "base_input") + lists_in(row, "plus_input"))
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise RowError(
            "no inputs", f'{row.location}: "base_input" or "plus_input" is not what this problem takes: {error}'
        ) from error
    return _some(row, Inputs([repr(each) for each in arguments], number_in(row, "atol")))


def _some(row: Row, inputs: Inputs) -> Inputs:
    if not inputs.arguments:  # a test without any would pass whatever it is given
        raise RowError("no inputs", f"{row.location}: has no input to compare results on")
    return inputs


# --- MBPP+ releases: JSON has neither tuples nor sets nor complex numbers ---------------------------------------------

_Convert = Callable[[Any], Any]


def _each(convert: _Convert) -> _Convert:
    return lambda arguments: [convert(argument) for argument in arguments]


def _first(convert: _Convert) -> _Convert:
    return lambda arguments: [convert(arguments[0]), *arguments[1:]]


def _of_tuples(rows: Sequence[Any]) -> list[Any]:
    return [tuple(row) for row in rows]


def _tuple_of_tuples(rows: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tuple(row) if isinstance(row, list) else row for row in rows)


def _deep_tuple(value: Any) -> Any:
    return tuple(_deep_tuple(item) for item in value) if isinstance(value, list) else value


# Which arguments of which problems, as EvalPlus 0.3.1 reads its own file (evalplus/data/mbpp.py).
_CONVERSIONS: tuple[tuple[set[int], _Convert], ...] = (
    (
        {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809},
        _each(tuple),
    ),
    ({63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}, _each(_of_tuples)),
    ({75, 413, 444, 753}, _first(_of_tuples)),
    ({106, 750}, lambda arguments: [arguments[0], tuple(arguments[1])]),
    ({250, 307, 405, 446, 617, 720, 763, 808}, _first(tuple)),
    ({259, 278, 401, 445}, _each(_tuple_of_tuples)),
    ({580, 615, 791}, _each(_deep_tuple)),
    ({115}, _first(lambda items: [set(item) if isinstance(item, list) and item else {} for item in items])),
    ({124}, lambda arguments: [float(arguments[0]), complex(arguments[1])]),
    ({252}, _first(complex)),
    ({722}, _first(lambda named: {key: tuple(value) for key, value in named.items()})),
)


def mbpp_arguments(number: int, inputs: list[list[Any]]) -> list[list[Any]]:
    """The argument lists of MBPP problem `number` as they were before they were written as JSON."""
    for numbers, convert in _CONVERSIONS:
        if number in numbers:
            return [convert(arguments) for arguments in inputs]
    return inputs
