"""DoctestTask: problems with tests out of any Python package, by the examples in its docstrings.

Whatever is in a package is run in the sandbox alone, and first of all the functions themselves: those that do not pass
their own examples, or pass them by luck, are no problems. Not covered: see `functions.py`, `examples.py`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import ClassVar, get_args

from lit_pref.data.reading.rows import Row, string_at
from lit_pref.errors import UserError
from lit_pref.sandbox import IsolatedSandbox, default_sandbox
from lit_pref.syntax.thoughts import THOUGHTS
from lit_pref.tasks.doctests.examples import Shown, check_shown
from lit_pref.tasks.doctests.functions import Found, functions_of, joined
from lit_pref.tasks.doctests.modules import modules_of
from lit_pref.tasks.grading.code import _CodeBenchmark
from lit_pref.tasks.published.human_eval import HumanEval
from lit_pref.tasks.references import gradable
from lit_pref.tasks.wording import COMPLETE_FUNCTION, Style, fenced, user_turn
from lit_pref.types import Check, FailingReferences, Problem, Program, Sandbox, Split

_SHARES: dict[Split, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}
_SHOWN = 5  # names that a line gives of what is left out
_DETAIL = 160  # characters of a reason
_FAILS = "fails its own examples"
_ENDED = {
    "timeout": "does not end in time",
    "memory": "needs too much memory",
    "output_limit": "writes too much",
    "killed": "ends its process",
    "harness_error": "cannot be graded",
}
_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("ModuleNotFoundError", "ImportError"), "needs other packages than the standard library"),
    (
        ("PermissionError", "FileNotFoundError", "OSError", "gaierror", "can't start new thread", "BlockingIOError"),
        "needs files, a network, threads or processes",
    ),
)


class DoctestTask(_CodeBenchmark):
    """The functions of a Python package whose docstrings hold examples (`>>>`), graded by these.

    A model is shown the imports that a function's module has for it, what its signature needs, the signature and the
    docstring's prose. The reference is the function's own body with what it uses of its package. Every reference is run
    before anything is sampled, twice, under two hash seeds: those that fail their own examples, need what a sandbox has
    not, or give now this and now that, are left out and counted by reason. Splits share no module; where fewer than
    three modules have problems, they share no function.

    Args:
        source: the name of an installed package (more_itertools) or of one of its modules (toolz.itertoolz), "stdlib"
            for the whole standard library, or a folder, an archive (.whl, .zip, .tar.gz, ...) or a .py file. It is read
            as text; nothing is imported.
        style: completion gives imports, signature and docstring as text to be continued, chat a user's turn that asks
            for the function.
        extract: take the code out of the completion and drop what the function does not need; false runs prompt and
            completion as they are.
        thoughts: tags that mark what the model thinks before it answers, as in `CustomCodeTask`.
        failing_references: leave_out leaves out functions that fail their own examples, and counts them; error stops.
        sandbox: runs the graded programs; by default the isolated one of this process.
        stop: texts of which the first to appear ends a completion; null is HumanEval's for text, and nothing for chat.
        show_examples: which examples the prompt shows. All are graded; "first" shows one only where another one gives
            something else, so that no constant which stands in the prompt passes. "all" is as in HumanEval.
        max_characters: the longest prompt and reference together, in characters; longer ones are left out.
        split_seed: divides modules among the splits.
    """

    name = "doctests"
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)
    stops = HumanEval.stops
    stated_splits = ": no function of its modules makes a problem"

    def __init__(
        self,
        source: str,
        style: Style = "completion",
        extract: bool = True,
        thoughts: Sequence[str] = THOUGHTS,
        failing_references: FailingReferences = "leave_out",
        sandbox: Sandbox | None = None,
        stop: Sequence[str] | None = None,
        show_examples: Shown = "first",
        max_characters: int = 10_000,
        split_seed: int = 0,
    ) -> None:
        super().__init__(source, style, extract, thoughts, failing_references, sandbox, stop)
        check_shown(show_examples)
        if max_characters < 1:
            raise ValueError(f"max_characters must be >= 1, got {max_characters}")
        self.show_examples, self.max_characters, self.split_seed = show_examples, max_characters, split_seed
        self.left_out = dict[str, str]()
        """By the name of a function, a method or a file, why it makes no problem; references as their split is read."""
        self._problems = dict[Split, list[Problem]]()

    @cached_property
    def _found(self) -> Found:
        found = functions_of(modules_of(self.source), self.show_examples, self.max_characters)
        self.left_out |= found.left_out
        tell(f"{self.source}: {len(found.functions):,} functions with examples", found.left_out)
        if not found.functions:
            raise UserError(
                f"{self.source}: no function of its top level has examples (>>>) in its docstring that make a test"
            )
        return found

    @cached_property
    def _split_of(self) -> dict[str, Split]:
        """The split of each function, by its id."""
        functions = self._found.functions
        modules = Counter(each.module for each in functions)
        if len(modules) >= len(_SHARES):
            of = _divided(modules, self.split_seed)
            return {each.id: of[each.module] for each in functions}
        print(f"{self.source}: {len(modules)} modules have problems: splits share modules, but no function", flush=True)
        return {**_divided(Counter(each.id for each in functions), self.split_seed)}

    def _rows(self, split: Split) -> Iterable[Row]:
        for each in self._found.functions:
            if self._split_of[each.id] == split:
                yield Row(each.location, each._asdict())

    def _item(self, row: Row) -> Problem:
        keys = ("module", "name", "before", "head", "body", "helpers", "check", "context")
        module, name, before, head, body, helpers, check, context = (string_at(row, key) for key in keys)
        prompt, chat = joined(before, head), self.style == "chat"
        return Problem(
            f"{module}.{name}",
            user_turn(COMPLETE_FUNCTION, prompt) if chat else prompt,
            fenced(joined(before, helpers, head + body)) if chat else joined(body, helpers),
            composition=module,
            check=Check(check, context, (name,)),
            entry_point=name,
        )

    def _all(self, split: Split) -> list[Problem]:
        """Those whose references pass, whatever the hash seed, with the licences that they need."""
        if split not in self._problems:
            passing = gradable(self, super()._all(split), tell=False)
            left_out = {name: _reason(why) for name, why in passing.left_out.items()}
            programs = [self._program(each, each.reference) for each in passing.problems]
            again = self._another_sandbox().run([each for each in programs if isinstance(each, Program)])
            kept = list[Problem]()
            for problem, verdict in zip(passing.problems, again, strict=True):
                if verdict.passed:
                    kept.append(problem)
                else:
                    left_out[problem.id] = f"is not deterministic: {verdict.detail}"
            self.left_out |= left_out
            tell(f"{self.source}, {split}: {len(kept):,} problems whose references pass", left_out)
            self._problems[split] = kept
        return self._problems[split]

    def _another_sandbox(self) -> Sandbox:
        """One whose sets and random numbers have another order."""
        return self._sandbox or IsolatedSandbox(
            default_sandbox().level, None, self.seconds, memory_mb=self.memory_mb, seed=1
        )


def tell(said: str, left_out: Mapping[str, str]) -> None:
    """A line with how many were left out by each reason, and the names of some."""
    if left_out:
        reasons = Counter(why.partition(":")[0] for why in left_out.values())
        counts = ", ".join(f"{why} ({count:,})" for why, count in reasons.most_common())
        shown = [f"{name} {why[:_DETAIL]}" for name, why in left_out.items()]
        more = [f"and {len(shown) - _SHOWN:,} more"] if len(shown) > _SHOWN else []
        said = f"{said}; {len(left_out):,} left out: {counts}. {'; '.join([*shown[:_SHOWN], *more])}"
    print(said, flush=True)


def _reason(verdict: str) -> str:
    """What a verdict on a reference is counted under, with its words."""
    outcome, _, detail = verdict.partition(": ")
    found = next((reason for words, reason in _REASONS if any(word in detail for word in words)), _FAILS)
    return f"{_ENDED.get(outcome, found)}: {detail}"


def _divided(sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    """Units to splits, each in turn to the one that is furthest from its share.

    Large ones come first, those of about a size in an order of the seed. A split that has none yet comes before the
    others where no more than one unit is left for each of these.
    """

    def order_of(name: str) -> tuple[int, bytes]:
        return -sizes[name].bit_length(), blake2b(f"{seed}:{name}".encode()).digest()

    order = sorted(sizes, key=order_of)
    total, found = sum(sizes.values()), dict[str, Split]()
    have = dict.fromkeys(_SHARES, 0)
    for place, name in enumerate(order):
        empty = [split for split in _SHARES if split not in found.values()]
        open_ = empty if len(order) - place <= len(empty) else list(_SHARES)
        split = max(open_, key=lambda each: _SHARES[each] * total - have[each])
        found[name], have[split] = split, have[split] + sizes[name]
    return found
