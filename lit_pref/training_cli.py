"""`lit-pref fit | validate | test | predict`: LightningCLI with a complete run folder, and errors meant for people.

The constructors are the configuration: every class named in YAML is read by jsonargparse from its signature.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import lit_pref.datamodules
import lit_pref.evaluation
import lit_pref.losses
import lit_pref.modules
import lit_pref.tasks
from lit_pref.callbacks import FiniteLoss, RunRecord, TrainingProgress, run_loggers
from lit_pref.cli_errors import readable
from lit_pref.errors import UserError

# Classes are found in YAML by their bare name once they are imported: that is what the imports above are for.
NAMED = (lit_pref.datamodules, lit_pref.evaluation, lit_pref.losses, lit_pref.modules, lit_pref.tasks)


class _Parser(LightningArgumentParser):
    """Says a mistake in one paragraph and exits with 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(readable(str(message), NAMED))


class _SaveConfig(SaveConfigCallback):
    """Writes the resolved `config.yaml` into the run folder, where it meets no other file of that name."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(
                self.config, folder / self.config_filename, skip_none=False, overwrite=True, multifile=False
            )


class TrainingCLI(LightningCLI):
    """LightningCLI whose runs lie in `runs/<config stem>/<time>-seed<seed>/`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--runs_folder", type=Path, default=Path("runs"), help="Where run folders are made.")
        parser.add_argument("--run_name", type=str, default=None, help="The run's folder; default: time and seed.")
        parser.add_argument("--project", type=str, default="lit_pref", help="The Weights & Biases project.")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            raise UserError(readable(str(error), NAMED)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        folder = run_folder(config.runs_folder, self._stem(), config.run_name, config.seed_everything, self._resumed())
        given = self.config_init[self.subcommand].trainer.callbacks or []
        kwargs["default_root_dir"] = str(folder)
        kwargs["callbacks"] = [*given, *default_callbacks(folder, given, config.trainer.enable_checkpointing)]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = run_loggers(folder, config.project, f"{self._stem()}/{folder.name}")
        return super().instantiate_trainer(**kwargs)

    def _stem(self) -> str:
        configs = self.config[self.subcommand].get("config") or []
        return Path(str(configs[0])).stem if configs else type(self.model).__name__

    def _resumed(self) -> Path | None:
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        return Path(checkpoint) if checkpoint else None


def default_callbacks(folder: Path, given: list[Callback], checkpoints: bool | None) -> list[Callback]:
    """What every run has unless the configuration brings its own of the kind."""
    defaults: list[Callback] = [TrainingProgress(), FiniteLoss(), RunRecord()]
    if checkpoints is not False:
        defaults.append(
            ModelCheckpoint(
                dirpath=folder / "checkpoints",
                filename="last",
                enable_version_counter=False,
                save_on_exception=True,
            )
        )
    kinds = (ProgressBar, FiniteLoss, RunRecord, ModelCheckpoint)
    present = [kind for kind in kinds if any(isinstance(callback, kind) for callback in given)]
    return [callback for callback in defaults if not isinstance(callback, tuple(present))]


def run_folder(runs: Path, stem: str, name: str | None, seed: Any, resumed: Path | None) -> Path:
    """Where a run lies; a resumed run goes on in its own folder."""
    if resumed is not None and resumed.parent.name == "checkpoints":
        return resumed.parent.parent
    return runs / stem / (name or f"{datetime.now():%Y-%m-%d_%H-%M-%S}-seed{seed}")


def run_trainer(arguments: list[str]) -> None:
    """Parse `fit --config ...` and the like, and run it."""
    command = arguments[0]
    # LightningCLI wants its arguments from the command line; a caller in Python gets the same.
    sys.argv = ["lit-pref", *arguments]
    TrainingCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=_SaveConfig,
        trainer_defaults={
            "log_every_n_steps": 10,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
        },
        seed_everything_default=0,
        parser_class=_Parser,
        parser_kwargs={command: {"description": f"lit-pref {command}"}, "prog": "lit-pref"},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )
