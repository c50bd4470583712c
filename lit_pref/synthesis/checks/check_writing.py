"""Tests for problems that have none: written by a generator, or recorded from what the reference itself gives.

Either way a check is kept only if it is right and strong enough (`check_filter.py`). That a model writes the asserts is
as in CodeT (arXiv 2207.10397); prompts, filter and recording are ours.
Not covered: problems without an entry point (programs that read and print), exceptions that a problem asks for.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from lit_pref.sampling.drawing import Draw
from lit_pref.syntax import NoCodeError, extract_code, sanitize
from lit_pref.syntax.assertions import assertions, literal_calls
from lit_pref.syntax.continuation import open_function
from lit_pref.syntax.python import parses
from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.synthesis.checks.check_filter import CheckReport, Draft, KillFilter, filter_checks
from lit_pref.types import Case, Generator, Problem, Program, Sandbox, Text

_MAX_RESULT = 1_000  # characters of a result's text that is worth recording
_FLOAT = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


class CheckPrompt(NamedTuple):
    """What a generator is asked, and the text that its completion goes on from."""

    prompt: Text
    lead: str


def write_checks(
    problems: Sequence[Problem],
    generator: Generator,
    sandbox: Sandbox,
    draw: Draw,
    rule: KillFilter | None = None,
    expected: Literal["written", "recorded"] = "written",
) -> list[CheckReport]:
    """Checks for the problems, one report a problem, in order.

    draw: all of a problem's samples together make its check.
    expected: "recorded" takes only the calls from the generator, and what they give from the reference.
    """
    sources = [_reference(problem) for problem in problems]
    asked = [check_prompt(problem) for problem in problems]
    completions = generator.generate([prompt for prompt, _ in asked], draw.samples, draw.sampling, draw.seed)
    tests = [
        "\n".join(_test_code(lead + completion.text) for completion in several)
        for (_, lead), several in zip(asked, completions, strict=True)
    ]
    if expected == "recorded":
        calls = [literal_calls(test, problem.entry_point) for problem, test in zip(problems, tests, strict=True)]
        drafts = _record(problems, sources, calls, sandbox)
    else:
        rows = zip(problems, sources, tests, strict=True)
        drafts = [Draft(problem, source, assertions(test, problem.entry_point)) for problem, source, test in rows]
    return filter_checks(drafts, sandbox, rule or KillFilter())


def with_checks(problems: Iterable[Problem], reports: Iterable[CheckReport]) -> list[Problem]:
    """The problems whose checks were kept, each with its check in place of what graded it before."""
    kept = {report.problem_id: report.check for report in reports if report.fate == "kept"}
    return [replace(problem, cases=(), check=kept[problem.id]) for problem in problems if problem.id in kept]


def check_prompt(problem: Problem) -> CheckPrompt:
    """A request in a conversation where the problem's prompt is one, else code that is to be continued."""
    name = problem.entry_point
    if isinstance(problem.prompt, str):
        opened = open_function(problem.prompt)
        body = f"{opened.indent}pass\n" if opened else ""
        lead = f"assert {name}("
        return CheckPrompt(
            f"{problem.prompt.rstrip()}\n{body}\n\n# Ordinary inputs, limits, empty inputs:\n{lead}", lead
        )
    described = "\n\n".join(turn["content"] for turn in problem.prompt if turn["role"] == "user")
    request = (
        f"Below is a programming problem. Do not solve it: write tests of `{name}`.\n"
        "Answer with one Python code block of assert statements, one a line. Each calls the function with literal "
        "arguments and compares the result with the literal that the problem asks for. Cover ordinary inputs, limits "
        f"and empty inputs; assert only what the problem says.\n\n{described}"
    )
    return CheckPrompt(({"role": "user", "content": request},), "")


def _test_code(text: str) -> str:
    """The tests in a completion; none where they do not parse."""
    try:
        code = extract_code(without_thoughts(text)).code
    except NoCodeError:
        return ""
    return code if parses(code) else ""


def _reference(problem: Problem) -> str:
    """The reference as a program, and no more of it than the entry point needs; "" where it holds none."""
    if not problem.entry_point:
        raise ValueError(f"problem {problem.id} has no entry point, so no assert can call it")
    prompt = problem.prompt if isinstance(problem.prompt, str) else ""
    try:
        return sanitize(extract_code(problem.reference, problem.entry_point, prompt).code, problem.entry_point)
    except NoCodeError:
        return ""


# --- recording --------------------------------------------------------------------------------------------------------


def _record(
    problems: Sequence[Problem], sources: Sequence[str], calls: Sequence[Sequence[str]], sandbox: Sandbox
) -> list[Draft]:
    """Asserts that each problem's calls give what its source gives."""
    asked = [(source, call) for source, several in zip(sources, calls, strict=True) for call in several]
    results = iter(_results(asked, sandbox))
    drafts = []
    for problem, source, several in zip(problems, sources, calls, strict=True):
        given = [(call, next(results)) for call in several]
        drafts.append(Draft(problem, source, [(_equality(call, text),) for call, text in given if text is not None]))
    return drafts


def _equality(call: str, text: str) -> str:
    if _FLOAT.fullmatch(text) and not text.lstrip("-").isdigit():
        return f"assert abs({call} - {text}) <= {1e-6 * max(1.0, abs(float(text)))!r}"
    return f"assert {call} == {text}"


def _results(asked: Sequence[tuple[str, str]], sandbox: Sandbox) -> list[str | None]:
    """The literal that each call gives in its source; None for an exception, another object or a long text."""
    found = sandbox.results([Program(source, (Case(call, "None"),)) for source, call in asked])
    literals = [ascii(ast.literal_eval(texts[0])) if texts else None for texts in found]
    return [text if text is not None and len(text) <= _MAX_RESULT else None for text in literals]
