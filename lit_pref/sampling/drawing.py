"""Completions of prompts, each drawn once: those of an earlier run are taken from a journal, new ones are kept there.

Not covered: generators that give all completions at once, of which an interruption leaves none.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import GeneratorType
from typing import NamedTuple

from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.types import Completion, Generator, Sampling, Text

_SEEN, _MANY = 16, 0.5  # completions that tell of the others, and a share of cut ones that is told at once
_FEW = 0.05  # that is told in the end


class TooFewError(UserError):
    """A generator did not give what it was asked for."""


class Draw(NamedTuple):
    """What is drawn of a policy: how many completions a problem, by which sampling, with which seed."""

    samples: int
    sampling: Sampling
    seed: int


Tell = Callable[[int, int], None]
"""Called with (completions done of all, tokens drawn by this call)."""


def draw_all(
    generator: Generator,
    prompts: Sequence[Text],
    draw: Draw,
    journal: SampleJournal | None = None,
    tell: Tell = lambda done, tokens: None,
) -> list[list[Completion]]:
    """`draw.samples` completions of each prompt, in order.

    journal: has those that an earlier run drew, and gets each other one as soon as it is there.

    Raises TooFewError where the generator does not give them all.
    """
    made = dict(journal.found) if journal else {}
    before = len(made)
    tokens = cut = 0
    with _told(generator, lambda ended, tokens: tell(before + ended, tokens)):
        each = generator.each(prompts, draw.samples, draw.sampling, draw.seed, frozenset(made))
        try:
            for one in each:
                if journal is not None:
                    journal.keep(one)
                made[one.prompt, one.sample] = one.completion
                tokens, cut = tokens + len(one.completion.token_ids), cut + (not one.completion.finished)
                if len(made) - before == _SEEN and cut > _MANY * _SEEN:
                    print(_said(cut, _SEEN, draw.sampling), flush=True)
                if not isinstance(generator, LocalGenerator):  # which tells itself, also of what has not ended
                    tell(len(made), tokens)
        finally:
            if isinstance(each, GeneratorType):
                each.close()
    places = [[(row, sample) for sample in range(draw.samples)] for row in range(len(prompts))]
    if not all(place in made for several in places for place in several):
        expected = "one" if draw.samples == 1 else f"{draw.samples:,}"
        given = f"{len(made):,} completions for {len(prompts):,} prompts"
        raise TooFewError(f"{type(generator).__name__} gave {given}: expected {expected} each")
    return [[made[place] for place in several] for several in places]


def tell_cut(completions: Sequence[Completion], sampling: Sampling) -> None:
    """A line where more than a few completions were cut at the length limit."""
    cut = sum(not completion.finished for completion in completions)
    if cut > _FEW * len(completions):
        print(_said(cut, len(completions), sampling), flush=True)


def _said(cut: int, of: int, sampling: Sampling) -> str:
    return (
        f"{cut:,} of {of:,} completions were cut at {sampling.max_new_tokens} tokens: a larger sampling.max_new_tokens "
        "lets more of them end, and of a base model stop strings (sampling.stop)"
    )


@contextmanager
def _told(generator: Generator, progress: Tell) -> Iterator[None]:
    if not isinstance(generator, LocalGenerator):
        yield
        return
    former, generator.on_progress = generator.on_progress, progress
    try:
        yield
    finally:
        generator.on_progress = former
