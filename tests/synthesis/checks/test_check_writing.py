"""Checks by a scripted generator or from the reference, run in the real sandbox.

`add` has two mutants: `a - b`, and `return None`.
"""

from dataclasses import replace

import pytest

from lit_pref.sampling.drawing import Draw
from lit_pref.sandbox import default_sandbox
from lit_pref.synthesis.checks.check_filter import CheckReport, KillFilter, summarize
from lit_pref.synthesis.checks.check_writing import check_prompt, with_checks, write_checks
from lit_pref.types import Case, Check, Completion, Generator, Outcome, Problem, Program, Sampling, Sandbox, Verdict

ADD = Problem("add", 'def add(a, b):\n    """The sum."""\n', "    return a + b\n", entry_point="add")
ASKED = ({"role": "user", "content": "Write `add`: the sum of two."},)
TOLD = Problem("told", ASKED, "def add(a, b):\n    return a + b\n", entry_point="add")
DRAW = Draw(1, Sampling(), seed=3)


class Script(Generator):
    """Gives the answers that it was given, prompt by prompt."""

    def __init__(self, *answers):
        self.answers, self.asked = answers, []

    def generate(self, prompts, samples, sampling, seed):
        self.asked.append((prompts, samples, sampling, seed))
        split = [answer if isinstance(answer, list) else [answer] for answer in self.answers]
        return [[Completion(text, (), (), True) for text in several] for several in split]


def written(answer, problem=TOLD, **rule):
    (report,) = write_checks([problem], Script(answer), default_sandbox(), DRAW, KillFilter(**rule))
    return report


def test_a_check_that_the_reference_passes_and_the_mutants_fail_is_kept():
    report = written("Here:\n```python\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n```")
    check = Check("assert add(1, 2) == 3\nassert add(0, 0) == 0\n", entry_points=("add",))
    assert report == CheckReport("told", "kept", check, asserts=2, dropped=0, killed=2, mutants=2)
    assert report.kill_rate == 1.0


def test_wrong_asserts_are_dropped_and_the_others_stay():
    report = written(
        "assert add(1, 2) == 4\nassert add(1, 2) == 3\nassert add(lambda: 1, 2) == 3\nassert add(1) == 1\n"
    )
    assert report.fate == "kept" and report.check == Check("assert add(1, 2) == 3\n", entry_points=("add",))
    assert (report.asserts, report.dropped) == (1, 3)


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        ("I cannot test that.", "no code"),
        ("```python\ndef add(a, b):\n    return a + b\n```", "no code"),
        ("assert sub(1, 2) == 3", "no code"),
        ("assert add(1, 2) == 4", "reference failed"),
        ("assert add(1, 2) == add", "reference failed"),
        ("assert add(lambda: 1, 2) == 3", "reference failed"),
    ],
)
def test_why_there_is_no_check(answer, fate):
    report = written(answer)
    assert (report.fate, report.check, report.mutants, report.kill_rate) == (fate, None, 0, None)


@pytest.mark.parametrize(("least", "fate"), [(0.5, "kept"), (0.51, "too weak")])
def test_a_check_is_as_strong_as_the_share_of_mutants_that_fail(least, fate):
    # 1 + 0 is 1 - 0, but not None: one of two.
    report = written("assert add(1, 0) == 1", min_kill_rate=least)
    assert (report.fate, report.killed, report.mutants) == (fate, 1, 2)
    assert report.check is not None


def test_asserts_together_kill_what_each_kills():
    assert written("assert add(1, 0) == 1\nassert add(0, 1) == 1", min_kill_rate=1.0).fate == "kept"


def test_a_reference_without_mutants_or_without_code():
    nothing = replace(TOLD, reference="def add(a, b):\n    pass\n")
    assert written("assert add(1, 2) is None", nothing).fate == "no mutants"
    assert written("assert add(1, 2) == 3", replace(TOLD, reference="The sum of both.")).fate == "reference failed"


