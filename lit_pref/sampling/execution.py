"""Execution-labelled data: sample completions of problems, run them, and pick pairs or passing samples.

After arXiv 2410.18585 as third parties sum it up: several responses a query from the model being aligned, each run
against the tests, per query one passing and one failing response at random. Sampling settings, several pairs a problem
and `best_vs_worst` are ours.
What is no error of the model is never a rejected response: a truncated sample, one without a program in it, a failure
of the harness. Each is counted.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Literal, NamedTuple

from lit_pref.data.formats.prompts import response
from lit_pref.sampling.grading import GradedSample
from lit_pref.types import Demonstration, Outcome, PreferencePair, Text

PairStrategy = Literal["random", "best_vs_worst", "length_matched"]
"""How a problem's pairs are chosen.

random: any passing against any failing sample.
best_vs_worst: the failing sample that passed the fewest cases comes first. Cases run in order and a verdict names the
first that failed, so this is how far a program got, not how many cases it would pass. Passing samples are equal, and
so are all failing ones of a task that checks with one piece of test code. Where none passes there is no pair.
length_matched: the passing and failing samples that are nearest in length, in tokens; a pair whose lengths differ by
more than a tenth of the longer is left out, so that a reward model cannot go by length.
"""

_LENGTH_TOLERANCE = 0.1

_COUNTED = (
    "pairs",
    "problems",
    "problems all passed",
    "problems all failed",
    "problems without usable samples",
    "problems without samples of like length",
    "samples",
    "duplicate samples",
    "truncated samples",
    "samples without code",
    "empty samples",
    "harness errors",
    "equal sides",
)


class ExecutionPairs(NamedTuple):
    """Pairs, and what became of problems and samples.

    counts: `problems …` are those that gave no pair, by reason; `… samples` and `harness errors` were left out, but for
        `duplicate samples`, whose text another sample of the problem has: they are run once and drawn as often as
        they were sampled.
    """

    pairs: list[PreferencePair]
    counts: dict[str, int]

    @property
    def summary(self) -> str:
        """The counts in one line."""
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items() if count)


def execution_pairs(
    samples: Iterable[GradedSample], seed: int, strategy: PairStrategy = "random", pairs_per_problem: int = 1
) -> ExecutionPairs:
    """Pairs of a passing and a failing completion of one problem; a problem without both gives none.

    pairs_per_problem: at most; a problem's pairs differ, and share a side only where no other is left.
    """
    if pairs_per_problem < 1:
        raise ValueError(f"pairs_per_problem must be >= 1, got {pairs_per_problem}")
    pairs: list[PreferencePair] = []
    counts = Counter(dict.fromkeys(_COUNTED, 0))
    for problem_id, graded in _by_problem(samples).items():
        left_out = [_why_left_out(sample) for sample in graded]
        usable = [sample for sample, why in zip(graded, left_out, strict=True) if why is None]
        passing = [sample for sample in usable if sample.outcome is Outcome.PASSED]
        failing = [sample for sample in usable if sample.outcome is not Outcome.PASSED]
        counts.update(filter(None, left_out))
        duplicates = len(graded) - len({sample.completion.text for sample in graded})
        counts.update({"problems": 1, "samples": len(graded), "duplicate samples": duplicates})
        if not passing or not failing:
            why = "all passed" if passing else "all failed" if failing else "without usable samples"
            counts[f"problems {why}"] += 1
            continue
        stream = f"{seed}:{problem_id}"
        if strategy == "length_matched":
            matched = _of_like_length(passing, failing, pairs_per_problem, stream)
            counts["problems without samples of like length"] += not matched
        else:
            matched = list(_matched(passing, failing, strategy, pairs_per_problem, stream))
        for chosen, rejected in matched:
            if chosen.completion.text == rejected.completion.text:
                counts["equal sides"] += 1
                continue
            pairs.append(_pair(chosen, rejected))
    counts["pairs"] = len(pairs)
    return ExecutionPairs(pairs, dict(counts))


def passing_demonstrations(
    samples: Iterable[GradedSample], per_problem: int | None = None, seed: int = 0
) -> list[Demonstration]:
    """The distinct passing completions of each problem: what SFT on passing samples (RFT) imitates.

    per_problem: at most, drawn by the seed and in the order of the samples; None is all.
    """
    found: list[Demonstration] = []
    for problem_id, graded in _by_problem(samples).items():
        passing = [answer for answer, outcome in distinct_answers(graded) if outcome is Outcome.PASSED]
        if per_problem is not None and per_problem < len(passing):
            kept = random.Random(f"{seed}:{problem_id}").sample(range(len(passing)), per_problem)
            passing = [passing[place] for place in sorted(kept)]
        found += passing
    return found


def distinct_answers(samples: Iterable[GradedSample]) -> list[tuple[Demonstration, Outcome]]:
    """The distinct completions of each problem that can be trained on, and how each execution ended."""
    distinct = {
        (sample.problem_id, sample.completion.token_ids or sample.completion.text): sample
        for sample in samples
        if _why_left_out(sample) is None
    }
    return [
        (Demonstration(sample.prompt, _answer(sample), sample.completion.token_ids or None), sample.outcome)
        for sample in distinct.values()
    ]


def _why_left_out(sample: GradedSample) -> str | None:
    """The count of a sample that can be neither chosen nor rejected; None for one that can."""
    if sample.outcome is Outcome.HARNESS_ERROR:
        return "harness errors"
    if not sample.completion.finished:
        return "truncated samples"
    if sample.outcome is Outcome.NO_CODE:
        return "samples without code"
    # Its EOS can be trained on; of a server's empty answer there is not even that.
    if not sample.completion.token_ids and not sample.completion.text.strip():
        return "empty samples"
    return None


def _matched(
    passing: Sequence[GradedSample], failing: Sequence[GradedSample], strategy: PairStrategy, count: int, stream: str
) -> Iterator[tuple[GradedSample, GradedSample]]:
    """Different pairs of (chosen, rejected), at most `count`; stream: what the draws are seeded with."""
    draw = random.Random(stream)
    by_cases: list[Sequence[GradedSample]] = [failing]
    if strategy == "best_vs_worst":
        reached = sorted({_cases_passed(sample) for sample in failing})
        by_cases = [[sample for sample in failing if _cases_passed(sample) == cases] for cases in reached]
    # In turns, so that the first pair is the same however many follow.
    both = list(islice(zip_longest(_drawn([passing], draw), _drawn(by_cases, draw)), count))
    chosen = [sample for sample, _ in both if sample is not None]
    rejected = [sample for _, sample in both if sample is not None]
    # Each step takes the next of both; once both have come round together, one side moves on by one.
    together = math.lcm(len(chosen), len(rejected))
    for step in range(min(count, len(chosen) * len(rejected))):
        yield chosen[step % len(chosen)], rejected[(step + step // together) % len(rejected)]


def _of_like_length(
    passing: Sequence[GradedSample], failing: Sequence[GradedSample], count: int, stream: str
) -> list[tuple[GradedSample, GradedSample]]:
    """Different pairs of (chosen, rejected), at most `count`, nearest in length first; ties in random order."""
    draw = random.Random(stream)
    sides = [{sample.completion.text: sample for sample in side}.values() for side in (passing, failing)]
    both = [(chosen, rejected) for chosen in sides[0] for rejected in sides[1]]
    draw.shuffle(both)
    gaps = {pair: abs(_length(pair[0]) - _length(pair[1])) for pair in both}
    near = [pair for pair in both if gaps[pair] <= _LENGTH_TOLERANCE * max(map(_length, pair))]
    return sorted(near, key=lambda pair: gaps[pair])[:count]


def _length(sample: GradedSample) -> int:
    """In tokens; in characters where a server gave none."""
    return len(sample.completion.token_ids or sample.completion.text)


def _drawn(groups: Sequence[Sequence[GradedSample]], draw: random.Random) -> Iterator[GradedSample]:
    """Samples of different text in random order, earlier groups first."""
    for group in groups:
        left = list(group)
        while left:
            drawn = draw.choice(left)
            yield drawn
            left = [sample for sample in left if sample.completion.text != drawn.completion.text]


def _cases_passed(sample: GradedSample) -> int:
    """Before the first that failed; 0 for a program that did not get to its cases."""
    return sample.case or 0


def _pair(chosen: GradedSample, rejected: GradedSample) -> PreferencePair:
    return PreferencePair(
        prompt=chosen.prompt,
        chosen=_answer(chosen),
        rejected=_answer(rejected),
        chosen_ids=chosen.completion.token_ids or None,
        rejected_ids=rejected.completion.token_ids or None,
    )


def _answer(sample: GradedSample) -> Text:
    return response(sample.prompt, sample.completion.text)


def _by_problem(samples: Iterable[GradedSample]) -> dict[str, list[GradedSample]]:
    grouped: dict[str, list[GradedSample]] = {}
    for sample in samples:
        grouped.setdefault(sample.problem_id, []).append(sample)
    return grouped
