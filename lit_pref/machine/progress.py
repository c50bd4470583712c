"""A progress bar with rate and ETA for long work outside of the Trainer; lines where there is no terminal."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


_EVERY = 30.0  # seconds between two lines where there is no terminal


@contextmanager
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far a loop is; the body calls what it is given with the number done so far.

    done: what an earlier run has done, which says nothing of the rate.
    """
    if not sys.stdout.isatty():
        start = time.monotonic()
        print(f"{description} ({total - done:,}) ...", flush=True)
        yield ProgressLines(description, total, done, start)
        print(f"{description}: done in {time.monotonic() - start:.1f} s", flush=True)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda done: progress.update(task, completed=done)


class ProgressLines:
    """Now and then a line with done, rate and time left, for logs: a bar would redraw itself line by line there.

    total: infinite where nobody knows it.
    found: what an earlier run has done, which says nothing of the rate.
    """

    def __init__(self, description: str, total: float, found: int, start: float) -> None:
        self._description, self._total, self._found = description, total, found
        self._start, self._told = start, start

    def __call__(self, done: int, more: Callable[[], str] = str) -> None:
        """more: gives what is said beside it."""
        now = time.monotonic()
        if done <= self._found or now - self._told < _EVERY:
            return
        self._told = now
        rate = (done - self._found) / (now - self._start)
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        if self._total < math.inf:
            left = timedelta(seconds=round(max(0, self._total - done) / rate))
            print(f"{self._description}: {done:,} of {self._total:,}, {shown}/s, {left} left{more()}", flush=True)
        else:
            print(f"{self._description}: {done:,}, {shown}/s{more()}", flush=True)
