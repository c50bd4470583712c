"""The progress bar of training: a rate, an ETA, and the metrics that a module marks with `prog_bar=True`.

Lightning's own bar but for three things: it redraws 10 times a second instead of 100, it leaves out the loggers'
version, and it ends with training, so that what is printed then comes below it. List it before callbacks that print.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme


class TrainingProgress(RichProgressBar):
    """Rich progress bars for fit, validate, test and predict; where there is no terminal, only their last state.

    Args:
        refresh_rate: redraws a second; 0 shows nothing.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        theme = RichProgressBarTheme(
            progress_bar="cyan", progress_bar_finished="green", progress_bar_pulse="cyan", processing_speed="dim"
        )
        super().__init__(refresh_rate=refresh_rate, theme=theme)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().teardown(trainer, pl_module, "fit")
        self.progress = None  # else it would be stopped again at teardown, which prints an empty line
