"""Problems whose references fail their own tests: told by name, left out or refused; licences for the others."""

import json
from dataclasses import replace

import pytest

from lit_pref.errors import UserError
from lit_pref.tasks import CodeTask, CustomCodeTask, Mixture
from lit_pref.tasks.references import gradable
from lit_pref.types import Outcome, Sandbox, Verdict

ROW = {"prompt": "Double it.", "reference": "def f(x):\n    return 2 * x\n", "test_list": ["assert f(2) == 4"]}
WRONG = ROW | {"test_list": ["assert f(2) == 5"]}


class Counting(Sandbox):
    """Right programs double; references get a licence."""

    def __init__(self) -> None:
        self.licences: list[tuple[str, ...] | None] = []

    def run(self, programs):
        self.licences += [program.check.licence for program in programs]
        return [
            Verdict(Outcome.PASSED, licence=("__eq__",))
            if "4" in program.check.code
            else Verdict(Outcome.FAILED, detail="test 0: f(2) == 5")
            for program in programs
        ]


def task_of(folder, *rows, **settings):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CustomCodeTask(str(folder / "rows.jsonl"), **settings)


def test_a_reference_that_fails_is_told_and_left_out(tmp_path, capsys):
    task = task_of(tmp_path, ROW, WRONG, ROW, sandbox=(sandbox := Counting()))
    problems = task.problems("train", 3, 0)
    for told in (True, False):  # each reference is run once
        found = gradable(task, problems)
        assert found.left_out == {"2": "failed: test 0: f(2) == 5"}
        said = (
            "the references of 1 of 3 problems fail their own tests; they are left out: 2 (failed: test 0: f(2) == 5)"
        )
        assert (said in capsys.readouterr().out) == told
    assert sandbox.licences == [None] * 3
    checks = [replace(problems[place].check, licence=("__eq__",)) for place in (0, 2)]
    assert [problem.check for problem in found.problems] == checks
    gradable(task, found.problems)  # a licence does not make another problem of it
    assert len(sandbox.licences) == 3


def test_a_user_may_want_an_error(tmp_path):
    task = task_of(tmp_path, ROW, WRONG, sandbox=Counting(), failing_references="error")
    with pytest.raises(UserError, match=r"1 of 2 problems fail their own tests: 2 \(failed.*failing_references: leave"):
        gradable(task, task.problems("train", 2, 0))
    with pytest.raises(ValueError, match='failing_references must be "leave_out" or "error", got \'keep\''):
        task_of(tmp_path, ROW, failing_references="keep")


def test_no_problem_that_is_left_is_an_error(tmp_path, capsys):
    task = task_of(tmp_path, *[WRONG] * 8, sandbox=Counting())
    with pytest.raises(UserError, match=r"8 of 8 .* so that nothing can be graded: 1 \(.*; and 3 more"):
        gradable(task, task.problems("train", 8, 0))


def test_references_that_are_right_by_construction_are_not_run(tmp_path):
    task = CodeTask(sandbox=Counting())
    problems = task.problems("train", 2, 0)
    assert gradable(task, problems).problems == problems
    assert Mixture([task, CodeTask()]).references_pass
    strict = task_of(tmp_path, ROW, failing_references="error")
    mixture = Mixture([task, strict])
    assert (mixture.references_pass, mixture.failing_references) == (False, "error")


def test_in_the_sandbox(tmp_path):
    task = task_of(tmp_path, ROW, WRONG, ROW | {"reference": "def f(x):\n    return 1 / 0\n"})
    found = gradable(task, task.problems("train", 3, 0))
    assert [problem.id for problem in found.problems] == ["1"]
    assert [why.partition(":")[0] for why in found.left_out.values()] == ["failed", "error"]
    assert task.grade(found.problems, [ROW["reference"]])[0].passed