def test_a_mutant_that_never_ends_is_killed():
    source = "def add(a, b):\n    while b > 0:\n        a += 1\n        b -= 1\n    return a\n"
    problem = replace(TOLD, reference=source)
    report = written("assert add(1, 2) == 3", problem, kinds=("operator", "off_by_one"), min_kill_rate=0)
    # b > 1 and b > -1 give 2 and 4; a -= 1, a += 2, a += 0 give -1, 5, 1; b -= 2 gives 2; b += 1 and b -= 0 do not end.
    assert (report.killed, report.mutants) == (8, 8)


def test_mutants_are_made_of_what_the_entry_point_reaches():
    source = "def other(x):\n    return x < 1 and x > 2\n\n\ndef add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n"
    assert written("assert add(1, 2) == 3", replace(TOLD, reference=source)).mutants == 2


def test_mutants_are_spread_over_the_source():
    source = "def add(a, b):\n" + "".join(f"    a += {number}\n" for number in range(10)) + "    return a + b - 45\n"
    # The second of two mutants lies in the middle of all: were they the first two, `a += 0` to `a -= 0` would live.
    report = written("assert add(1, 2) == 3", replace(TOLD, reference=source), max_mutants=2, min_kill_rate=0)
    assert (report.mutants, report.killed) == (2, 1)


def test_all_samples_of_a_problem_make_one_check():
    report = written(["assert add(1, 0) == 1", "nothing", "assert add(1, 0) == 1\nassert add(0, 1) == 1"])
    assert report.check == Check("assert add(1, 0) == 1\nassert add(0, 1) == 1\n", entry_points=("add",))


def test_code_is_gone_on_with_and_conversations_are_asked():
    script = Script("1, 2) == 3\nassert add(0, 0) ==", "```python\nassert add(1, 2) == 3\n```")
    reports = write_checks([ADD, TOLD], script, default_sandbox(), DRAW)
    assert [report.fate for report in reports] == ["kept", "kept"]
    assert reports[0].check == reports[1].check == Check("assert add(1, 2) == 3\n", entry_points=("add",))
    (((code, turns), samples, sampling, seed),) = script.asked
    assert code == (
        'def add(a, b):\n    """The sum."""\n    pass\n\n\n# Ordinary inputs, limits, empty inputs:\nassert add('
    )
    assert [turn["role"] for turn in turns] == ["user"]
    assert "tests of `add`" in turns[0]["content"] and turns[0]["content"].endswith("Write `add`: the sum of two.")
    assert (samples, sampling, seed) == tuple(DRAW)


def test_a_prompt_that_is_no_code_is_gone_on_with_too():
    prompt, lead = check_prompt(replace(ADD, prompt="Add two numbers.\n"))
    assert (
        prompt == "Add two numbers.\n\n\n# Ordinary inputs, limits, empty inputs:\nassert add("
        and lead == "assert add("
    )


def test_results_are_recorded_where_the_generator_gives_calls_alone():
    script = Script("assert add(1, 2) == 'wrong'\nassert add(x, 2) == 3\nassert add(2, 3) == add(1, 2)")
    (report,) = write_checks([TOLD], script, default_sandbox(), DRAW, expected="recorded")
    assert report.check == Check("assert add(1, 2) == 3\nassert add(2, 3) == 5\n", entry_points=("add",))
    assert report.fate == "kept" and report.dropped == 0


def recorded(problem, calls, rule=None):
    script = Script("\n".join(f"assert {call} == 0" for call in calls))
    (report,) = write_checks([problem], script, default_sandbox(), DRAW, rule, "recorded")
    return report


