"""Which problems share text with a benchmark: ten words in a row, or the whole of a short text."""

import time

import pytest

from lit_pref.synthesis.decontamination import Overlap, decontaminate
from lit_pref.types import Problem

TEN = "one two three four five six seven eight nine ten"
FILLER = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"


def problem(prompt, reference="", name="x"):
    return Problem(name, prompt, reference)


def dropped(ours, theirs, **settings):
    return not decontaminate([ours], {"b": [theirs]}, **settings).problems


def test_ten_words_in_a_row_are_shared_and_nine_are_not():
    nine = TEN.removesuffix(" ten")
    assert dropped(problem(f"x y {TEN} z"), problem(f"{FILLER} {TEN} {FILLER}"))
    assert not dropped(problem(f"x y {nine} z"), problem(f"{FILLER} {nine} {FILLER}"))


@pytest.mark.parametrize(
    "variant", [TEN.upper(), TEN.replace(" ", "\n  "), TEN.replace(" ", ", ") + "!", f"({TEN.replace(' ', ')(')})"]
)
def test_case_punctuation_and_layout_do_not_count(variant):
    assert dropped(problem(f"{variant} {FILLER}"), problem(f"{FILLER} {TEN}"))


def test_underscores_hold_a_name_together():
    names = "has_close_elements " * 10
    assert not dropped(problem(names), problem(names.replace("_", " ")))


def test_references_are_compared_with_solutions_and_prompts_with_prompts():
    assert dropped(problem("ours", TEN), problem("theirs", TEN))
    assert not dropped(problem(TEN, "ours"), problem("theirs", TEN))
    assert not dropped(problem("ours", TEN), problem(TEN, "theirs"))


def test_a_short_text_is_compared_whole():
    # 4 words: equal whole texts only
    assert dropped(problem("ours", "return a + b + c"), problem("theirs", "return a+b+c"))
    assert not dropped(problem("ours", "return a + b + c + d"), problem("theirs", "return a + b + c"))
    # a benchmark's short text within a longer one of ours is no match either
    assert not dropped(problem("ours", f"return a + b + c {FILLER}"), problem("theirs", "return a + b + c"))


def test_fewer_than_three_words_are_no_evidence():
    assert not dropped(problem("ours", "return x"), problem("theirs", "return x"))
    assert dropped(problem("ours", "return x y"), problem("theirs", "return x y"))
    assert not dropped(problem(""), problem(""))


def test_the_turns_of_a_conversation_are_its_text():
    turns = ({"role": "system", "content": "be brief"}, {"role": "user", "content": f"{FILLER} {TEN}"})
    assert dropped(problem(turns), problem(TEN))
    assert dropped(problem(TEN), problem(turns))


def test_drops_are_counted_by_benchmark_and_shown():
    problems = [problem(f"{TEN} {n}", name=str(n)) for n in range(2)] + [problem(FILLER, "f g h", "2")]
    problems += [problem("what is left", "and its reference", "3")]
    benchmarks = {
        "first": [problem(TEN)],
        "second": [problem(f"1 {FILLER}", "f(g(h))"), problem(TEN)],
        "third": [problem("of its own")],
    }
    made = decontaminate(problems, benchmarks)
    assert [each.id for each in made.problems] == ["3"]
    assert made.counts == {"first": 2, "second": 3, "third": 0}
    assert Overlap("0", "first", TEN) in made.overlaps
    assert [each.words for each in made.overlaps if each.problem_id == "2"] == [
        "alpha beta gamma delta epsilon zeta eta theta iota kappa"
    ]


@pytest.mark.parametrize(("problems", "expected"), [(10, True), (11, False)])
def test_what_more_than_ten_problems_of_a_benchmark_say_is_its_form(problems, expected):
    benchmark = [problem(f"{TEN} question number {n}") for n in range(problems)]
    ours = problem(f"{TEN} another question")
    assert (not decontaminate([ours], {"b": benchmark}).problems) is expected


def test_n_can_be_chosen_and_is_checked():
    assert dropped(problem("a b c d"), problem("x b c d"), n=3)
    assert not dropped(problem("a b c d"), problem("x b c d"), n=4)
    with pytest.raises(ValueError, match="n must be >= 3, got 2"):
        decontaminate([], {}, n=2)


def test_nothing_to_compare_with_drops_nothing():
    ours = [problem(TEN)]
    assert decontaminate(ours, {}).problems == ours


def test_thousands_of_problems_take_no_time():
    benchmark = [problem(" ".join(f"w{n}_{i}" for i in range(200))) for n in range(200)]
    ours = [problem(" ".join(f"v{n}_{i}" for i in range(100)), name=str(n)) for n in range(2000)]
    start = time.process_time()
    assert len(decontaminate(ours, {"b": benchmark}).problems) == 2000
    assert time.process_time() - start < 30  # 0.2 s where it was written; comparing all with all takes minutes
