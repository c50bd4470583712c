"""A progress bar with rate and ETA for long work outside of the Trainer; two lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a loop is; the body calls what it is given with the number done so far."""
    if not sys.stdout.isatty():
        start = time.monotonic()
        print(f"{description} ({total:,}) ...", flush=True)
        yield lambda done: None
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
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)
