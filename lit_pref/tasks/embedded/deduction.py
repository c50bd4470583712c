"""The embedded deduction task: rules about kinds and a fact about someone; which of four statements follows?

Seeded and endless; the test split shares no form (how long the chain is, which rules stand beside it, in what order)
with the others. Every statement has the same shape, so that only the rules tell them apart. Not covered: disjunction,
counting, more than one person.
"""

import random
from itertools import pairwise
from typing import NamedTuple

from lit_pref.tasks.embedded.code.operations import PEOPLE
from lit_pref.tasks.embedded.splits import Splits, key
from lit_pref.types import ChoiceTask, MultipleChoice, PairTask, PreferencePair, Split

_KINDS = ("baker", "drummer", "farmer", "nurse", "painter", "pilot", "poet", "runner", "sailor", "singer", "tailor")
_DEFAULT_QUESTIONS = 1000


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
        return _SPLITS.items(split, _DEFAULT_QUESTIONS if count is None else count, seed, _question)

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """The right option over one of the others, drawn by the question."""
        return [_pair(question) for question in self.questions(split, count, seed)]


def _pair(question: MultipleChoice) -> PreferencePair:
    wrong = [option for number, option in enumerate(question.options) if number != question.answer]
    rejected = random.Random(f"option:{question.id}").choice(wrong)
    return PreferencePair(question.prompt, question.options[question.answer], rejected)


def _question(draft: _Draft) -> MultipleChoice:
    return MultipleChoice(f"deduction-{key(draft.prompt)}", draft.prompt, draft.options, draft.answer, draft.form)


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


_SPLITS = Splits[_Draft](
    "deduction", _draw, lambda draft: f"form:{draft.form}", lambda draft: f"question:{draft.prompt}"
)
