"""Deduction: what follows is worked out here from the prompt's text by forward chaining."""

import re

from lit_pref.tasks import DeductionTask
from lit_pref.types import MultipleChoice

TASK = DeductionTask()


def entailed(question: MultipleChoice) -> list[bool]:
    facts, _ = str(question.prompt).removeprefix("# ").split(". ")
    every = set(re.findall(r"every (\w+) is a (\w+)", facts))
    no = set(re.findall(r"no (\w+) is a (\w+)", facts))
    ((person, known),) = re.findall(r"(\w+) is a (\w+)$", facts)
    kinds = {known}
    while more := {b for a, b in every if a in kinds} - kinds:
        kinds |= more
    never = {b for a, b in no if a in kinds}
    follows = {f"{person} is a {kind}.\n" for kind in kinds} | {f"{person} is no {kind}.\n" for kind in never}
    return [option in follows for option in question.options]


def test_the_answer_follows_and_nothing_else_does() -> None:
    for question in TASK.questions("train", 500, seed=0):
        assert entailed(question) == [number == question.answer for number in range(4)]


def test_the_place_of_the_answer_says_nothing() -> None:
    questions = TASK.questions("train", 2000, seed=0)
    counts = [sum(question.answer == place for question in questions) for place in range(4)]
    assert all(abs(count - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for count in counts)  # four standard deviations


def test_pairs_are_the_answer_over_another_option() -> None:
    questions, pairs = TASK.questions("test", 200, seed=0), TASK.pairs("test", 200, seed=0)
    for question, pair in zip(questions, pairs, strict=True):
        assert pair.prompt == question.prompt and pair.chosen == question.options[question.answer]
        assert pair.rejected in question.options and pair.rejected != pair.chosen


def test_splits_share_no_form_and_are_a_function_of_the_seed() -> None:
    train, test = TASK.questions("train", 500, 0), TASK.questions("test", 300, 0)
    assert not {q.composition for q in train} & {q.composition for q in test}
    assert train[:50] == TASK.questions("train", 50, 0) != TASK.questions("train", 50, 1)
    assert len(TASK.questions("validation", None, 0)) == 1000
