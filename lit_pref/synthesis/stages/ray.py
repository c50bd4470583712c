"""Stages on Ray Data: on this machine, or on a cluster whose machines all see the output's disk.

Not covered: moving source files or models to the cluster's machines; autoscaling.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lit_pref.errors import UserError
from lit_pref.machine.processors import usable_processors
from lit_pref.synthesis.stages.local import KEPT, Runner, Stage, check_workers

_RETRIES = 3  # of a shard whose worker died: it may be the shard that kills
_TRIES = ".tries-{}"


@dataclass(frozen=True)
class RayRunner(Runner):
    """Ray Data: actors that open a stage's model once and write shards; on a cluster, to a disk that all of it sees.

    Args:
        workers: actors; null is one a processor of this machine.
        gpus: of each actor; 0.5 puts two on a GPU.
        address: of a cluster that runs, as in `auto`; null takes the one this program has opened, or starts Ray on this
            machine and ends it again.
    """

    workers: int | None = None
    gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_workers(self.workers)
        if self.gpus < 0:
            raise ValueError(f"gpus must be >= 0, got {self.gpus}")

    def run(self, stage: Stage, shards: Sequence[int]) -> Iterator[int]:
        with self.opened():
            import ray

            for path in stage.folder.glob(_TRIES.format("*")):  # of an interrupted run
                path.unlink()
            actors = ray.data.ActorPoolStrategy(size=min(self._workers, len(shards)))
            # A block a shard: what Ray hands out and tries again.
            indexes = ray.data.from_items([{"index": index} for index in shards], override_num_blocks=len(shards))
            written = indexes.map(
                _actor_of(stage),
                compute=actors,
                num_cpus=1,
                num_gpus=self.gpus,
            )
            for row in written.iter_rows():
                if row["error"]:
                    raise UserError(row["error"])
                yield row["index"]

    @contextmanager
    def opened(self) -> Iterator[None]:
        ray = _ray()
        if ray.is_initialized():
            yield
            return
        size = {} if self.address else {"num_cpus": self._workers, "include_dashboard": False}
        ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, **size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its own defaults
            ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()

    @property
    def _workers(self) -> int:
        return self.workers or usable_processors()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("the runner ray needs Ray Data: pip install 'lit-pref[ray]'") from error
    return ray


def _actor_of(stage: Stage) -> Callable[..., Any]:
    """A class of which Ray makes one object a worker."""

    class Writer:
        def __init__(self) -> None:
            torch.set_num_threads(1)

        def __call__(self, row: dict[str, int]) -> dict[str, object]:
            index, error = row["index"], ""
            # Ray puts another worker in the place of a dead one as often as it takes; here a shard has four tries.
            tries = stage.folder / _TRIES.format(index)
            with tries.open("ab") as stream:
                stream.write(b".")
                if stream.tell() > 1 + _RETRIES:
                    error = f"{stage.title}: shard {index} ended {1 + _RETRIES} workers, {KEPT}"
            try:
                if not error:
                    stage.write(index)
            except UserError as mistake:  # else Ray wraps it in a traceback
                error = str(mistake)
            tries.unlink()
            return {"index": index, "error": error}

    return Writer
