"""Pairs from graded samples: who is chosen, who is rejected, and what of the others is counted as what."""

from collections import Counter
from itertools import product

import pytest

from lit_pref.sampling import GradedSample, execution_pairs, passing_demonstrations
from lit_pref.types import Completion, Outcome

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED
NOT_THE_MODELS = (Outcome.HARNESS_ERROR, Outcome.NO_CODE)


def sample(problem: str, text: str, outcome: Outcome, finished: bool = True, case: int | None = None) -> GradedSample:
    ids = tuple(map(ord, text))
    completion = Completion(text, ids, (-1.0,) * len(ids), finished)
    return GradedSample(problem, f"prompt of {problem}", completion, outcome, case)


def from_server(problem: str, text: str, outcome: Outcome) -> GradedSample:
    return GradedSample(problem, f"prompt of {problem}", Completion(text, (), (), True), outcome)


def sides(made) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in made.pairs]


# --- what a pair is ---------------------------------------------------------------------------------------------------


def test_a_pair_is_one_passing_and_one_failing_completion_with_its_tokens():
    made = execution_pairs([sample("a", "good", PASSED), sample("a", "bad", FAILED)], seed=0)
    (pair,) = made.pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("prompt of a", "good", "bad")
    assert pair.chosen_ids == tuple(map(ord, "good")) and pair.rejected_ids == tuple(map(ord, "bad"))


def test_a_completion_without_tokens_is_left_to_be_tokenized():
    samples = [from_server("a", "good", PASSED), from_server("a", "bad", FAILED)]
    (pair,) = execution_pairs(samples, seed=0).pairs
    assert (pair.chosen, pair.chosen_ids, pair.rejected_ids) == ("good", None, None)
    (demonstration,) = passing_demonstrations(samples)
    assert demonstration.completion_ids is None


def test_a_conversation_is_answered_by_assistant_turns():
    turns = ({"role": "user", "content": "hi"},)
    samples = [
        GradedSample("a", turns, Completion(text, (number,), (0.0,), True), outcome)
        for number, (text, outcome) in enumerate([("good", PASSED), ("bad", FAILED)])
    ]
    (pair,) = execution_pairs(samples, seed=0).pairs
    assert pair.prompt == turns
    assert pair.chosen == ({"role": "assistant", "content": "good"},)
    assert pair.rejected == ({"role": "assistant", "content": "bad"},)
    assert (pair.chosen_ids, pair.rejected_ids) == ((0,), (1,))
    (demonstration,) = passing_demonstrations(samples)
    assert (demonstration.prompt, demonstration.completion) == (turns, pair.chosen)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (PASSED, *NOT_THE_MODELS)])
def test_every_failure_of_the_model_can_be_rejected(outcome):
    made = execution_pairs([sample("a", "good", PASSED), sample("a", "bad", outcome)], seed=0)
    assert sides(made) == [("good", "bad")]


# --- what is counted --------------------------------------------------------------------------------------------------


def test_what_gave_no_pair_is_counted_by_reason():
    samples = [
        *(sample("all pass", text, PASSED) for text in "ab"),
        *(sample("all fail", text, FAILED) for text in "aab"),
        sample("cut", "good", PASSED),
        sample("cut", "endless", FAILED, finished=False),
        sample("prose", "good", PASSED),
        sample("prose", "I would rather not", Outcome.NO_CODE),
        sample("harness", "bad", Outcome.HARNESS_ERROR),
        from_server("server", "good", PASSED),
        from_server("server", " ", FAILED),
        sample("pair", "good", PASSED),
        sample("pair", "bad", FAILED),
    ]
    made = execution_pairs(samples, seed=0)
    assert made.counts == {
        "pairs": 1,
        "problems": 7,
        "problems all passed": 4,  # the cut sample, the one in prose and the empty one are not the model's failures
        "problems all failed": 1,
        "problems without usable samples": 1,
        "problems without samples of like length": 0,
        "samples": 14,
        "duplicate samples": 1,
        "truncated samples": 1,
        "samples without code": 1,
        "empty samples": 1,
        "harness errors": 1,
        "equal sides": 0,
    }
    assert made.summary.startswith("1 pairs, 7 problems, 4 problems all passed, ") and " 0 " not in made.summary


def test_an_empty_completion_whose_end_was_sampled_can_be_rejected():
    ended = GradedSample("a", "p", Completion("", (0,), (-1.0,), True), FAILED)
    made = execution_pairs([sample("a", "good", PASSED), ended], seed=0)
    assert sides(made) == [("good", "")] and made.pairs[0].rejected_ids == (0,)


def test_equal_sides_make_no_pair():
    made = execution_pairs([sample("a", "same", PASSED), sample("a", "same", FAILED)], seed=0)
    assert (made.pairs, made.counts["equal sides"]) == ([], 1)


# --- who is drawn -----------------------------------------------------------------------------------------------------


def test_the_choice_is_random_seeded_and_even():
    samples = [
        sample(f"p{number}", text, outcome)
        for number in range(600)
        for text, outcome in [("g1", PASSED), ("g2", PASSED), ("b1", FAILED), ("b2", Outcome.ERROR)]
    ]
    made = execution_pairs(samples, seed=0)
    assert made == execution_pairs(samples, seed=0)
    assert made.pairs != execution_pairs(samples, seed=1).pairs
    # 600 fair draws: 300 expected, standard deviation sqrt(600)/2 = 12.2; five of them are 61.
    assert abs(sum(pair.chosen == "g1" for pair in made.pairs) - 300) < 61
    assert abs(sum(pair.rejected == "b1" for pair in made.pairs) - 300) < 61


