"""Code pairs of a task that makes its own descriptions: a strong and a weak model answer each, nothing is mined.

The embedded world's short way to what `pipeline.py` makes of source code, by the same constructions. Beyond
it, the task can say what is right: `verified` keeps the pairs whose better side passes and whose worse side fails,
which the paper does not do [D]. Every sample is graded and kept, so that runs share them.
Not covered: prompts that are no description in a comment with an open function.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lit_pref.errors import UserError
from lit_pref.generation.policy import open_policy
from lit_pref.sampling.drawing import Draw
from lit_pref.sampling.graded_samples import SamplingJob, cached_samples
from lit_pref.synthesis.code_pairs.completions import Role, clipped
from lit_pref.synthesis.code_pairs.constructions import (
    ClippedDescription,
    Construction,
    Material,
    NoPairError,
    Sides,
    StrongWeak,
)
from lit_pref.synthesis.code_pairs.sides import Written
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.tasks.references import gradable
from lit_pref.types import Outcome, PreferencePair, Problem, Sampling, Split, Task


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class StrongWeakPairs:
    """How a task's descriptions become pairs.

    Args:
        strong: the model that writes the better side.
        weak: the model that writes the worse side.
        strong_sampling: how the strong one is drawn; the default is ours.
        weak_sampling: likewise.
        construction: which of what was written is better, and which worse.
        verified: keep only pairs whose better side passes the tests and whose worse side fails them.
    """

    strong: str = "embedded:coder-strong"
    weak: str = "embedded:coder-weak"
    strong_sampling: Sampling = Sampling(temperature=0.3, max_new_tokens=96)  # noqa: RUF009 - frozen
    weak_sampling: Sampling = Sampling(temperature=1.0, max_new_tokens=96)  # noqa: RUF009 - frozen
    construction: Construction = StrongWeak()  # noqa: RUF009 - frozen
    verified: bool = False


class StrongWeakMade(NamedTuple):
    """Pairs, and what became of each problem."""

    pairs: list[PreferencePair]
    counts: dict[str, int]


def strong_weak_pairs(
    task: Task, split: Split, count: int, made_by: StrongWeakPairs, seed: int, cache: Path, device: str = "cpu"
) -> StrongWeakMade:
    """A pair for each of `count` problems, but for those that make none.

    cache: the folder that samples are kept in. Raises UserError where the construction needs what a task has not.
    """
    found = gradable(task, task.problems(split, count, seed))
    problems = found.problems
    needs = made_by.construction.needs
    samples = {role: _samples(task, split, problems, role, made_by, seed, cache, device) for role in needs}
    counts: Counter[str] = Counter({"problems": len(problems)})
    if found.left_out:
        counts["problems left out, the reference fails"] = len(found.left_out)
    made: list[tuple[Problem, Sides]] = []
    for number, problem in enumerate(problems):
        written = {role: several[number] for role, several in samples.items()}
        try:
            made.append((problem, _sides(problem, written, made_by.construction, seed)))
        except NoPairError as error:
            counts[str(error)] += 1
    if made_by.verified:
        made = _verified(task, made, counts)
    pairs = [PreferencePair(problem.prompt, sides.better.code, sides.worse.code) for problem, sides in made]
    return StrongWeakMade(pairs, {"pairs": len(pairs), **counts})


def _samples(
    task: Task,
    split: Split,
    problems: Sequence[Problem],
    role: Role,
    made_by: StrongWeakPairs,
    seed: int,
    cache: Path,
    device: str,
) -> list[Written]:
    """One answer a problem; of a clipped description, to the clipped prompt."""
    policy, sampling = (
        (made_by.weak, made_by.weak_sampling) if role == "weak" else (made_by.strong, made_by.strong_sampling)
    )
    if role == "clipped":
        assert isinstance(made_by.construction, ClippedDescription)  # none else needs one
        problems = [_clipped(problem, made_by.construction.keep) for problem in problems]
    job = SamplingJob.of(task, problems, open_policy(policy, device=device), Draw(1, sampling, seed))
    graded = cached_samples(cache, job, f"{len(problems):,} {split} descriptions by {policy}").samples
    return [Written(each.completion.text, each.completion.finished) for each in graded]


def _clipped(problem: Problem, keep: float) -> Problem:
    description, signature = _parts(problem)
    return replace(problem, prompt=f"# {clipped(description, keep) or description}\n{signature}")


def _parts(problem: Problem) -> tuple[str, str]:
    """Description and signature."""
    comment, _, signature = str(problem.prompt).partition("\n")
    if not comment.startswith("# ") or not signature.endswith(":\n"):
        raise UserError(
            f"{problem.id}: code pairs of a task need prompts that are a comment and an open function, as CodeTask has "
            f"them; got {str(problem.prompt)[:60]!r}"
        )
    return comment.removeprefix("# "), signature


def _sides(problem: Problem, written: dict[Role, Written], construction: Construction, seed: int) -> Sides:
    """Bodies of the open function; Raises NoPairError with the reason where there are none."""
    description, signature = _parts(problem)
    snippet = Snippet(
        signature + problem.reference, "python", "function", "solve", signature, description, "", "", problem.id, 1
    )
    whole = {role: side._replace(code=signature + side.code) for role, side in written.items()}
    found = construction.sides(Material(snippet, description, **whole), random.Random(f"{seed}:{problem.id}"))
    sides = Sides(*(side._replace(code=side.code.removeprefix(signature)) for side in found))
    if not all(side.code.strip() for side in sides):
        raise NoPairError("empty side")
    if not all(side.whole for side in sides):
        raise NoPairError("truncated side")
    if sides.better.code == sides.worse.code:
        raise NoPairError("equal sides")
    return sides


def _verified(task: Task, made: list[tuple[Problem, Sides]], counts: Counter[str]) -> list[tuple[Problem, Sides]]:
    """Those of which only the better side passes; the rest is counted."""
    problems = [problem for problem, sides in made for _ in sides]
    verdicts = task.grade(problems, [side.code for _, sides in made for side in sides])
    broken = [verdict for verdict in verdicts if verdict.outcome is Outcome.HARNESS_ERROR]
    if broken and len(broken) == len(verdicts):
        raise UserError(f"{len(broken)} of {len(verdicts)} gradings failed; the first: {broken[0].detail}")
    kept = []
    for number, pair in enumerate(made):
        both = verdicts[2 * number : 2 * number + 2]
        better, worse = (verdict.passed for verdict in both)
        fault = "" if better and not worse else "both pass" if better else "better side fails"
        if any(verdict.outcome is Outcome.HARNESS_ERROR for verdict in both):
            fault = "harness error"
        if fault:
            counts[fault] += 1
        else:
            kept.append(pair)
    return kept
