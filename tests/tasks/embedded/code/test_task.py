import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from lit_pref.tasks.embedded import splits
from lit_pref.tasks.embedded.code import task as code
from lit_pref.tasks.embedded.code.grammar import Argument, Draft
from lit_pref.tasks.embedded.code.task import CodeTask
from lit_pref.types import Outcome, Problem, Program, Task, Verdict


class InProcessSandbox:
    """Executes in this process: enough for programs that the task itself wrote."""

    def __init__(self) -> None:
        self.programs: list[Program] = []

    def run(self, programs: Sequence[Program]) -> list[Verdict]:
        self.programs.extend(programs)
        return [Verdict(Outcome.PASSED if self._passes(program) else Outcome.FAILED) for program in programs]

    @staticmethod
    def _passes(program: Program) -> bool:
        namespace: dict[str, object] = {}
        try:
            exec(program.source, namespace)
            return all(repr(eval(case.call, namespace)) == case.expected for case in program.cases)
        except Exception:  # noqa: BLE001  a slip may raise anything
            return False


SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Problem]]:
    task = CodeTask()
    return {split: task.problems(split, 1500, seed=0) for split in SPLITS}


def test_it_is_a_task():
    assert isinstance(CodeTask(), Task)
    assert CodeTask().name == "code"


def test_every_reference_passes_its_cases(drawn):
    task = CodeTask(InProcessSandbox())
    for problems in drawn.values():
        assert all(verdict.passed for verdict in task.grade(problems, [problem.reference for problem in problems]))


def test_a_prompt_is_a_description_and_a_header_and_a_completion_its_body(drawn):
    for problem in drawn["train"]:
        description, header, rest = problem.prompt.split("\n")
        assert description.startswith("# ") and header.startswith("def solve(") and header.endswith("):") and rest == ""
        assert problem.reference.startswith("    ") and problem.reference.splitlines()[-1].startswith("    return ")
        assert problem.reference.endswith("\n") and not problem.reference.endswith("\n\n")


def test_the_first_problems_do_not_depend_on_how_many_are_asked_for():
    task = CodeTask(bug_rate=0.5)
    for split in SPLITS:
        assert task.problems(split, 40, seed=3) == task.problems(split, 80, seed=3)[:40]
    assert task.demonstrations("train", 40, seed=3) == task.demonstrations("train", 80, seed=3)[:40]


def test_a_seed_redraws():
    first, second = (set(CodeTask().problems("train", 200, seed)) for seed in (0, 1))
    # single-operation problems are few enough to come again; nearly all others are not
    assert len(first & second) < 20


def test_problems_are_equal_under_another_hash_seed():
    program = "from lit_pref.tasks import CodeTask\nprint([p.id for p in CodeTask().problems('test', 20, 5)])"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == repr([problem.id for problem in CodeTask().problems("test", 20, 5)])


def test_prompts_and_ids_are_distinct_within_a_call(drawn):
    for problems in drawn.values():
        assert len({problem.prompt for problem in problems}) == len({problem.id for problem in problems}) == 1500


def test_one_prompt_means_one_problem_whatever_the_seed(drawn):
    known = {problem.prompt: problem for problem in drawn["train"]}
    again = [problem for problem in CodeTask().problems("train", 1500, seed=1) if problem.prompt in known]
    assert again, "1,500 problems of two seeds share some short ones"
    assert all(known[problem.prompt] == problem for problem in again)


def test_the_test_split_shares_no_composition_and_validation_no_problem(drawn):
    compositions = {split: {problem.composition for problem in drawn[split]} for split in SPLITS}
    assert not compositions["test"] & (compositions["train"] | compositions["validation"])
    other_seed = CodeTask().problems("validation", 500, seed=9)
    prompts = {problem.prompt for problem in drawn["train"]}
    assert not prompts & {problem.prompt for problem in (*drawn["validation"], *other_seed)}


def test_about_fifteen_percent_of_compositions_are_held_out():
    # 10,000 names at 0.15: standard deviation sqrt(10,000 · 0.15 · 0.85) = 36
    drafts = [Draft("", (), "", f"composition {index}") for index in range(10_000)]
    held_out = sum(code._SPLITS.of(draft) == "test" for draft in drafts)
    assert abs(held_out - 1500) < 4 * 36


