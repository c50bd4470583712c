"""The embedded deduction task: rules about kinds and a fact about someone; which of four statements follows?

Seeded and endless; the test split shares no form (how long the chain is, which rules stand beside it, in what order)
with the others. Every statement has the same shape, so that only the rules tell them apart. Not covered: disjunction,
counting, more than one person.
"""

import hashlib
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from lit_pref.tasks.embedded.code.operations import PEOPLE
from lit_pref.types import ChoiceTask, MultipleChoice, PairTask, PreferencePair, Split

_KINDS = ("baker", "drummer", "farmer", "nurse", "painter", "pilot", "poet", "runner", "sailor", "singer", "tailor")
_DEFAULT_QUESTIONS = 1000
_TEST_PERCENT = 15  # of forms
_VALIDATION_PERCENT = 10  # of the questions of the other forms
_MAX_MISSES = 50_000  # draws in a row without a new question: the split is used up


class _Draft(NamedTuple):
    prompt: str
    options: tuple[str, ...]
    answer: int
    form: str


class DeductionTask(ChoiceTask, PairTask):
    """Questions such as: every nurse is a poet, no poet is a pilot, Ana is a nurse; so Ana is no pilot."""

    name = "deduction"

    def questions(self, split: Split, count: int | None, seed: int) -> list[MultipleChoice]:
        """`count` questions with distinct prompts; None is 1,000. With a larger count the same ones come first."""
        count = _DEFAULT_QUESTIONS if count is None else count
        if count < 0:
            raise ValueError(f"count must be >= 0, got {count}")
        found: dict[str, MultipleChoice] = {}
        misses = 0
        for draft in _drafts(split, seed):
            if len(found) >= count:
                break
            misses = misses + 1 if draft.prompt in found else 0
            if misses > _MAX_MISSES:
                raise ValueError(f"split {split!r} of deduction has about {len(found)} questions, {count} asked for")
            found.setdefault(draft.prompt, _question(draft))
        return list(found.values())

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """The right option over one of the others, drawn by the question."""
        return [_pair(question) for question in self.questions(split, count, seed)]


def _pair(question: MultipleChoice) -> PreferencePair:
    wrong = [option for number, option in enumerate(question.options) if number != question.answer]
    rejected = random.Random(f"option:{question.id}").choice(wrong)
    return PreferencePair(question.prompt, question.options[question.answer], rejected)


def _question(draft: _Draft) -> MultipleChoice:
    key = hashlib.blake2b(draft.prompt.encode(), digest_size=8).hexdigest()
    return MultipleChoice(f"deduction-{key}", draft.prompt, draft.options, draft.answer, draft.form)


def _drafts(split: Split, seed: int) -> Iterator[_Draft]:
    rng = random.Random(f"deduction:{split}:{seed}")
    while True:
        draft = _draw(rng)
        if _split_of(draft) == split:
            yield draft


def _split_of(draft: _Draft) -> Split:
    if _percentile("form:" + draft.form) < _TEST_PERCENT:
        return "test"
    return "validation" if _percentile("question:" + draft.prompt) < _VALIDATION_PERCENT else "train"


def _percentile(text: str) -> int:
    """A number in 0..99 that depends on the text alone, equal on every machine and Python."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100


def _draw(rng: random.Random) -> _Draft:
    """A chain from what the person is to the answer; beside it rules that do not apply, and other ends for them.

    The chain's end is reached by `every` rules; with `excluded`, a last rule says that nobody there is of a kind, and
    what follows is a statement with `no`.
    """
    person = rng.choice(PEOPLE)
    length, excluded, beside = rng.randint(1, 3), rng.random() < 0.5, rng.randint(1, 2)
    kinds = rng.sample(_KINDS, len(_KINDS))
    chain, others = kinds[: length + 1], kinds[length + 1 :]
    rules = [f"every {a} is a {b}" for a, b in pairwise(chain)]
    ruled_out = others.pop()
    if excluded:
        rules.append(f"no {chain[-1]} is a {ruled_out}")
    # Rules that begin with a kind the person is not: they must not be followed, whatever they say.
    aside = [(others.pop(), others.pop()) for _ in range(beside)]
    rules += [f"every {a} is a {b}" for a, b in aside]
    order = rng.sample(range(len(rules)), len(rules))
    facts = ", ".join(rules[i] for i in order)
    right = (f"{person} is no {ruled_out}." if excluded else f"{person} is a {chain[-1]}.") + "\n"
    wrong = [f"{person} is a {aside[0][1]}.", f"{person} is no {chain[-1]}."]
    wrong.append(f"{person} is a {ruled_out}." if excluded else f"{person} is no {others.pop()}.")
    options = [right, *(f"{statement}\n" for statement in wrong)]
    shuffled = rng.sample(options, len(options))
    prompt = f"# {facts}, {person} is a {chain[0]}. What follows?\n"
    form = f"{length}{'x' if excluded else ''}+{beside}:{''.join(map(str, order))}"
    return _Draft(prompt, tuple(shuffled), shuffled.index(right), form)
