"""Programming problems of the user's own: a prompt and a reference a row, with tests in a customary form, or without.

The forms are MBPP's (`test_list`), HumanEval's (`test`), and APPS' programs that read and print (`input_output`).
Not covered: pytest and unittest suites, calls by APPS' `fn_name`, a checker of a program's output (it must be equal),
other languages than Python.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

from lit_pref.data.reading.rows import Row, RowError, turns_at
from lit_pref.data.reading.sources import read_rows, source_files
from lit_pref.errors import UserError
from lit_pref.storage.shards import MANIFEST
from lit_pref.syntax.continuation import open_function
from lit_pref.syntax.extraction import NoCodeError, extract_code
from lit_pref.syntax.names import DEFINITIONS, IMPORTS
from lit_pref.syntax.python import Statement, parses, reach, statements
from lit_pref.tasks.grading.code import _CodeBenchmark
from lit_pref.tasks.rows import identifier_in, text_in, texts_in
from lit_pref.tasks.wording import COMPLETE_FUNCTION, CodeStyle, fenced, shown_source, user_turn
from lit_pref.types import Check, IOCase, Problem, Program, Split, Text, Verdict

_FORMS = ("test_list", "test", "input_output", "tests")


class CustomCodeTask(_CodeBenchmark):
    """Problems of your own, with their tests or without.

    A row holds `prompt` (text, or chat messages that end in a user's turn), `reference` (or `code`, or
    `canonical_solution`), and one of

    - `test_list`: asserts, and where they need them test_setup_code and test_imports;
    - `test`: code that asserts; the function `check(candidate)` is called where it defines one;
    - `input_output` or `tests`: {"inputs": [...], "outputs": [...]}, texts that a whole program reads and prints;
    - none of them: `lit-pref synthesize --write_tests written` makes tests.

    `id` or `task_id` may be left out for the row's number, and `entry_point` where the prompt ends in an open function
    or the reference defines exactly one.

    A file's rows are of the split train unless they state another under `split`; folders and the hub have splits of
    their own. With style: chat an open function is shown with a request to complete it; messages stay what they are.
    """

    name = "code_problems"
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)
    stated_splits = ': those of a file are of split train, unless they state another under "split"'

    def _rows(self, split: Split) -> Iterator[Row]:
        folder = Path(self.source).expanduser()
        has_splits = folder.is_dir() and not (folder / MANIFEST).is_file()
        from_files = not has_splits and source_files(self.source, split) is not None
        for number, row in enumerate(read_rows(self.source, split), start=1):
            # Tables hold something in every column.
            values = {key: value for key, value in row.values.items() if value not in (None, "", [], {})}
            if "id" not in values and "task_id" not in values:
                values["id"] = number
            stated = values.get("split", "train") if from_files else split
            if stated not in self.splits:
                expected = ", ".join(self.splits)
                raise RowError(
                    "no split", f'{row.location}: expected one of {expected} under "split", got {str(stated)[:60]!r}'
                )
            if stated == split:
                yield Row(row.location, values)

    def _item(self, row: Row) -> Problem:
        name = identifier_in(row, "id" if "id" in row.values else "task_id")
        prompt, written = _prompt(row, self.style), text_in(row, "reference", "code", "canonical_solution")
        entry_point = text_in(row, "entry_point") if "entry_point" in row.values else ""
        shown = shown_source(prompt)
        source = _source(row, written, entry_point, shown)
        reference = written if isinstance(prompt, str) else fenced(source)
        form = _form(row)
        if form in ("input_output", "tests") and (cases := _cases(row, form)):
            return Problem(name, prompt, reference, cases, entry_point=entry_point)
        entry_point = _entry_point(row, source, entry_point, shown)
        check = _check(row, form, source, entry_point, shown) if form in ("test", "test_list") else None
        return Problem(name, prompt, reference, check=check, entry_point=entry_point)

    def _program(self, problem: Problem, completion: str) -> Program | Verdict:
        if problem.check is None and not problem.cases:
            raise UserError(
                f"{self.name}: problem {problem.id[:60]} has no tests to grade with: state them in its row "
                f"({', '.join(_FORMS)}), or have them made: lit-pref synthesize --write_tests written"
            )
        made = super()._program(problem, completion)
        return replace(made, cases=problem.cases) if isinstance(made, Program) else made


def _prompt(row: Row, style: CodeStyle) -> Text:
    if isinstance(row.values.get("prompt"), list | dict):
        turns = turns_at(row, "prompt")
        if turns[-1]["role"] != "user":
            message = f'expected "prompt" to end in a turn of the user, got one of {turns[-1]["role"]!r}'
            raise RowError("no user's turn", f"{row.location}: {message}")
        return turns
    told = text_in(row, "prompt")
    if style == "completion":
        return told
    return user_turn(COMPLETE_FUNCTION, told) if open_function(told) else user_turn(told)


def _source(row: Row, written: str, entry_point: str, shown: str) -> str:
    """The reference as a program."""
    try:
        source = extract_code(written, entry_point, shown).code
    except NoCodeError as error:
        raise RowError("no code", f"{row.location}: expected a program as the reference: {error}") from error
    if not parses(source):
        raise RowError("no Python", f"{row.location}: the reference is no Python")
    return source


def _entry_point(row: Row, source: str, stated: str, shown: str) -> str:
    opened, body = open_function(shown), statements(source)
    if stated:
        if stated not in _bound(body):
            raise RowError(
                "no function", f'{row.location}: the reference does not define "entry_point", {stated[:60]!r}'
            )
        return stated
    if opened:
        return opened.name
    functions = sorted(_bound([each for each in body if each.kind == "function_definition"]))
    if len(functions) != 1:
        found = ", ".join(functions)[:200] or "none"
        message = f'expected a reference that defines one function, or the name of one under "entry_point"; got {found}'
        raise RowError("no entry point", f"{row.location}: {message}")
    return functions[0]


# --- tests ------------------------------------------------------------------------------------------------------------


def _form(row: Row) -> str | None:
    there = [key for key in _FORMS if key in row.values]
    if len(there) > 1:
        raise RowError("several tests", f"{row.location}: expected tests under one key, got {' and '.join(there)}")
    return there[0] if there else None


def _cases(row: Row, form: str) -> tuple[IOCase, ...]:
    value = row.values[form]
    if isinstance(value, str):  # APPS and TACO put JSON into a text
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowError("broken JSON", f'{row.location}: "{form}" is a text, and no JSON: {error}') from error
    if isinstance(value, dict) and value.get("fn_name"):
        expected = "programs that read and print; state calls of a function as asserts under test_list"
        raise RowError("calls by name", f'{row.location}: "{form}" calls a function by fn_name: expected {expected}')
    inputs, outputs = (value.get(key) if isinstance(value, dict) else None for key in ("inputs", "outputs"))
    sides = [side for side in (inputs, outputs) if isinstance(side, list) and all(isinstance(x, str) for x in side)]
    if len(sides) != 2 or len(sides[0]) != len(sides[1]):
        expected = f'{{"inputs": [...], "outputs": [...]}} under "{form}", as many texts in either'
        raise RowError("no inputs and outputs", f"{row.location}: expected {expected}, got {str(value)[:60]}")
    return tuple(map(IOCase, *sides))


def _check(row: Row, form: str, source: str, entry_point: str, shown: str) -> Check:
    """The tests with what they use of the code before the prompt's open function; they may use all of the program."""
    code = text_in(row, "test") if form == "test" else "\n".join(texts_in(row, "test_list"))
    if "test_setup_code" in row.values:
        code = f"{text_in(row, 'test_setup_code')}\n{code}"
    if form == "test" and _checks_a_candidate(code):
        code = f"{code}\ncheck({entry_point})\n"
    if not parses(code):
        raise RowError("no Python", f'{row.location}: "{form}" is no Python')
    body = statements(code)
    if entry_point in _bound(body) or not _runs(body, entry_point):
        expected = (
            f"statements that are run and call the program's {entry_point[:60]!r}, or a function check(candidate)"
        )
        raise RowError("no test", f'{row.location}: expected under "{form}" {expected}')
    used = frozenset(name for each in body for name in each.uses) - _bound(body)
    before = _before(shown, entry_point)
    context = [before[index] for index in reach(before, used - {entry_point})]
    others = (used & _bound(statements(source))) - _bound(context) - {entry_point}
    imports = texts_in(row, "test_imports") if "test_imports" in row.values else []
    return Check(code, "\n".join([*imports, *(each.text for each in context)]), (entry_point, *sorted(others)))


def _checks_a_candidate(code: str) -> bool:
    """Whether it defines `check` and leaves the call to us."""
    body = statements(code)
    calls = any("check" in each.uses for each in body if each.kind not in DEFINITIONS)
    return not calls and "check" in _bound([each for each in body if each.kind == "function_definition"])


def _runs(body: list[Statement], entry_point: str) -> bool:
    """Whether a statement that is executed uses the entry point, directly or through what it uses."""
    executed = [each for each in body if each.kind not in DEFINITIONS | IMPORTS]
    reached = reach(body, frozenset(name for each in executed for name in each.uses))
    return any(entry_point in each.uses for each in [*executed, *(body[index] for index in reached)])


def _before(shown: str, entry_point: str) -> list[Statement]:
    opened = open_function(shown)
    body = statements(f"{shown.rstrip()}\n{opened.indent}pass\n") if opened else []
    return [each for each in body if entry_point not in each.binds]


def _bound(body: list[Statement]) -> frozenset[str]:
    return frozenset(name for each in body for name in each.binds)
