"""Draws word problems: a story of two to four steps in the words of the code task's stories, and how it is solved.

A solution is one line a step and the answer; a mistake is put into one step, and the lines after it go on from what
it gives. Values stay whole and within 0 to 99. Not covered: problems with several unknowns, units, or numbers that the
solution does not need.
"""

import random
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from lit_pref.tasks.embedded.code.operations import PEOPLE, STORY_STEPS, THINGS, Operation

Mistake = Literal["operation", "operand", "order", "result", "carry"]
"""What is wrong with a step.

operation: another one than the story's, as buying for losing. operand: another number than the story's.
order: two steps change places. result: a calculation comes out wrong. carry: the next step begins with another value.
"""

MISTAKES: tuple[Mistake, ...] = ("operation", "operand", "order", "result", "carry")
_NAMES = ("gain", "lose", "double", "times", "halve", "share", "left_over", "lose_some", "keep_most")
_STEPS = tuple(step for step in STORY_STEPS if step.name in _NAMES)
_DEPTHS, _DEPTH_WEIGHTS = (2, 3, 4), (30, 40, 30)
_START, _LARGEST = range(2, 31), 99


class Step(NamedTuple):
    """One step of a story and its number; empty where it has none."""

    operation: Operation
    amount: str

    def expression(self, value: int) -> str:
        return re.sub(r"\bx\b", str(value), self.operation.code.format(k=self.amount))


class Story(NamedTuple):
    """A word problem: who has how many of what, and what happens."""

    person: str
    thing: str
    start: int
    steps: tuple[Step, ...]
    phrases: tuple[str, ...]

    @property
    def prompt(self) -> str:
        told = " ".join(f"{phrase}." for phrase in self.phrases)
        return f"# {self.person} has {self.start} {self.thing}. {told} How many now?\n"

    @property
    def composition(self) -> str:
        return ">".join(step.operation.name for step in self.steps)


class Line(NamedTuple):
    """A line of a solution: `7 + 5 = 12`."""

    expression: str
    result: int


def draw_story(rng: random.Random) -> Story | None:
    """One story; None where a value leaves the range. The same state of `rng` gives the same."""
    operations = rng.sample(_STEPS, rng.choices(_DEPTHS, _DEPTH_WEIGHTS)[0])
    person, thing, start = rng.choice(PEOPLE), rng.choice(THINGS), rng.choice(_START)
    steps = tuple(Step(each, rng.choice(each.choices) if each.choices else "") for each in operations)
    phrases = tuple(rng.choice(step.operation.phrases).format(p=person, k=step.amount) for step in steps)
    story = Story(person, thing, start, steps, phrases)
    return story if solve(story.start, story.steps) else None


def solve(start: int, steps: Sequence[Step]) -> list[Line] | None:
    """The lines of the solution; None where a value leaves the range."""
    lines, value = [], start
    for step in steps:
        line = _line(step, value)
        if line is None:
            return None
        lines.append(line)
        value = line.result
    return lines


def solve_wrongly(story: Story, mistake: Mistake, rng: random.Random) -> list[Line] | None:
    """Lines with one mistake; None where the one drawn cannot be made here."""
    steps = list(story.steps)
    at = rng.randrange(len(steps))
    if mistake in ("operation", "operand"):
        step = _other_operation(steps[at], rng) if mistake == "operation" else _other_amount(steps[at], rng)
        return None if step is None else solve(story.start, [*steps[:at], step, *steps[at + 1 :]])
    if mistake == "order":
        other = rng.randrange(len(steps))
        steps[at], steps[other] = steps[other], steps[at]
        return solve(story.start, steps)
    before = solve(story.start, steps[:at])
    value = before[-1].result if before else story.start
    shifted = value if mistake == "result" else _other_number(value, rng)
    line = _line(steps[at], shifted)
    if before is None or line is None:
        return None
    if mistake == "result":
        line = line._replace(result=_other_number(line.result, rng))
    if not 0 <= min(shifted, line.result) <= max(shifted, line.result) <= _LARGEST:
        return None
    behind = solve(line.result, steps[at + 1 :])
    return None if behind is None else [*before, line, *behind]


def written(lines: Sequence[Line]) -> str:
    """A solution as text."""
    return "".join(f"{line.expression} = {line.result}\n" for line in lines) + f"The answer is {lines[-1].result}.\n"


def _line(step: Step, value: int) -> Line | None:
    expression = step.expression(value)
    result = eval(expression, {"max": max, "min": min})  # only of our own tables
    return Line(expression, result) if 0 <= result <= _LARGEST else None


def _other_operation(step: Step, rng: random.Random) -> Step | None:
    """One that takes the same number, so that only the operation differs; with none, another one with none."""
    others = [each for each in _STEPS if each.name != step.operation.name and bool(each.choices) == bool(step.amount)]
    return Step(rng.choice(others), step.amount)


def _other_amount(step: Step, rng: random.Random) -> Step | None:
    others = [amount for amount in step.operation.choices if amount != step.amount]
    return step._replace(amount=rng.choice(others)) if others else None


def _other_number(value: int, rng: random.Random) -> int:
    """Near by: off by one, two or ten."""
    return value + rng.choice((-10, -2, -1, 1, 2, 10))
