"""A stage of a long work in numbered shards, and who runs it: this process, several, or Ray (`ray.py`).

A stage turns shard i into rows and writes them itself, by a temporary name and a rename. So a killed worker loses at
most the shard it was at, and the same command makes those that are missing. Rows depend only on the stage and the
index, never on a worker, so every runner and every number of workers gives the same rows.
Not covered: machines that do not share the output's disk; several stages at once.
"""

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lit_pref.errors import UserError
from lit_pref.machine.progress import progress_bar
from lit_pref.storage.files import JsonValue, remove_orphans
from lit_pref.storage.shards import ShardWriter, read_manifest, shard_path

Row = Mapping[str, object]

KEPT = "often for want of memory. Finished shards are kept: run the same command again, if need be with fewer workers"


class ShardRows(NamedTuple):
    """The rows of a shard, and what came to nothing, counted by reason."""

    rows: Sequence[Row]
    counts: Mapping[str, int] = Counter()


@dataclass(frozen=True)
class Stage(ABC):
    """One step of a pipeline: picklable, pure.

    title: what the progress bar calls it.
    folder: where its shards and their manifest lie.
    """

    schema: ClassVar[pa.Schema]
    title: ClassVar[str]

    folder: Path

    @abstractmethod
    def provenance(self) -> dict[str, JsonValue]:
        """All that the rows depend on."""

    @abstractmethod
    def rows(self, index: int) -> ShardRows:
        """The rows of shard `index`: a pure function of the stage and the index."""

    def write(self, index: int) -> None:
        made = self.rows(index)
        ShardWriter(self.folder, self.provenance(), self.schema).write(index, made.rows, made.counts)


class Runner(ABC):
    """Has a stage write its shards."""

    @abstractmethod
    def run(self, stage: Stage, shards: Sequence[int]) -> Iterator[int]:
        """Each shard's index once it is written, in any order. What a stage raises comes through."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep what the runner has started for all stages that run within."""
        with nullcontext():
            yield


def run_stage(stage: Stage, shards: int, items: int, runner: Runner) -> dict[str, int]:
    """Have the missing ones of `shards` shards written; the counts of all of them, summed.

    items: what the progress bar counts to: rows that go in.
    Raises UserError where the folder was made otherwise or cannot be written.
    """
    writer = ShardWriter(stage.folder, stage.provenance(), stage.schema)
    missing = writer.missing(shards)
    if missing or not writer.complete:
        done = shards - len(missing)
        if missing:
            with progress_bar(stage.title, items, items * done // shards) as advance:
                for done, _ in enumerate(runner.run(stage, missing), start=done + 1):  # noqa: B020
                    advance(items * done // shards)
        writer.finish(shards)
    return stage_counts(stage.folder)


def stage_counts(folder: Path) -> dict[str, int]:
    """The summed counts of a finished stage."""
    counts = read_manifest(folder)["counts"]
    assert isinstance(counts, dict)
    return counts


def rows_of(folder: Path, index: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(shard_path(folder, index)).to_pylist()
    return rows


def stream_shards(writer: ShardWriter, rows: Callable[[], Iterator[Row]], counts: Counter[str], size: int) -> int:
    """Write a stream as shards of `size` rows, unless they are all there; how many there are.

    rows: starts the stream; it adds to `counts` on the way, and what it has added is kept with the shards.
    """
    if not writer.complete:
        stream, total, several = rows(), 0, list[Row]()
        while total == 0 or len(several) == size:
            several = list(islice(stream, size))
            writer.write(total, several, counts)  # the last may be empty, and still count what came to nothing
            counts.clear()
            total += 1
        writer.finish(total)
    return len(writer.done())


# --- this machine -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalRunner(Runner):
    """In this process, or in several of this machine.

    Args:
        workers: processes; 1 is this one, which keeps the models that it has loaded.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def run(self, stage: Stage, shards: Sequence[int]) -> Iterator[int]:
        if self.workers == 1:
            for index in shards:
                with one_thread():
                    stage.write(index)
                yield index
            return
        # Forked processes would inherit the locks of torch's and Arrow's threads.
        context = multiprocessing.get_context("spawn")
        count = min(self.workers, len(shards))
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(stage,))
        try:
            under_way = {pool.submit(_write, index): index for index in shards}
            for future in as_completed(under_way):
                future.result()
                yield under_way[future]
        except BrokenProcessPool as error:
            pool.shutdown(wait=True)  # it ends the other workers too, maybe as they write
            remove_orphans(stage.folder)
            raise UserError(f"{stage.title}: a worker process died, {KEPT}") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_stage_of_worker: list[Stage] = []


def _start_worker(stage: Stage) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the pool
    torch.set_num_threads(1)
    _stage_of_worker[:] = [stage]  # with the model that it opens at its first shard


def _write(index: int) -> None:
    _stage_of_worker[0].write(index)


@contextmanager
def one_thread() -> Iterator[None]:
    """Another number of threads may add up in another order, and a sampled token turn out otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_workers(workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