def test_what_the_reference_gives_is_recorded():
    calls = {
        "add(1, 2)": "assert add(1, 2) == 3",
        "add(-1, 0)": "assert add(-1, 0) == -1",
        "add('ä', '\"')": "assert add('ä', '\"') == '\\xe4\"'",
        "add([1], [(2,)])": "assert add([1], [(2,)]) == [1, (2,)]",
        "add(0.1, 0.2)": "assert abs(add(0.1, 0.2) - 0.30000000000000004) <= 1e-06",
        "add(-2e20, 0)": "assert abs(add(-2e20, 0) - -2e+20) <= 200000000000000.0",
        "add('x' * 17, 'y' * 17)": f"assert add('x' * 17, 'y' * 17) == '{'x' * 17}{'y' * 17}'",  # a slice to the digit
        "add('x' * 400, 'y' * 400)": f"assert add('x' * 400, 'y' * 400) == '{'x' * 400}{'y' * 400}'",
        "add('x' * 998, '')": f"assert add('x' * 998, '') == '{'x' * 998}'",  # with its quotes 1,000
        "add('x' * 999, '')": None,
        "add('x' * 5000, '')": None,
        "add(1, None)": None,  # raises
        "add(float('nan'), 1)": None,  # equals nothing
    }
    report = recorded(TOLD, [*calls, "add(1, 2)"])
    assert report.check is not None
    assert report.check.code.splitlines() == [text for text in calls.values() if text is not None]
    assert (report.fate, report.killed, report.mutants) == ("kept", 2, 2)


def test_objects_that_a_reference_gives_are_not_recorded():
    source = "def add(a, b):\n    return {0: {a}, 1: set(), 2: frozenset([a]), 3: object, 4: object()}[b]\n"
    report = recorded(replace(TOLD, reference=source), [f"add(7, {n})" for n in range(5)], KillFilter(0))
    assert report.check is not None and report.check.code.splitlines() == [
        "assert add(7, 0) == {7}",
        "assert add(7, 1) == set()",
    ]


def test_recorded_checks_are_filtered_too():
    assert recorded(TOLD, ["add(1, 0)"], KillFilter(min_kill_rate=0.6)).fate == "too weak"
    assert recorded(TOLD, ["add(1, None)"]).fate == "no code"
    assert recorded(TOLD, []).fate == "no code"


class Failing(Sandbox):
    """Passes every assert on the reference, and cannot run the mutants."""

    def run(self, programs):
        broken = Verdict(Outcome.HARNESS_ERROR)
        return [Verdict(Outcome.PASSED) if "return a + b" in program.source else broken for program in programs]


def test_mutants_that_our_side_could_not_run_are_nobodys():
    (report,) = write_checks([TOLD], Script("assert add(1, 2) == 3"), Failing(), DRAW)
    assert (report.fate, report.killed, report.mutants) == ("harness", 0, 0)


def test_what_is_kept_grades_and_the_summary_counts():
    weak, wrong, cases = (
        replace(TOLD, id="weak"),
        replace(TOLD, id="wrong"),
        replace(TOLD, cases=(Case("add(1, 2)", "3"),)),
    )
    problems = [weak, cases, wrong]
    answers = ["assert add(1, 0) == 1", "assert add(1, 2) == 3\nassert add(1, 2) == 4", "assert add(1, 2) == 4"]
    reports = write_checks(problems, Script(*answers), default_sandbox(), DRAW, KillFilter(0.6))
    (kept,) = with_checks(problems, reports)
    assert (kept.id, kept.cases, kept.check) == ("told", (), Check("assert add(1, 2) == 3\n", entry_points=("add",)))
    sources = ["def add(a, b):\n    return b + a\n", "def add(a, b):\n    return 3 * b\n"]
    verdicts = default_sandbox().run([Program(source, check=kept.check) for source in sources])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.FAILED]
    assert summarize(reports) == {
        "kept": 1,
        "no code": 0,
        "reference failed": 1,
        "no mutants": 0,
        "too weak": 1,
        "harness": 0,
        "asserts": 2,
        "dropped asserts": 2,
        "kill rate": 0.75,  # one and two of two
    }
    assert summarize([])["kill rate"] is None


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="problem x has no entry point"):
        write_checks([Problem("x", "p", "r")], Script("a"), default_sandbox(), DRAW)
    with pytest.raises(ValueError, match=r"min_kill_rate must be in \[0, 1\], got 50"):
        KillFilter(min_kill_rate=50)
    with pytest.raises(ValueError, match="max_mutants must be >= 1, got 0"):
        KillFilter(max_mutants=0)
