"""Pairs of a task that makes its own descriptions, with a strong and a weak model that write what the test says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_pref.errors import UserError
from lit_pref.generation import policy
from lit_pref.synthesis import ClippedDescription, MutatedRejected, OriginalChosen
from lit_pref.synthesis.code_pairs.strong_weak import StrongWeakPairs, strong_weak_pairs
from lit_pref.types import Completion, Generator, Outcome, PreferencePair, Problem, Sampling, Split, Task, Text, Verdict

STRONG, WEAK = Sampling(temperature=0.3), Sampling(temperature=1.0)

RIGHT = "    return x + {}\n"
ANSWERS = [  # of the strong and of the weak model
    (RIGHT, "    return x - {}\n"),
    (RIGHT, "    return {} + x\n"),  # both pass
    ("    return x * {}\n", "    return x - {}\n"),  # the better side fails
    ("    return x * {}\n", RIGHT),  # likewise
    (RIGHT, "  \n"),
    (RIGHT, "    return x + {} + CUT"),
    (RIGHT, RIGHT),
    (RIGHT, "    return {} * x\n"),
]


def answer(number: int, role: int) -> str:
    return ANSWERS[number][role].format(number + 2)


class Adding(Task):
    """`# add N to x`; what a body gives for 5 is looked at here, since the test itself wrote it."""

    name = "adding"

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        return [
            Problem(f"{split}-{i}", f"# add {i + 2} to x\ndef solve(x):\n", RIGHT.format(i + 2), answer=str(5 + i + 2))
            for i in range(count)
        ]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        return [self._verdict(*each) for each in zip(problems, completions, strict=True)]

    def _verdict(self, problem: Problem, body: str) -> Verdict:
        if "return" not in body or "CUT" in body:
            return Verdict(Outcome.SYNTAX_ERROR)
        assert body.startswith("    return "), body
        passed = eval(body.removeprefix("    return "), {"x": 5}) == int(problem.answer)
        return Verdict(Outcome.PASSED if passed else Outcome.FAILED)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, list[str]]]:
    """Temperature and prompts of each call of a generator; what it answers is told by the prompt's number."""
    made: list[tuple[float, list[str]]] = []

    class Scripted(Generator):
        def __init__(self, *_: Any) -> None:
            pass

        def generate(
            self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int
        ) -> list[list[Completion]]:
            assert samples == 1
            made.append((sampling.temperature, [str(prompt) for prompt in prompts]))
            role = int(sampling.temperature == WEAK.temperature)
            return [[self._completion(str(prompt), role)] for prompt in prompts]

        def _completion(self, prompt: str, role: int) -> Completion:
            words = prompt.partition("\n")[0].split()
            # A description without its last words is answered by something else.
            text = answer(int(words[2]) - 2, role) if words[-1] == "x" else "    return x\n"
            return Completion(text, (5,), (0.0,), finished="CUT" not in text)

    monkeypatch.setattr(policy, "LocalGenerator", Scripted)
    return made


def made(folder: Path, count: int = 8, seed: int = 0, **settings: Any) -> Any:
    made_by = StrongWeakPairs(strong_sampling=STRONG, weak_sampling=WEAK, **settings)
    return strong_weak_pairs(Adding(), "train", count, made_by, seed, folder)


def pair(number: int, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(f"# add {number + 2} to x\ndef solve(x):\n", chosen, rejected)


def test_the_strong_side_is_chosen_and_what_is_no_pair_is_counted(tmp_path: Path):
    found = made(tmp_path)
    assert found.pairs == [pair(i, answer(i, 0), answer(i, 1)) for i in (0, 1, 2, 3, 7)]
    assert found.counts == {"pairs": 5, "problems": 8, "empty side": 1, "truncated side": 1, "equal sides": 1}


def test_verified_keeps_those_whose_better_side_alone_passes(tmp_path: Path):
    found = made(tmp_path, verified=True)
    assert found.pairs == [pair(i, answer(i, 0), answer(i, 1)) for i in (0, 7)]
    faults = {"empty side": 1, "truncated side": 1, "equal sides": 1, "both pass": 1, "better side fails": 2}
    assert found.counts == {"pairs": 2, "problems": 8, **faults}
    assert found.counts["problems"] == found.counts["pairs"] + sum(faults.values())


def test_samples_are_found_again_whatever_is_made_of_them(tmp_path: Path, calls: list[Any]):
    first = made(tmp_path)
    assert [temperature for temperature, _ in calls] == [0.3, 1.0]
    assert all(len(prompts) == 8 for _, prompts in calls)
    assert made(tmp_path) == first
    made(tmp_path, verified=True)
    made(tmp_path, construction=OriginalChosen())
    made(tmp_path, construction=MutatedRejected(of="strong"))
    assert len(calls) == 2
    made(tmp_path, seed=1)
    assert len(calls) == 4


def test_the_reference_is_chosen_over_the_weak_side(tmp_path: Path, calls: list[Any]):
    found = made(tmp_path, construction=OriginalChosen())
    # Of numbers 3 and 6 the weak side is the reference itself.
    assert found.pairs == [pair(i, RIGHT.format(i + 2), answer(i, 1)) for i in (0, 1, 2, 7)]
    assert found.counts == {"pairs": 4, "problems": 8, "equal sides": 2, "empty side": 1, "truncated side": 1}
    assert [temperature for temperature, _ in calls] == [1.0]


def test_a_clipped_description_is_answered_for_the_rejected_side(tmp_path: Path, calls: list[Any]):
    found = made(tmp_path, construction=ClippedDescription(keep=0.5))
    assert found.pairs == [pair(i, answer(i, 0), "    return x\n") for i in range(8)]
    assert found.counts == {"pairs": 8, "problems": 8}
    assert [temperature for temperature, _ in calls] == [0.3, 0.3]
    # 2 of the 4 words, before the same open function
    assert calls[1][1][0] == "# add 2\ndef solve(x):\n"


@pytest.mark.parametrize("of", ["original", "strong"])
def test_a_mutant_is_a_body_too_and_fails(tmp_path: Path, calls: list[Any], of: Any):
    found = made(tmp_path, construction=MutatedRejected(of=of))
    assert len(calls) == {"original": 0, "strong": 1}[of]
    assert found.counts == {"pairs": 8, "problems": 8}
    for number, each in enumerate(found.pairs):
        assert each.chosen == (RIGHT.format(number + 2) if of == "original" else answer(number, 0))
        assert each.rejected.startswith("    ") and each.rejected != each.chosen and "def" not in each.rejected
    assert made(tmp_path, construction=MutatedRejected(of=of)) == found


def test_prompts_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    questions = [Problem("q-1", "What is 2 + 2?", "")]
    monkeypatch.setattr(Adding, "problems", lambda *_: questions)
    with pytest.raises(UserError, match=r"q-1: code pairs of a task need prompts that are a comment.*'What is 2"):
        made(tmp_path, construction=MutatedRejected())


def test_gradings_that_fail_are_no_verdict_on_a_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = made(tmp_path)
    broken = [Verdict(Outcome.HARNESS_ERROR, detail="no worker")]
    monkeypatch.setattr(Adding, "references_pass", True)
    monkeypatch.setattr(Adding, "grade", lambda _, problems, texts: broken * len(texts))
    with pytest.raises(UserError, match="10 of 10 gradings failed; the first: no worker"):
        made(tmp_path, verified=True)
    assert made(tmp_path) == found
