"""Held-out figures before the first step and after the last, and the closing table that compares them.

Of the validation split in a fit and under `validate`, of the test split under `test`. Those two measure the checkpoint
that they are given, and compare it with what it carries from before of the same split. Not
covered: evaluation between first and last step; figures that are not one value an item.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from rich import get_console
from rich.table import Table
from torch import Tensor

from lit_pref.evaluation import Evaluation, PairAccuracy
from lit_pref.models import evaluating
from lit_pref.reports.closing_table import closing_table
from lit_pref.types import Split


class Measured(NamedTuple):
    """Figures by name, [items] each, fp32, on the CPU, and the split that each is of."""

    figures: dict[str, Tensor]
    splits: dict[str, Split]


_AVERAGING = (StochasticWeightAveraging, WeightAveraging)


class BeforeAfter(Callback):
    """Runs evaluations at the start and the end of a fit, on every rank, without touching the training.

    Args:
        evaluations: each gives figures of its own names; they run in the weights' precision, without autocast.

    `before` and `after` hold the per-item figures, [items] each, fp32, on the CPU, and `splits` what they are of;
    `after` stays empty where training did not come to its end. The figures from before travel in the checkpoint, and a
    resumed run compares with those; where its checkpoint has none, with the figures of the weights that it resumes.
    """

    def __init__(self, evaluations: list[Evaluation]) -> None:
        self.evaluations = evaluations
        self.before: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}
        self.splits: dict[str, Split] = {}
        self._restored = self._measured = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != TrainerFn.PREDICTING:
            for each in self.evaluations:
                if isinstance(each, PairAccuracy):
                    each.prepare(pl_module, _asked(trainer))
        # At the end of training averages of the weights take the place of the last ones: those are measured.
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        own = callbacks.index(self)
        averaging = [place for place, each in enumerate(callbacks) if isinstance(each, _AVERAGING) and place > own]
        if averaging:  # a new list: Lightning goes through the old one
            after = averaging[-1] + 1
            trainer.callbacks = [  # type: ignore[attr-defined]
                *callbacks[:own], *callbacks[own + 1 : after], self, *callbacks[after:]
            ]  # fmt: skip

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after, self._measured = {}, False
        # Validating or testing a checkpoint restores this object too: only a resumed fit may go on with what it found.
        if trainer.ckpt_path is None or not self._restored:
            self.before, self.splits = evaluate(self.evaluations, pl_module, _asked(trainer))
            _log_means(trainer, "before", self.before)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure_after(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._measured:
            # A run that was interrupted in its closing evaluation has no training left when it is resumed.
            self._measure_after(trainer, pl_module)
        self._show(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._measure_checkpoint(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure_checkpoint(trainer, pl_module)

    def _measure_checkpoint(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Outside of a fit: the weights as they are, against the figures from before that their checkpoint carries."""
        self._measure_after(trainer, pl_module)
        self._show(trainer)

    def _measure_after(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after, splits = evaluate(self.evaluations, pl_module, _asked(trainer))
        self._measured = True
        # What was measured before of another split is no comparison.
        self.before = {name: values for name, values in self.before.items() if splits.get(name) == self.splits[name]}
        self.splits = splits
        _log_means(trainer, "after", self.after)

    def _show(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            console = get_console()
            if self.after:
                console.print(self.table(console.width))
            if left_out := self.left_out:
                named = ", ".join([*list(left_out)[:5], *(["..."] if len(left_out) > 5 else [])])
                console.print(f"left out of these figures: {len(left_out):,} ({named})", highlight=False, markup=False)
            line = f"run: {trainer.default_root_dir}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    @property
    def left_out(self) -> dict[str, str]:
        """Items that no figure is over, such as problems whose references fail their own tests, and why."""
        return {name: why for each in self.evaluations for name, why in each.left_out.items()}

    def table(self, width: int = 100) -> Table:
        """The closing table for `width` columns of text; print it with rich."""
        return closing_table(self.before, self.after, width, self.splits)

    def state_dict(self) -> dict[str, Any]:
        return {"before": dict(self.before), "splits": dict(self.splits)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "splits" in state_dict:  # an older checkpoint does not say what its figures are of
            self.before, self.splits, self._restored = dict(state_dict["before"]), dict(state_dict["splits"]), True


def evaluate(evaluations: Sequence[Evaluation], module: LightningModule, split: Split) -> Measured:
    """All figures of the module's model as it is, in eval mode; its mode and the random states are as before after it.

    split: what the evaluations are asked for.

    Raises ValueError for a name that two evaluations give, and for a figure that is not [items].
    """
    figures: dict[str, Tensor] = {}
    splits: dict[str, Split] = {}
    with torch.no_grad(), isolate_rng(), evaluating(module):
        for evaluation in evaluations:
            source = type(evaluation).__name__
            for name, values in evaluation(module, split).items():
                if name in figures:
                    raise ValueError(f"{source} gives {name!r}, which another evaluation gives too")
                if values.ndim != 1 or not len(values):
                    shape = tuple(values.shape)
                    raise ValueError(f"{source} must give {name!r} as one value an item, [items], got shape {shape}")
                figures[name], splits[name] = values.detach().float().cpu(), evaluation.measured(split)
    return Measured(figures, splits)


def _asked(trainer: Trainer) -> Split:
    return "test" if trainer.state.fn == TrainerFn.TESTING else "validation"


def _log_means(trainer: Trainer, stage: str, figures: Mapping[str, Tensor]) -> None:
    # Without items that could not be measured, as in the closing table.
    means = {f"{stage}/{name}": values.nanmean().item() for name, values in figures.items()}
    for logger in trainer.loggers:
        logger.log_metrics(means, step=trainer.global_step)