def test_cases_tell_programs_apart(drawn):
    for problem in drawn["train"]:
        assert len(problem.cases) == 8
        assert len({case.expected for case in problem.cases}) >= 3


def test_cases_hold_the_empty_input(drawn):
    lists = [problem for problem in drawn["train"] if "solve(xs" in problem.prompt or "solve(words" in problem.prompt]
    assert lists and all(problem.cases[0].call.startswith("solve([]") for problem in lists)


def test_problems_are_varied(drawn):
    stories = [problem for problem in drawn["train"] if problem.composition.startswith("story.")]
    branches = [problem for problem in drawn["train"] if ".if." in problem.composition]
    # drawn at 0.18 and 0.17; drafts whose cases tell little are drawn again, which shifts the shares a little
    assert 0.13 < len(stories) / 1500 < 0.25
    assert 0.13 < len(branches) / 1500 < 0.25
    assert len({problem.composition for problem in drawn["train"]}) > 750  # most problems bring a new one


def test_clean_demonstrations_are_the_references(drawn):
    demonstrations = CodeTask().demonstrations("train", 100, seed=0)
    assert [(one.prompt, one.completion) for one in demonstrations] == [
        (problem.prompt, problem.reference) for problem in drawn["train"][:100]
    ]


def test_slips_come_at_their_rate_and_mostly_fail(drawn):
    problems = drawn["train"]
    always = [one.completion for one in CodeTask(bug_rate=1.0).demonstrations("train", 1500, seed=0)]
    applies = [index for index, problem in enumerate(problems) if always[index] != problem.reference]
    assert len(applies) > 750
    some = [one.completion for one in CodeTask(bug_rate=0.6).demonstrations("train", 1500, seed=0)]
    changed = [index for index in applies if some[index] != problems[index].reference]
    # binomial: standard deviation at most sqrt(0.6 · 0.4 / 750) = 0.018
    assert abs(len(changed) / len(applies) - 0.6) < 4 * 0.018
    assert all(some[index] == problem.reference for index, problem in enumerate(problems) if index not in set(applies))
    verdicts = CodeTask(InProcessSandbox()).grade([problems[index] for index in changed], [some[i] for i in changed])
    assert sum(not verdict.passed for verdict in verdicts) > 0.7 * len(changed)


def test_another_seed_draws_other_slips():
    task = CodeTask(bug_rate=0.5)
    [problem] = [p for p in CodeTask().problems("train", 200, 0) if p.reference.count(" // ") == 1][:1]
    assert len({task._completion(problem, seed) for seed in range(20)}) > 1


def test_grading_runs_prompt_and_completion_in_order(drawn):
    sandbox = InProcessSandbox()
    problems = drawn["test"][:3]
    completions = [problems[0].reference, "    return None\n", "    return (\n"]
    verdicts = CodeTask(sandbox).grade(problems, completions)
    assert [verdict.passed for verdict in verdicts] == [True, False, False]
    assert sandbox.programs == [
        Program(problem.prompt + completion, problem.cases)
        for problem, completion in zip(problems, completions, strict=True)
    ]


def test_without_a_sandbox_the_default_one_grades(drawn, monkeypatch):
    monkeypatch.setattr("lit_pref.tasks.embedded.code.task.default_sandbox", InProcessSandbox)
    assert CodeTask().grade(drawn["train"][:1], [drawn["train"][0].reference])[0].passed


def test_wrong_arguments_are_refused(drawn):
    with pytest.raises(ValueError, match=r"bug_rate must be in \[0, 1\], got 1.5"):
        CodeTask(bug_rate=1.5)
    with pytest.raises(ValueError, match="count must be >= 0, got -1"):
        CodeTask().problems("train", -1, 0)
    with pytest.raises(ValueError, match="2 problems, 1 completions"):
        CodeTask(InProcessSandbox()).grade(drawn["train"][:2], ["x"])


def test_a_split_that_is_used_up_says_so(monkeypatch):
    only = Draft("add 1", (Argument("n", "int"),), "    return n + 1\n", "int.add")
    monkeypatch.setattr(code._SPLITS, "_draw", lambda rng: only)
    monkeypatch.setattr(splits, "_MAX_MISSES", 10)
    split = code._SPLITS.of(only)
    assert len(CodeTask().problems(split, 1, 0)) == 1
    with pytest.raises(ValueError, match="about 1 items, 2 asked for"):
        CodeTask().problems(split, 2, 0)
