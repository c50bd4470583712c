import random
from itertools import product

import pytest

from lit_pref.tasks.embedded.code.cases import make_cases
from lit_pref.tasks.embedded.code.grammar import VARIABLES, Argument, Draft, draw_draft
from lit_pref.tasks.embedded.code.operations import OPERATIONS, PREDICATES, STORY_STEPS

EVERY_STEP = [
    *((kind, step) for kind, steps in OPERATIONS.items() for step in steps),
    *((kind, step) for kind, steps in PREDICATES.items() for step in steps),
    *(("int", step) for step in STORY_STEPS),
]
INPUTS = {
    "ints": [[], [0], [-3, -3], [5, 1, 9, -6, 4]],
    "words": [[], [""], ["a"], ["rose", "net", "rose"]],
    "text": ["", "a", " two  words ", "tree"],
    "int": [-12, 0, 1, 24, 10**6],
}


def is_of_kind(value: object, kind: str) -> bool:
    if kind in ("ints", "words"):
        return isinstance(value, list) and all(isinstance(x, int if kind == "ints" else str) for x in value)
    return isinstance(value, str if kind == "text" else int)


def test_a_step_is_defined_on_every_value_of_its_kind():
    for kind, step in EVERY_STEP:
        for parameter, value in product(step.choices or ("",), INPUTS[kind]):
            given = {VARIABLES[kind]: value, "x": value, "y": 3}
            result = eval(step.code.format(v=VARIABLES[kind], k=parameter), given)
            assert is_of_kind(result, getattr(step, "gives", "int")), f"{kind} {step.name} of {value!r}"


def test_a_parameter_stands_in_code_and_in_every_phrase_or_nowhere():
    for kind, step in EVERY_STEP:
        for text in (step.code, *step.phrases):
            assert ("{k}" in text) == bool(step.choices), f"{kind} {step.name}: {text}"


@pytest.mark.parametrize("steps", [*OPERATIONS.values(), *PREDICATES.values(), STORY_STEPS])
def test_no_two_steps_of_a_kind_are_said_alike(steps):
    said: dict[str, str] = {}
    for step in steps:
        for phrase in step.phrases:
            for parameter in (*step.choices, "k") if step.choices else ("",):
                text = phrase.format(k=parameter, p="Tom")
                assert said.setdefault(text, step.name) == step.name
                assert ", then " not in text and ", otherwise " not in text and ". " not in text


def test_names_are_unique_within_a_kind():
    for steps in (*OPERATIONS.values(), *PREDICATES.values(), STORY_STEPS):
        assert len({step.name for step in steps}) == len(steps)


def test_pipelines_have_one_to_four_steps_and_stories_two_to_four():
    rng = random.Random(0)
    drafts = [draw_draft(rng) for _ in range(3000)]
    pipelines = [d for d in drafts if not d.condition and not d.composition.startswith("story.")]
    stories = [d for d in drafts if d.composition.startswith("story.")]
    # shares of 0.65 and 0.18 among 3,000: standard deviations 26 and 21
    assert abs(len(pipelines) - 1950) < 4 * 26 and abs(len(stories) - 540) < 4 * 21
    assert {draft.composition.count(">") + 1 for draft in pipelines} == {1, 2, 3, 4}
    assert {draft.composition.count(">") + 1 for draft in stories} == {2, 3, 4}
    assert all(draft.body.count("\n") == draft.composition.count(">") + 1 for draft in pipelines)


def test_a_parameter_left_to_the_caller_is_an_argument():
    rng = random.Random(0)
    drafts = [draw_draft(rng) for _ in range(500)]
    with_k = [draft for draft in drafts if draft.arguments[-1].name == "k"]
    assert with_k
    for draft in with_k:
        assert draft.prompt.endswith(", k):\n") and " k" in draft.description and draft.arguments[-1].choices
    assert all(", k)" not in draft.prompt for draft in drafts if draft.arguments[-1].name != "k")


def draft_of(body: str, condition: str = "") -> Draft:
    return Draft("a test", (Argument("n", "int"),), body, "a.test", condition)


def test_cases_are_what_the_reference_returns():
    cases = make_cases(draft_of("    return n * 2\n"), random.Random(0))
    assert cases is not None and len(cases) == 8
    assert [case.call for case in cases[:2]] == ["solve(0)", "solve(-3)"]  # the edges of "int" come first
    for case in cases:
        assert int(case.expected) == 2 * int(case.call.removeprefix("solve(").removesuffix(")"))


def test_problems_that_tell_little_are_rejected():
    assert make_cases(draft_of("    return n > 5\n"), random.Random(0)) is None  # two distinct outputs at most
    assert (
        make_cases(draft_of("    return 'ab' * 100 + str(n)\n"), random.Random(0)) is None
    )  # longer than a literal may be
    never = draft_of("    if n > 99:\n        return 0\n    return n\n", condition="n > 99")
    assert make_cases(never, random.Random(0)) is None  # inputs are below 25


def test_numbers_of_the_description_come_up_as_inputs():
    # 6 random inputs, each 40 with probability 3/33: 300 draws of cases hold about 164
    draft = Draft("keep above 40", (Argument("n", "int"),), "    return n\n", "a.test")
    calls = [case.call for seed in range(300) for case in make_cases(draft, random.Random(seed)) or ()]
    assert calls.count("solve(40)") > 100
