"""MBPP (arXiv 2108.07732), its sanitized subset, and MBPP+ (EvalPlus, arXiv 2305.01210): a task in a sentence, asserts.

The prompt as a completion is a docstring of the description and one of the tests, after InCoder (arXiv 2204.05999), as
bigcode-evaluation-harness and EvalPlus have it; the paper's own showed all tests and three solved examples. Splits go
by number as its authors divided them. Not covered: `challenge_test_list`, few-shot prompts.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, get_args

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.tasks.grading.code import _CodeBenchmark
from lit_pref.tasks.published.evalplus import differential_check, hub_inputs, mbpp_arguments, released_inputs
from lit_pref.tasks.rows import identifier_in, text_in, texts_in, told_in
from lit_pref.tasks.wording import EVALPLUS_STOPS, CodeStyle, answer, evalplus_turns, user_turn
from lit_pref.types import Check, Problem, Split, Text

_NUMBERS: dict[Split, range] = {"train": range(601, 975), "validation": range(511, 601), "test": range(11, 511)}
_REQUEST = (
    "Write a Python function for the task below, such that the test under it passes. Answer with a single code block "
    "that holds the function, together with every import and helper that it needs.\n\n"
)


class MBPP(_CodeBenchmark):
    """Mostly Basic Python Problems, all 974 or the 427 sanitized ones, graded by their asserts.

    Rows hold task_id, text or prompt, code and test_list, and where they have them test_setup_code and test_imports.
    The hub's sanitized subset is google-research-datasets/mbpp:sanitized. Numbers 11 to 510 are test, 511 to 600
    validation, 601 to 974 train, and 1 to 10, which the paper prompts with, are in none. A completion is a docstring
    that the function continues.
    """

    name = "mbpp"
    styles = get_args(CodeStyle)
    seconds = 10  # the slowest reference, 123, takes 2 on a fast processor and 6 on a slow one that others share
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)
    published = "google-research-datasets/mbpp:full"
    stops = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```")  # bigcode-evaluation-harness'

    def _rows(self, split: Split) -> Iterator[Row]:
        return (row for row in read_rows(self.source, split) if _number(row) in _NUMBERS[split])

    def _item(self, row: Row) -> Problem:
        tests, code = texts_in(row, "test_list"), text_in(row, "code")
        setup = text_in(row, "test_setup_code") if row.values.get("test_setup_code") else ""
        names = _tested_names(row, [*tests, setup], code)
        imports = texts_in(row, "test_imports") if row.values.get("test_imports") else []
        # The set-up may use the program's own classes, so it is no context.
        check = Check("\n".join([setup, *tests]), "\n".join(imports), names)
        prompt = _prompt(self.style, f"{told_in(row, 'text', 'prompt')}\n{tests[0]}")
        reference = code if self.style == "completion" else answer(self.style, code)
        return Problem(identifier_in(row, "task_id"), prompt, reference, check=check, entry_point=names[0])


class MBPPPlus(_CodeBenchmark):
    """Problems of the sanitized MBPP with about 35 times the inputs, compared with the reference's results as EvalPlus
    compares; all are the test split, also those whose numbers MBPP gives to others.

    Rows are of either format of EvalPlus: that of its releases, MbppPlus.jsonl.gz (task_id, prompt, entry_point,
    canonical_solution, base_input, plus_input, atol), or that of the hub (task_id, prompt, code, test_list, test). Of
    the hub's tests the inputs and the tolerance are taken.
    """

    name = "mbpp_plus"
    styles = get_args(CodeStyle)
    # EvalPlus' authors found 10 seconds to be enough for all inputs of a problem (bigcode harness, issue 186); here the
    # slowest references of MBPP+ take 5 to 11 on a slow processor that others share, and Mbpp/255 more than 256 MB.
    seconds, memory_mb = 30, 1024

    published = "evalplus/mbppplus"
    stops = (*EVALPLUS_STOPS, '\n"""', "\nassert")

    def _item(self, row: Row) -> Problem:
        number = _number(row)
        if "plus_input" in row.values:
            code, name = text_in(row, "canonical_solution"), text_in(row, "entry_point")
            inputs, atol = released_inputs(row, partial(mbpp_arguments, number))
            told = text_in(row, "prompt").strip().strip("\"'").strip()  # a docstring, with one test in it
        else:
            code, tests = text_in(row, "code"), texts_in(row, "test_list")
            name = _tested_names(row, tests, code)[0]
            inputs, atol = hub_inputs(row)
            told = f"{told_in(row, 'prompt')}\n{tests[0]}"
        check = differential_check(code, name, inputs, atol)
        reference = code if self.style == "completion" else answer(self.style, code)
        return Problem(f"Mbpp/{number}", _prompt(self.style, told), reference, check=check, entry_point=name)


def _prompt(style: CodeStyle, told: str) -> Text:
    docstring = f'"""\n{told}\n"""\n'
    if style == "completion":
        return docstring
    return evalplus_turns(docstring) if style == "evalplus" else user_turn(_REQUEST + told)


def _number(row: Row) -> int:
    written = identifier_in(row, "task_id")
    digits = written.rpartition("/")[2]
    if not re.fullmatch(r"[0-9]{1,9}", digits):
        raise RowError("no number", f'{row.location}: expected a number under "task_id", got {written[:60]!r}')
    return int(digits)


def _tested_names(row: Row, tests: Sequence[str], code: str) -> tuple[str, ...]:
    """The names that tests use and the reference defines, the first called one in front.

    Raises RowError where there is none, and for tests or code that are no Python.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of "\\d" and the like, which nobody here can mend
            used = [node for test in tests for node in ast.walk(ast.parse(test))]
            body = ast.parse(code).body
    except (SyntaxError, ValueError) as error:
        raise RowError(
            "no Python", f'{row.location}: "test_list", "test_setup_code" or "code" is no Python: {error}'
        ) from error
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    called = [node.func for node in used if isinstance(node, ast.Call)]
    names = [node.id for node in [*called, *used] if isinstance(node, ast.Name) and node.id in defined]
    if not names:
        raise RowError("no function", f'{row.location}: no test in "test_list" calls a function that "code" defines')
    return tuple(dict.fromkeys(names))