def test_what_was_sampled_often_is_drawn_often():
    samples = [
        sample(f"p{number}", text, outcome)
        for number in range(600)
        for text, outcome in [*[("often", PASSED)] * 3, ("once", PASSED), ("bad", FAILED)]
    ]
    chosen = Counter(pair.chosen for pair in execution_pairs(samples, seed=0).pairs)
    # 3 of 4: 450 expected, standard deviation sqrt(600 · 3/4 · 1/4) = 10.6; five of them are 53.
    assert abs(chosen["often"] - 450) < 53


def test_the_pair_of_a_problem_does_not_depend_on_the_others():
    of_a = [sample("a", f"g{i}", PASSED) for i in range(9)] + [sample("a", "bad", FAILED)]
    of_b = [sample("b", "good", PASSED), sample("b", "bad", FAILED)]
    assert execution_pairs(of_a, seed=5).pairs[0] == execution_pairs([*of_b, *of_a], seed=5).pairs[1]


def test_best_vs_worst_rejects_what_came_least_far():
    samples = [
        sample("a", "good", PASSED),
        sample("a", "far", FAILED, case=5),
        sample("a", "first case", FAILED, case=0),
        sample("a", "no case", Outcome.SYNTAX_ERROR),
        sample("a", "middle", Outcome.ERROR, case=2),
    ]
    rejected = {sides(execution_pairs(samples, seed, "best_vs_worst"))[0][1] for seed in range(40)}
    # neither of them passed a case: each is missed in all of 40 draws with probability 2^-40
    assert rejected == {"first case", "no case"}
    (_, *later) = sides(execution_pairs(samples, 0, "best_vs_worst", pairs_per_problem=4))
    assert [bad for _, bad in later][1:] == ["middle", "far"]
    at_random = {sides(execution_pairs(samples, seed))[0][1] for seed in range(80)}
    assert at_random == {"far", "first case", "no case", "middle"}


def test_best_vs_worst_needs_one_that_passes():
    samples = [sample("a", "far", FAILED, case=5), sample("a", "near", FAILED, case=0)]
    assert execution_pairs(samples, 0, "best_vs_worst").counts["problems all failed"] == 1


@pytest.mark.parametrize("strategy", ["random", "best_vs_worst"])
@pytest.mark.parametrize(("passing", "failing"), [(1, 1), (1, 3), (3, 1), (2, 2), (2, 3), (4, 6)])
def test_several_pairs_of_a_problem_differ_and_share_no_side_while_they_can(passing, failing, strategy):
    good, bad = [f"g{i}" for i in range(passing)], [f"b{i}" for i in range(failing)]
    samples = [sample("a", text, PASSED) for text in good * 2] + [sample("a", text, FAILED) for text in bad * 2]
    for count in range(1, passing * failing + 3):
        made = sides(execution_pairs(samples, 7, strategy, count))
        assert len(made) == len(set(made)) == min(count, passing * failing)
        assert len({chosen for chosen, _ in made}) == min(count, passing)
        assert len({rejected for _, rejected in made}) == min(count, failing)
    assert set(made) == set(product(good, bad))


def test_more_pairs_a_problem_begin_with_the_same_ones():
    samples = [sample("a", f"g{i}", PASSED) for i in range(5)] + [sample("a", f"b{i}", FAILED) for i in range(5)]
    one, two, four = (sides(execution_pairs(samples, 3, pairs_per_problem=count)) for count in (1, 2, 4))
    assert one == four[:1] and two == four[:2]


def test_at_least_one_pair_a_problem_is_asked_for():
    with pytest.raises(ValueError, match="pairs_per_problem must be >= 1, got 0"):
        execution_pairs([], 0, pairs_per_problem=0)


# --- passing samples --------------------------------------------------------------------------------------------------


def test_passing_demonstrations_are_distinct_and_finished():
    samples = [
        sample("a", "good", PASSED),
        sample("a", "good", PASSED),
        sample("a", "other", PASSED),
        sample("a", "cut", PASSED, finished=False),
        sample("a", "bad", FAILED),
        sample("b", "good", PASSED),
        from_server("b", "one", PASSED),
        from_server("b", "two", PASSED),
        from_server("b", "two", PASSED),
    ]
    made = passing_demonstrations(samples)
    assert [(d.prompt, d.completion) for d in made] == [
        ("prompt of a", "good"),
        ("prompt of a", "other"),
        ("prompt of b", "good"),
        ("prompt of b", "one"),
        ("prompt of b", "two"),
    ]


def sample_of(text: str, outcome: Outcome, length: int, problem: str = "p") -> GradedSample:
    return GradedSample(problem, "q", Completion(text, tuple(range(length)), (), True), outcome)


def test_length_matched_takes_the_nearest_and_leaves_out_what_differs_by_more_than_a_tenth() -> None:
    samples = [
        sample_of("right", Outcome.PASSED, 20),
        sample_of("near", Outcome.FAILED, 21),
        sample_of("nearer", Outcome.FAILED, 20),
        sample_of("far", Outcome.FAILED, 23),  # 3 of 23 is more than a tenth
        sample_of("right", Outcome.PASSED, 10, "other"),
        sample_of("wrong", Outcome.FAILED, 12, "other"),
    ]
    made = execution_pairs(samples, 0, "length_matched", 3)
    assert [pair.rejected for pair in made.pairs] == ["nearer", "near"]
    assert made.counts["problems without samples of like length"] == 1
    assert execution_pairs(samples, 0, "length_matched").pairs == made.pairs[:1]
