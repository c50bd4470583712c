"""Draws the drafts of code problems: a description in English and the function that does what it says.

Three kinds: pipelines of one to four operations, if/else, and stories of two to four steps. Inputs and expected
outputs are made in `cases.py`.
"""

import random
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from lit_pref.tasks.embedded.code.operations import (
    OPERATIONS,
    PEOPLE,
    PREDICATES,
    STORY_STEPS,
    THINGS,
    Kind,
    Operation,
)

VARIABLES: dict[Kind, str] = {"ints": "xs", "words": "words", "text": "s", "int": "n"}
_KINDS: tuple[Kind, ...] = ("ints", "words", "text", "int")
_KIND_WEIGHTS = (45, 25, 15, 15)
_DEPTH_WEIGHTS = (12, 48, 36, 4)  # of pipelines, from 1; most programs people ask for in one line take two or three
_STORY_DEPTH_WEIGHTS = (40, 50, 10)  # from 2
_STORY_AMOUNTS = tuple(str(amount) for amount in range(30))
_PIPELINE_SHARE, _BRANCH_SHARE = 0.65, 0.17
_ALTERNATIVES: dict[Kind, list[tuple[Operation, Operation]]] = {
    kind: [(yes, no) for yes, no in permutations(OPERATIONS[kind], 2) if yes.gives == no.gives] for kind in _KINDS
}
_ARGUMENT_RATE = 0.2  # how often a numeric parameter becomes the function's second argument


class Argument(NamedTuple):
    """A parameter of `solve`: an input of a kind, or a number out of `choices`."""

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()


class Draft(NamedTuple):
    """A problem before its cases.

    body: the function's indented lines, each ended by a newline.
    composition: the names of its operations in order, parameters and phrases left out.
    condition: the expression that an if/else problem branches on, else empty.
    """

    description: str
    arguments: tuple[Argument, ...]
    body: str
    composition: str
    condition: str = ""

    @property
    def prompt(self) -> str:
        names = ", ".join(argument.name for argument in self.arguments)
        return f"# {self.description}\ndef solve({names}):\n"


def draw_draft(rng: random.Random) -> Draft:
    """One draft; the same state of `rng` gives the same."""
    kind = rng.random()
    if kind < _PIPELINE_SHARE:
        return _draw_pipeline(rng)
    if kind < _PIPELINE_SHARE + _BRANCH_SHARE:
        return _draw_branch(rng)
    return _draw_story(rng)


def _draw_pipeline(rng: random.Random) -> Draft:
    start = kind = rng.choices(_KINDS, _KIND_WEIGHTS)[0]
    depth = rng.choices((1, 2, 3, 4), _DEPTH_WEIGHTS)[0]
    steps: list[Operation] = []
    inputs: list[Kind] = []
    while len(steps) < depth:
        step = rng.choice(OPERATIONS[kind])
        if step in steps:  # most operations do nothing the second time
            continue
        inputs.append(kind)
        steps.append(step)
        kind = step.gives
    parameters, argument = _draw_parameters(rng, steps)
    codes = [
        step.code.format(v=VARIABLES[taken], k=k) for step, taken, k in zip(steps, inputs, parameters, strict=True)
    ]
    lines = [f"    {VARIABLES[step.gives]} = {code}\n" for step, code in zip(steps[:-1], codes[:-1], strict=True)]
    phrases = [rng.choice(step.phrases).format(k=k) for step, k in zip(steps, parameters, strict=True)]
    return Draft(
        description=", then ".join(phrases),
        arguments=(Argument(VARIABLES[start], start), *argument),
        body="".join(lines) + f"    return {codes[-1]}\n",
        composition=">".join(f"{taken}.{step.name}" for step, taken in zip(steps, inputs, strict=True)),
    )


def _draw_branch(rng: random.Random) -> Draft:
    kind = rng.choices(_KINDS, _KIND_WEIGHTS)[0]
    predicate = rng.choice(PREDICATES[kind])
    yes, no = rng.choice(_ALTERNATIVES[kind])
    parts: tuple[Operation, ...] = (predicate, yes, no)
    parameters, argument = _draw_parameters(rng, parts)
    condition, yes_code, no_code = (
        part.code.format(v=VARIABLES[kind], k=k) for part, k in zip(parts, parameters, strict=True)
    )
    said = [rng.choice(part.phrases).format(k=k) for part, k in zip(parts, parameters, strict=True)]
    return Draft(
        description=f"if {said[0]}, {said[1]}, otherwise {said[2]}",
        arguments=(Argument(VARIABLES[kind], kind), *argument),
        body=f"    if {condition}:\n        return {yes_code}\n    return {no_code}\n",
        composition=f"{kind}.if.{predicate.name}?{yes.name}:{no.name}",
        condition=condition,
    )


def _draw_story(rng: random.Random) -> Draft:
    steps = rng.sample(STORY_STEPS, rng.choices((2, 3, 4), _STORY_DEPTH_WEIGHTS)[0])
    person, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    parameters, _ = _draw_parameters(rng, steps, argument_rate=0.0)
    sentences = [
        rng.choice(step.phrases).format(p=person, k=k) + "." for step, k in zip(steps, parameters, strict=True)
    ]
    codes = [step.code.format(k=k) for step, k in zip(steps, parameters, strict=True)]
    names = "xy" if any("y" in step.code for step in steps) else "x"
    return Draft(
        description=" ".join([f"{person} has x {thing}.", *sentences, "How many now?"]),
        arguments=tuple(Argument(name, "int", _STORY_AMOUNTS) for name in names),
        body="".join(f"    x = {code}\n" for code in codes) + "    return x\n",
        composition="story." + ">".join(step.name for step in steps),
    )


def _draw_parameters(
    rng: random.Random, steps: Sequence[Operation], argument_rate: float = _ARGUMENT_RATE
) -> tuple[list[str], tuple[Argument, ...]]:
    """A parameter for each step, and the second argument of `solve` where one parameter is left to its caller."""
    parameters = [rng.choice(step.choices) if step.choices else "" for step in steps]
    numeric = [index for index, parameter in enumerate(parameters) if parameter.isdigit()]
    if not numeric or rng.random() >= argument_rate:
        return parameters, ()
    index = rng.choice(numeric)
    parameters[index] = "k"
    return parameters, (Argument("k", "int", steps[index].choices),)
