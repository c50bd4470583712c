"""Problems without those that share text with a benchmark, found by word n-grams.

The rule is DeepSeek-Coder's (arXiv 2401.14196, section 2): a shared 10-gram, and for texts of 3 to 9 words the whole
text. Words are runs of letters, digits and underscores in lower case, so case, punctuation and layout do not count.
Prompts are compared with prompts, references with solutions. Ours: an n-gram that more than ten problems of a benchmark
have is its form, such as the sentence around each question, and matches nothing.
Not covered: paraphrases, translations, renamed variables; scripts without spaces between words.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lit_pref.types import Problem, Text

_WORD = re.compile(r"\w+")
_FEWEST_WORDS = 3  # shorter texts are no evidence
_FORM = 10


class Overlap(NamedTuple):
    """A problem that was dropped, the benchmark, and an n-gram that they share."""

    problem_id: str
    benchmark: str
    words: str


class Decontaminated(NamedTuple):
    """The problems that are left, in order, and why the others are not.

    overlaps: one for each dropped problem and benchmark that it meets.
    counts: dropped problems by benchmark; one that meets two counts for both.
    """

    problems: list[Problem]
    overlaps: list[Overlap]
    counts: dict[str, int]


def decontaminate(
    problems: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]], n: int = 10
) -> Decontaminated:
    """Drop problems whose prompt or reference shares an n-gram with one of a benchmark's problems.

    benchmarks: their problems, by the name that the counts give them.
    """
    if n < _FEWEST_WORDS:
        raise ValueError(f"n must be >= {_FEWEST_WORDS}, got {n}")
    prompts = {name: _grams_of_several((p.prompt for p in theirs), n) for name, theirs in benchmarks.items()}
    solutions = {name: _grams_of_several((p.reference for p in theirs), n) for name, theirs in benchmarks.items()}
    left: list[Problem] = []
    overlaps: list[Overlap] = []
    for problem in problems:
        prompt, reference = _grams(problem.prompt, n), _grams(problem.reference, n)
        shared = {name: prompt & prompts[name] | reference & solutions[name] for name in benchmarks}
        found = [Overlap(problem.id, name, min(grams)) for name, grams in shared.items() if grams]
        overlaps += found
        if not found:
            left.append(problem)
    counts = Counter(overlap.benchmark for overlap in overlaps)
    return Decontaminated(left, overlaps, {name: counts[name] for name in benchmarks})


def _grams_of_several(texts: Iterable[Text], n: int) -> set[str]:
    """The n-grams of a benchmark's texts, without those of its form."""
    counts = Counter(gram for text in texts for gram in _grams(text, n))
    return {gram for gram, count in counts.items() if count <= _FORM}


def _grams(text: Text, n: int) -> set[str]:
    """All n words in a row, or the whole of a shorter text."""
    plain = text if isinstance(text, str) else "\n".join(turn["content"] for turn in text)
    words = _WORD.findall(plain.lower())
    if len(words) < _FEWEST_WORDS:
        return set()
    return {" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}
