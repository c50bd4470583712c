"""Stops a run at the first loss that is NaN or infinite, with the batch saved and the weights untouched by it.

Not covered: gradients that overflow under a finite loss, which gradient clipping meets.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.storage.files import replacing


@runtime_checkable
class NamesNonFinite(Protocol):
    """A module that can say which value of its last batch is not finite."""

    def non_finite_values(self) -> str: ...


class FiniteLoss(Callback):
    """Looks at each loss before its backward pass, which waits for the accelerator, and all processes, once a batch.

    Raises UserError on all processes, after writing `non_finite_batch.pt` (`batch`, `loss`, `step`) into the run
    folder; of a process other than the first, `non_finite_batch_rank<rank>.pt`.
    """

    def __init__(self) -> None:
        self._batch: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        finite = bool(torch.isfinite(loss.detach()).all())
        # Together: a process that stopped by itself would leave the others waiting for its gradients.
        if trainer.strategy.reduce_boolean_decision(finite, all=True):
            return
        if finite:
            raise UserError("the loss of another process is not a finite number: its own message says which batch")
        suffix = f"_rank{trainer.global_rank}" if trainer.global_rank else ""
        path = Path(trainer.default_root_dir) / f"non_finite_batch{suffix}.pt"
        step = trainer.global_step
        with replacing(path) as stream:
            saved = {"batch": move_data_to_device(self._batch, "cpu"), "loss": loss.detach().cpu(), "step": step}
            torch.save(saved, stream)
        named = pl_module.non_finite_values() if isinstance(pl_module, NamesNonFinite) else ""
        because = f", because {named}" if named else ""
        raise UserError(
            f"the loss is {loss.detach().float().flatten()[0].item()} after {step} optimizer steps, in epoch "
            f"{trainer.current_epoch}{because}; expected a finite number. The weights are still those of step {step}, "
            f"and the batch lies in {path} (torch.load with weights_only=False). Usual mends: a lower learning rate, "
            "--trainer.gradient_clip_val 1.0, --trainer.precision bf16-mixed or 32-true instead of 16-mixed or "
            "bf16-true, or a look at that batch's rows"
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch = None
