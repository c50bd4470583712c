"""The reference's log-probs of a data module's pairs: found on the disk, else scored by all processes together.

Each process scores its share of the batches and all get the whole. Not covered: models whose weights are sharded over
processes, whose forward passes would wait for each other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lit_pref.machine.progress import progress_bar
from lit_pref.modules.language_model import _LanguageModule
from lit_pref.storage.arrays import ArrayCache
from lit_pref.types import PairBatch, PairLogps

_LONG = 2_000  # pairs from which on progress is shown: some seconds of an embedded model


class StageReference(NamedTuple):
    """Log-probs of a stage's pairs under the start policy, [P, 2], and the cache key that tells which pairs."""

    key: tuple[str, ...]
    values_P2: Tensor


def reference_logps(
    module: _LanguageModule,
    loader: DataLoader[PairBatch],
    cache: ArrayCache,
    key: Sequence[str],
    as_reference: Callable[[], AbstractContextManager[None]],
) -> Tensor:
    """Summed log-probs of chosen and rejected of all pairs, in the order of the rows, [P, 2] on the CPU.

    as_reference: puts the reference's weights into the module for the while.
    """
    strategy = module.trainer.strategy
    found_P2 = cache.load(key, (len(loader.dataset), 2))  # type: ignore[arg-type]
    # All or none: another run may write the file between two looks, and machines need not share a disk.
    if strategy.reduce_boolean_decision(found_P2 is not None):
        assert found_P2 is not None
        return found_P2
    with as_reference():
        values_P2 = score_together(module, loader)
    if module.trainer.is_global_zero:
        cache.save(key, values_P2)
    return values_P2


def score_together(module: _LanguageModule, loader: DataLoader[PairBatch]) -> Tensor:
    """Summed log-probs of chosen and rejected of an ordered loader's pairs under the weights as they are, [P, 2].

    Raises RuntimeError for a loader that does not give every row once.
    """
    trainer, rows = module.trainer, len(loader.dataset)  # type: ignore[arg-type]
    told = rows >= _LONG and trainer.is_global_zero
    progress = progress_bar("Scoring the reference", rows) if told else nullcontext(lambda done: None)
    with progress as advance:
        own = module.score_all(_Share(loader, trainer.global_rank, trainer.world_size, advance))  # type: ignore[arg-type]
    scored_P = (own.chosen_length > 0).float()  # every completion has a token, and rows of others stay 0
    # A sum with zeros: to the bit what one process would have.
    all_P3 = trainer.strategy.reduce(torch.stack([own.chosen, own.rejected, scored_P], 1), reduce_op="sum").cpu()
    if not bool((all_P3[:, 2] == 1).all()):
        raise RuntimeError("the data module's ordered_loader must give every row once, in the same order everywhere")
    return all_P3[:, :2].contiguous()


@dataclass(frozen=True)
class _Share:
    """Every `world_size`-th batch of an ordered loader; `advance` is told how many rows all have done by then."""

    loader: DataLoader[PairBatch]
    rank: int
    world_size: int
    advance: Callable[[int], None]

    @property
    def dataset(self) -> Any:
        return self.loader.dataset

    def __iter__(self) -> Iterator[PairBatch]:
        # The batches of others are put together too, in vain: a hundredth of what scoring them would take.
        done = 0
        for batch in islice(iter(self.loader), self.rank, None, self.world_size):
            yield batch
            done += len(batch.index_P) * self.world_size
            self.advance(min(done, len(self.dataset)))


def check_start(policy: PairLogps, reference: PairLogps, tolerance: float, cache: ArrayCache) -> None:
    """Before training policy and reference are one. Raises RuntimeError where they differ by more nats a token."""
    off_chosen_P = (policy.chosen - reference.chosen).abs() / policy.chosen_length
    off_rejected_P = (policy.rejected - reference.rejected).abs() / policy.rejected_length
    off = torch.maximum(off_chosen_P, off_rejected_P).max()
    if off > tolerance:
        raise RuntimeError(
            f"before the first step the policy is {off:.2g} nats a token away from its cached reference: "
            f"the cache at {cache.folder} does not belong to these weights and tokens; delete it and run again"
        )
