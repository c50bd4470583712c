"""A progress bar with rate and ETA for long work outside of the Trainer; lines where there is no terminal."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Told how much is done, and how many tokens this process has drawn for it, where it draws some."""

    def __call__(self, done: int, tokens: int = 0, /) -> None: ...


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed, drawn = task.finished_speed or task.speed, task.fields["tokens"]
        rates = [] if speed is None else [f"{_shown(speed)}/s"]
        if drawn and task.elapsed:
            rates.append(f"{_shown(drawn / task.elapsed)} tokens/s")
        return Text(", ".join(rates))


_FIRST, _EVERY = 10.0, 30.0  # seconds to the first line, and between two, where there is no terminal


@contextmanager
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show how far a loop is; the body calls what it is given with the number done so far.

    done: what an earlier run has done, which says nothing of the rate.
    """
    if not sys.stdout.isatty():
        start = time.monotonic()
        there = f" of {total:,}; the others are there" if done else ""
        print(f"{description} ({total - done:,}{there}) ...", flush=True)
        lines = ProgressLines(description, total, done, start)
        yield lambda done, tokens=0: lines(done, tokens=tokens)
        print(f"{description}: done in {time.monotonic() - start:.1f} s{lines.tokens_rate()}", flush=True)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task(description, total=total, completed=done, tokens=0)
        yield lambda done, tokens=0: progress.update(task, completed=done, tokens=tokens)


class ProgressLines:
    """Now and then a line with done, rate and time left, for logs: a bar would redraw itself line by line there.

    total: infinite where nobody knows it.
    found: what an earlier run has done, which says nothing of the rate.
    """

    def __init__(self, description: str, total: float, found: int, start: float) -> None:
        self._description, self._total, self._found = description, total, found
        self._start, self._next, self._tokens = start, start + _FIRST, 0

    def __call__(self, done: int, more: Callable[[], str] = str, tokens: int = 0) -> None:
        """more: gives what is said beside it."""
        self._tokens = tokens
        now = time.monotonic()
        if now < self._next or (done <= self._found and not tokens):
            return
        self._next = now + _EVERY
        rate = (done - self._found) / (now - self._start)
        of, left = "", ""
        if self._total < math.inf:
            of = f" of {self._total:,}"
            left = f", {timedelta(seconds=round(max(0, self._total - done) / rate))} left" if rate > 0 else ""
        speed = f", {_shown(rate)}/s" if rate > 0 else ""
        print(f"{self._description}: {done:,}{of}{speed}{self.tokens_rate()}{left}{more()}", flush=True)

    def tokens_rate(self) -> str:
        """What is said of it after other words; nothing where no tokens are drawn."""
        seconds = time.monotonic() - self._start
        return f", {_shown(self._tokens / seconds)} tokens/s" if self._tokens and seconds else ""


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
