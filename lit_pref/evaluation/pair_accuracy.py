"""Preference pairs under the model as it is: which side is better, and what each is given.

Of a reward model that is a score, of a policy a log-prob. Not covered: policies on pairs that are not the run's own;
limits of length of a file's pairs.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.data.formats.pairs import PairKeys, read_pairs
from lit_pref.data.formats.write import stated_vocabulary, without_tokens
from lit_pref.data.reading.rows import tell_unused
from lit_pref.data.reading.sources import source_files
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.errors import UserError
from lit_pref.evaluation.base import Evaluation, there
from lit_pref.metrics import pair_nll
from lit_pref.rewards.learned import Candidates, RewardModel, score
from lit_pref.types import PairTask, PreferencePair, Split


@runtime_checkable
class MeasuresRows(Protocol):
    """What is asked of the module: figures of all rows of a split of its data module."""

    def all_row_figures(self, stage: str) -> dict[str, Tensor]: ...


@runtime_checkable
class MakesSplits(Protocol):
    """What is asked of a data module whose pairs are measured."""

    def splits(self) -> Sequence[Split]: ...

    def make(self, split: Split) -> None: ...


class PairAccuracy(Evaluation):
    """Share of pairs whose chosen side has the higher score, or summed log-prob (strictly), and what that rests on.

    Unlike `rewards/accuracies`, which compares with the reference, it is defined before training too. A reward model's
    `nll` is −log σ(margin), the loss of its margins under Bradley–Terry.

    Args:
        pairs: null is the run's own pairs; or a task that makes pairs, or a JSON Lines, JSON, CSV or Parquet file, a
            glob, a folder, or a hub id, in any of the formats that PairsDataModule reads, for reward models.
        split: of the run's data, the task, or within a folder or hub id; null is validation in a fit and test under
            `lit-pref test`, as far as there are both.
        count: how many; null is all of a file, and what a task without end takes for it.
        seed: draws those of a task.
        keys: a file's key names where they are none of the known formats.
        prefix: stands before the figures' names, where a run measures several sets of pairs, as in `reclor/`.
    """

    def __init__(
        self,
        pairs: PairTask | str | None = None,
        split: Split | None = None,
        count: int | None = None,
        seed: int = 0,
        keys: PairKeys | None = None,
        prefix: str = "",
    ) -> None:
        if count is not None and (count < 1 or pairs is None):
            raise ValueError(f"count must be >= 1, of given pairs, got {count}")
        self.pairs, self.split, self.count, self.seed = pairs, split, count, seed
        self.keys, self.prefix = keys, prefix
        self._told = False  # that there is nothing to measure

    def measured(self, asked: Split) -> Split:
        return self.split or (there(self.pairs.splits, asked) if isinstance(self.pairs, PairTask) else asked)

    def prepare(self, module: LightningModule, split: Split) -> None:
        """Make the run's own pairs of a split that it does not read itself, while the module has its first weights."""
        data, split = module.trainer.datamodule, self.measured(split)  # type: ignore[attr-defined]
        if self.pairs is None and isinstance(data, MakesSplits) and split in data.splits():
            data.make(split)

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        """No figures where the run has no such pairs, which a line says once."""
        split = self.measured(split)
        figures = self._of_run(module, split) if self.pairs is None else self._of_given(module, split)
        return {f"{self.prefix}{name}": values.float().cpu() for name, values in figures.items()}

    def _of_run(self, module: LightningModule, split: Split) -> dict[str, Tensor]:
        if not isinstance(module, MeasuresRows):
            raise TypeError(f"PairAccuracy needs a module that scores pairs, got {type(module).__name__}")
        found = module.all_row_figures(split)
        if not found:
            if module.global_rank == 0 and not self._told:
                print(f"{split} pairs: none, so nothing is measured of them", flush=True)
            self._told = True
            return {}
        # A reward model's module holds a language model too, whose log-probs are beside the point.
        if "score_chosen" in found:
            return pair_figures(found["score_chosen"], found["score_rejected"])
        names = [name for name in ("logps/chosen", "logps/rejected", "budget/over") if name in found]
        if len(names) < 2:
            raise UserError(
                f"PairAccuracy measures pairs, and {type(module).__name__} is given rows that are none: leave it out"
            )
        figures = {"pair_accuracy": found["logps/chosen"] > found["logps/rejected"]}
        return figures | {name: found[name] for name in names}

    def _of_given(self, module: LightningModule, split: Split) -> dict[str, Tensor]:
        if not isinstance(module, RewardModel):
            raise TypeError(f"PairAccuracy of given pairs needs a reward model's module, got {type(module).__name__}")
        sides = [
            Candidates(pair.prompt, (pair.chosen, pair.rejected), (pair.chosen_ids, pair.rejected_ids))
            for pair in self._read(module, split)
        ]
        return pair_figures(*torch.stack(score(module, sides)).T)

    def _read(self, module: RewardModel, split: Split) -> Sequence[PreferencePair]:
        assert self.pairs is not None
        if isinstance(self.pairs, PairTask):
            return self.pairs.pairs(split, self.count, self.seed)
        pairs, skipped = read_pairs(self.pairs, split, self.keys)
        tell_unused(skipped.columns)
        if self.count is not None and self.count > len(pairs):
            raise UserError(f"{self.pairs}: holds {len(pairs)} pairs, {self.count} asked for")
        stated = {stated_vocabulary(file) for file in source_files(self.pairs, split) or ()}
        if stated - {None, vocabulary_fingerprint(module.tokenizer)}:
            pairs = [without_tokens(pair) for pair in pairs]
        return pairs[: self.count]


def pair_figures(chosen_P: Tensor, rejected_P: Tensor) -> dict[str, Tensor]:
    """Figures of each pair from the scores of its sides, [P] each.

    `nll` is −log σ(margin), below 0.693 where the margins are worth more than a coin.
    """
    margin_P = chosen_P - rejected_P
    return {
        "pair_accuracy": chosen_P > rejected_P,
        "nll": pair_nll(margin_P),
        "margin": margin_P,
        "score_chosen": chosen_P,
        "score_rejected": rejected_P,
    }
