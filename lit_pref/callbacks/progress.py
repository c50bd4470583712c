"""The progress bar of training: a rate, an ETA, and the metrics that a module marks with `prog_bar=True`.

Lightning's own bar but for four things: it redraws 10 times a second instead of 100, it leaves out the loggers'
version, it ends with training, so that what is printed then comes below it, and where there is no terminal a line now
and then tells how far training is. List it before callbacks that print.
"""

import time
from typing import Any

import rich
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

from lit_pref.machine.progress import ProgressLines


class TrainingProgress(RichProgressBar):
    """Rich progress bars; where there is no terminal, a line of training now and then, and the bars' last state.

    Args:
        refresh_rate: redraws a second; 0 shows nothing.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        theme = RichProgressBarTheme(
            progress_bar="cyan", progress_bar_finished="green", progress_bar_pulse="cyan", processing_speed="dim"
        )
        super().__init__(refresh_rate=refresh_rate, theme=theme)
        self._lines: ProgressLines | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.is_enabled and trainer.is_global_zero and not rich.get_console().is_terminal:
            steps = trainer.estimated_stepping_batches
            self._lines = ProgressLines("Training, steps", steps, trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._lines is not None:
            self._lines(trainer.global_step, lambda: self._metrics(trainer, pl_module))

    def _metrics(self, trainer: Trainer, pl_module: LightningModule) -> str:
        shown = self.get_metrics(trainer, pl_module)
        return "".join(f", {name} {float(value):.3g}" for name, value in shown.items())

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().teardown(trainer, pl_module, "fit")
        self.progress = None  # else it would be stopped again at teardown, which prints an empty line
