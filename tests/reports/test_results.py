import io
import math

import pytest
from rich.console import Console

from lit_pref.data.reading.sample_files import Samples
from lit_pref.reports.results import evaluation_results
from lit_pref.types import Completion, Outcome, Problem, Verdict

P, F, N = (Verdict(outcome) for outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.NO_CODE))


def found(drawn, verdicts, ks, failing=()):
    problems = [Problem(f"T/{number}", "", "") for number in range(len(verdicts))]
    return evaluation_results(problems, drawn, verdicts, ks, dict(failing))


def samples(verdicts, cut=0, ends_known=True):
    """As many samples as verdicts, of which the first `cut` were truncated."""
    number = iter(range(10_000))
    return Samples([[Completion("", (), (), next(number) >= cut) for _ in several] for several in verdicts], ends_known)


def test_figures_are_over_problems_with_as_many_samples_as_each_has():
    verdicts = [[P, F], [F, F, N], [P, P]]
    results = found(samples(verdicts, cut=2), verdicts, [1, 2])
    # pass@1: 1/2, 0, 1; pass@2: 1 (the only pair holds a pass), 0, 1
    assert results.figures["pass@1"].mean == pytest.approx(0.5)
    assert results.figures["pass@2"].mean == pytest.approx(2 / 3)
    # Student, 2 degrees of freedom: t = 4.3027, standard deviation 1/2, so ± 4.3027 · 0.5 / √3 = 1.2421: cut
    assert results.figures["pass@1"][1:3] == (0.0, 1.0)
    assert (results.problems, results.samples, results.truncated) == (3, 7, 2)
    assert results.outcomes == {Outcome.PASSED: 3, Outcome.FAILED: 3, Outcome.NO_CODE: 1}


def test_one_sample_a_problem_gives_wilsons_interval():
    verdicts = [[P]] * 20 + [[F]] * 144
    low, high = found(samples(verdicts), verdicts, [1]).figures["pass@1"][1:3]
    z, n, share = 1.959964, 164, 20 / 164
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx(
        [(share + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)], abs=1e-6
    )


def test_a_k_beyond_the_fewest_samples():
    verdicts = [[P, F], [F]]
    with pytest.raises(ValueError, match="pass@2 needs at least 2 samples a problem, got 1"):
        found(samples(verdicts), verdicts, [1, 2])


def test_as_json_and_as_a_table():
    verdicts = [[P, N]]
    results = found(samples(verdicts, cut=1), verdicts, [1, 2])
    written = results.to_json()
    # one problem whose pass@1 is neither 0 nor 1: nothing bounds it
    assert written["figures"]["pass@1"] == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert written["figures"]["pass@2"]["mean"] == 1.0
    assert written["outcomes"] == {outcome.value: 0 for outcome in Outcome} | {"passed": 1, "no_code": 1}
    assert (written["problems"], written["samples"], written["truncated"]) == (1, 2, 1)
    shown = io.StringIO()
    Console(file=shown, width=60).print(results.table("tiny, test"))
    lines = [line.split() for line in shown.getvalue().splitlines()]
    for row in (["tiny,", "test"], ["pass@1", "50.0%"], ["no_code", "1"], ["truncated", "1"]):
        assert row in lines
    assert not any("failed" in line for line in lines)


def test_ends_that_are_not_known_are_not_counted():
    verdicts = [[P], [F]]
    results = found(samples(verdicts, ends_known=False), verdicts, [1])
    assert results.truncated is None and results.to_json()["truncated"] is None
    shown = io.StringIO()
    Console(file=shown, width=60).print(results.table("x"))
    assert "truncated" not in shown.getvalue()


def test_what_is_left_out_is_named_and_counted():
    broken = Verdict(Outcome.HARNESS_ERROR, detail="no process")
    verdicts = [[P, broken], [broken, broken], [P, F]]
    results = found(samples(verdicts), verdicts, [1], {"T/9": "failed: test 0"})
    # 1 of the 1 that was graded, and 1 of 2
    assert results.figures["pass@1"].mean == 0.75 and (results.problems, results.samples) == (2, 6)
    left_out = {"failing_references": {"T/9": "failed: test 0"}, "ungraded": {"T/1": "no process"}}
    assert results.to_json()["left_out"] == left_out
    shown = io.StringIO()
    Console(file=shown, width=60).print(results.table("x"))
    lines = [line.split() for line in shown.getvalue().splitlines()]
    for row in ("problems 2", "left out, the reference fails 1", "left out, not graded 1", "harness_error 3"):
        assert row.split() in lines
