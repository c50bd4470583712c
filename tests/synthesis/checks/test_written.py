"""Which problems get tests, and that the others are left as they are; the way through a folder: test_synthesize.py."""

from dataclasses import replace

import pytest

from lit_pref.errors import UserError
from lit_pref.sampling.drawing import Draw
from lit_pref.sampling.graded_samples import SamplingJob
from lit_pref.synthesis.checks.check_filter import KillFilter
from lit_pref.synthesis.checks.written import ProblemsWithTests, lacks_tests, refuse_untested, with_tests
from lit_pref.tasks import CodeTask
from lit_pref.types import Case, Check, Generator, IOCase, Problem, Sampling

UNTESTED = Problem("a", "Add.", "def add(a, b):\n    return a + b\n", entry_point="add")
CHECKED = replace(UNTESTED, id="b", check=Check("assert add(1, 2) == 3"))


class Nobody(Generator):
    def generate(self, prompts, samples, sampling, seed):
        raise AssertionError("nothing is to be asked")


@pytest.mark.parametrize(
    ("problem", "lacks"),
    [
        (UNTESTED, True),
        (CHECKED, False),
        (replace(UNTESTED, cases=(Case("add(1, 2)", "3"),)), False),
        (Problem("c", "Print it.", "print(1)", cases=(IOCase("", "1"),)), False),
        (Problem("d", "How many?", "Three."), False),  # what its task grades is no function
    ],
)
def test_a_function_without_cases_and_check_lacks_tests(problem, lacks):
    assert lacks_tests(problem) == lacks


def test_a_refusal_counts_and_names_the_first():
    refuse_untested([CHECKED])
    with pytest.raises(UserError, match="2 of 3 problems have no tests, the first is a: "):
        refuse_untested([CHECKED, UNTESTED, replace(UNTESTED, id="e")])


@pytest.mark.parametrize("expected", ["no", "written", "recorded"])
def test_where_all_have_tests_nothing_is_asked_or_written(tmp_path, expected):
    job = SamplingJob(CodeTask(), [CHECKED], Nobody(), Draw(2, Sampling(), 0), "nobody", None)
    tested = with_tests(tmp_path / "out", job, expected, KillFilter())
    assert tested == ProblemsWithTests([CHECKED], []) and not (tmp_path / "out").exists()
    assert (tested.summary, tested.table) == (None, {})
