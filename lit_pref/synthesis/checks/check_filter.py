"""Which checks grade anything: the reference passes them, and enough of its mutants fail.

Asserts that the reference fails are wrong and dropped. A mutant that fails is "killed"; to hang or to use up a limit is
to fail. Mutants are made of what the entry point reaches (`lit_pref.syntax.mutants`).
Not covered: references that answer at random.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from lit_pref.syntax import MUTANT_KINDS, MutantKind, mutants
from lit_pref.syntax.assertions import Assertion, joined
from lit_pref.syntax.python import parses
from lit_pref.types import Check, Outcome, Problem, Program, Sandbox, Verdict

CheckFate = Literal["kept", "no code", "reference failed", "no mutants", "too weak", "harness"]
"""What becomes of a problem.

no code: no assert on the entry point was written, or none could be recorded.
reference failed: it fails every assert, or all of them together.
no mutants: the reference has nothing to change.
too weak: too few mutants are killed.
harness: nothing could be run; the fault is the asserts' or ours.
"""


@dataclass(frozen=True)
class KillFilter:
    """When a check is strong enough.

    Args:
        min_kill_rate: share of the mutants that must be killed. Below 1, since a mutant may behave as the reference
            does, and which do cannot be decided. HumanEval's own tests kill 88% of all mutants of its solutions, and
            at least half of them for 160 of the 164 problems.
        max_mutants: of a problem, spread evenly over its source.
        kinds: of mutants.
    """

    min_kill_rate: float = 0.5
    max_mutants: int = 50
    kinds: tuple[MutantKind, ...] = MUTANT_KINDS

    def __post_init__(self) -> None:
        if not 0 <= self.min_kill_rate <= 1:
            raise ValueError(f"min_kill_rate must be in [0, 1], got {self.min_kill_rate}")
        if self.max_mutants < 1:
            raise ValueError(f"max_mutants must be >= 1, got {self.max_mutants}")


class Draft(NamedTuple):
    """A problem, its reference as a program ("" if it holds none), and asserts to make a check of."""

    problem: Problem
    source: str
    asserts: list[Assertion]


class CheckReport(NamedTuple):
    """What became of one problem.

    check: of the asserts that the reference passes; also one that is too weak; None where there is none.
    dropped: asserts that the reference fails, or that cannot be run.
    killed, mutants: of those that ran.
    """

    problem_id: str
    fate: CheckFate
    check: Check | None = None
    asserts: int = 0
    dropped: int = 0
    killed: int = 0
    mutants: int = 0

    @property
    def kill_rate(self) -> float | None:
        return self.killed / self.mutants if self.mutants else None


def filter_checks(drafts: Sequence[Draft], sandbox: Sandbox, rule: KillFilter) -> list[CheckReport]:
    """One report a draft, in order.

    The sandbox is used three times: for each assert on the reference, for what passed together, and for what passed
    then on the mutants, with the licence that the reference needed.
    """
    tried = [draft.asserts if draft.source else [] for draft in drafts]
    both = zip(drafts, tried, strict=True)
    of_asserts = _run(
        sandbox, [[Program(each.source, check=_check(each, [part], None)) for part in parts] for each, parts in both]
    )
    checks = [
        _check(draft, [part for part, verdict in zip(parts, verdicts, strict=True) if verdict.passed], None)
        for draft, parts, verdicts in zip(drafts, tried, of_asserts, strict=True)
    ]
    whole = [
        [Program(each.source, check=check)] if check.code else [] for each, check in zip(drafts, checks, strict=True)
    ]
    of_references = [next(iter(verdicts), None) for verdicts in _run(sandbox, whole)]
    checks = [
        replace(check, licence=verdict.licence if verdict else ())
        for check, verdict in zip(checks, of_references, strict=True)
    ]
    mutated = [
        [Program(text, check=check) for text in (_mutated(each.source, rule) if verdict and verdict.passed else [])]
        for each, check, verdict in zip(drafts, checks, of_references, strict=True)
    ]
    of_mutants = _run(sandbox, mutated)
    return [_report(*row, rule) for row in zip(drafts, checks, of_asserts, of_references, of_mutants, strict=True)]


def _run(sandbox: Sandbox, several: list[list[Program]]) -> list[list[Verdict]]:
    """The verdicts of each list's programs, all of which run together."""
    verdicts = iter(sandbox.run([program for programs in several for program in programs]))
    return [[next(verdicts) for _ in programs] for programs in several]


def summarize(reports: Sequence[CheckReport]) -> dict[str, int | float | None]:
    """Problems by fate, asserts kept and dropped, and the kill rate over all mutants that ran."""
    fates = Counter(report.fate for report in reports)
    total = sum(report.mutants for report in reports)
    return {
        **{fate: fates[fate] for fate in get_args(CheckFate)},
        "asserts": sum(report.asserts for report in reports),
        "dropped asserts": sum(report.dropped for report in reports),
        "kill rate": sum(report.killed for report in reports) / total if total else None,
    }


def _check(draft: Draft, parts: list[Assertion], licence: tuple[str, ...] | None) -> Check:
    return Check(joined(parts), entry_points=(draft.problem.entry_point,), licence=licence)


def _mutated(source: str, rule: KillFilter) -> list[str]:
    made = mutants(source, rule.kinds) if parses(source) else []
    count = min(len(made), rule.max_mutants)
    return [made[index * len(made) // count].source for index in range(count)]


def _report(
    draft: Draft,
    check: Check,
    of_asserts: list[Verdict],
    of_reference: Verdict | None,
    of_mutants: list[Verdict],
    rule: KillFilter,
) -> CheckReport:
    """of_reference: of the whole check; None where no assert passed."""
    asserts = sum(verdict.passed for verdict in of_asserts)
    ran = [verdict for verdict in of_mutants if verdict.outcome is not Outcome.HARNESS_ERROR]
    killed = sum(not verdict.passed for verdict in ran)
    deciding = [of_reference] if of_reference else of_asserts
    if not draft.asserts:
        fate: CheckFate = "no code"
    elif deciding and all(verdict.outcome is Outcome.HARNESS_ERROR for verdict in deciding):
        fate = "harness"
    elif not of_reference or not of_reference.passed:
        fate = "reference failed"
    elif not ran:
        fate = "harness" if of_mutants else "no mutants"
    else:
        fate = "too weak" if killed / len(ran) < rule.min_kill_rate else "kept"
    dropped = len(of_asserts) - asserts
    return CheckReport(draft.problem.id, fate, check if check.code else None, asserts, dropped, killed, len(ran))
