"""Where a run's metrics go: `metrics.csv` in the run folder, and Weights & Biases, online with a login, else offline.

Nothing here ever asks a question. Not covered: uploading checkpoints, gradients or console output to W&B; loggers for
validate, test and predict beyond what Lightning does with these.
"""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich import get_console

from lit_pref.callbacks.metrics_csv import MetricsCSV
from lit_pref.errors import UserError

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

# W&B's own output would break into progress bars, and its console capture would record them frame by frame.
_SETTINGS = {"silent": True, "console": "off"}


def run_loggers(run_dir: Path, project: str, name: str) -> list[Logger]:
    """A run's loggers; `metrics.csv` comes first, so that Lightning's own files lie in the run folder too.

    W&B is left out where it is switched off: `WANDB_MODE=disabled`, or `wandb disabled`.
    """
    metrics = MetricsCSV(run_dir)
    return [metrics] if wandb_mode() == "disabled" else [metrics, RunWandbLogger(run_dir, project, name)]


class RunWandbLogger(WandbLogger):
    """The W&B run of a run folder, in `<run_dir>/wandb/`, of which `config.yaml` there is W&B's own.

    The run's id is kept in `<run_dir>/wandb_id.txt`, so that a resumed run goes on in the same W&B run. It is finished
    at the end of each fit, validate, test or predict: several runs in one process stay apart.
    """

    def __init__(self, run_dir: str | Path, project: str = "lit_pref", name: str | None = None) -> None:
        folder = Path(run_dir)
        self.offline = wandb_mode() != "online"
        mode = "offline" if self.offline else "online"
        # `mode` rather than `offline=True`, which would set WANDB_MODE for all later runs of the process.
        super().__init__(
            name=name, save_dir=folder, project=project, id=_run_id(folder), mode=mode, settings=dict(_SETTINGS)
        )
        # Lightning always passes it, and wandb always warns that it means nothing any more.
        self._wandb_init.pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run":
        starts = self._experiment is None
        run: Run = super().experiment
        if starts and not self.offline:
            get_console().print(f"W&B: {run.url}", soft_wrap=True, highlight=False, markup=False)
        return run

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is None:
            return
        self._experiment.finish(exit_code=0 if status == "success" else 1)
        self._experiment = None
        if self.offline:
            message = f"W&B: logged offline; to upload: wandb login && wandb sync {self.save_dir}/wandb/offline-run-*"
            get_console().print(message, soft_wrap=True, highlight=False, markup=False)


def wandb_mode() -> str:
    """`disabled` or `offline` where the user said so (environment or W&B settings), else `online` with a login only.

    Raises UserError for a login of the wrong form.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return "disabled"
    import wandb  # about a second: not before a run needs it

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    mode = os.environ.get("WANDB_MODE") or settings.mode
    if mode in ("disabled", "offline", "dryrun"):
        return "disabled" if mode == "disabled" else "offline"
    try:
        # What wandb.init would find, from the environment, its settings or netrc; unverified, so without a network.
        logged_in = wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise UserError(f"Weights & Biases: {error}. Mend the login, or set WANDB_MODE=offline or disabled") from error
    return "online" if logged_in else "offline"


@rank_zero_only
def _run_id(folder: Path) -> str:
    """The folder's W&B run id, drawn at its first use; None on the other processes, which have no run."""
    path = folder / "wandb_id.txt"
    if path.is_file():
        return path.read_text().strip()
    folder.mkdir(parents=True, exist_ok=True)
    run_id = secrets.token_hex(4)
    path.write_text(run_id + "\n")
    return run_id
