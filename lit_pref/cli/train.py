"""`lit-pref fit | validate | test | predict`: LightningCLI with a complete run folder, and errors meant for people.

The constructors are the configuration: every class named in YAML is read by jsonargparse from its signature.
"""

import inspect
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

# Classes are found in YAML by their bare name once they are imported.
import lit_pref.datamodules
import lit_pref.evaluation
import lit_pref.losses
import lit_pref.tasks  # noqa: F401
from lit_pref.callbacks import DecayFromCheckpoint, LastCheckpoint, run_loggers
from lit_pref.callbacks.run_folders import FolderClaim, folder_of_checkpoint, new_folder
from lit_pref.callbacks.stop_signals import STOP, Stopped
from lit_pref.cli.configs import with_own_configs
from lit_pref.cli.errors import BY_CONSTRUCTORS, PlainParser, of_constructor
from lit_pref.cli.export import read_option
from lit_pref.cli.functions import writable_folder
from lit_pref.cli.quiet import quiet_lightning
from lit_pref.cli.trainer_parts import (
    SaveConfig,
    all_callbacks,
    check_callbacks,
    check_optimizer,
    check_trainer,
    with_checked_checkpoints,
)
from lit_pref.errors import UserError
from lit_pref.machine.processors import usable_processors
from lit_pref.modules.fitting import check_fits
from lit_pref.modules.language_model import _LanguageModule

_CLASSES = "The arguments of a class: --model.help DPOModule, --data.help PairsDataModule."
DESCRIPTIONS = {
    "fit": f"Train a method on data; figures before and after, and a complete run folder. {_CLASSES}",
    "validate": f"Measure a checkpoint (--ckpt_path) on the validation split, against where it started. {_CLASSES}",
    "test": f"Measure a checkpoint (--ckpt_path) on the test split, logged under test/. {_CLASSES}",
    "predict": f"Write a checkpoint's figures of each item of the test split to predictions.parquet. {_CLASSES}",
}


class _Parser(PlainParser, LightningArgumentParser):
    """Lightning's parser, with mistakes in a sentence."""


class TrainingCLI(LightningCLI):
    """LightningCLI whose runs lie in `runs/<config stem>/<time>-seed<seed>/`."""

    _checkpoint: dict[str, Any] | None = None  # what is resumed or measured, until it was accepted
    _claim: FolderClaim | None = None

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = super().init_parser(**kwargs)
        assert isinstance(parser, _Parser)
        checkpoint = "" if sys.argv[1] == "fit" else " --ckpt_path runs/.../last.ckpt"
        parser.example = f"lit-pref {sys.argv[1]} --config dpo{checkpoint}"
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--runs_folder", type=Path, default=Path("runs"), help="Where run folders are made.")
        parser.add_argument("--run_name", type=str, default=None, help="The run's folder; default: time and seed.")
        parser.add_argument("--project", type=str, default="lit_pref", help="The Weights & Biases project.")

    def _parse_ckpt_path(self) -> None:
        """A checkpoint is looked at before anything is computed; its hyperparameters stay out of the configuration."""
        if self.config[self.config["subcommand"]].get("ckpt_path") == "":
            raise UserError("--ckpt_path: expected a checkpoint, as runs/.../checkpoints/last.ckpt, got nothing")
        checkpoint = self._resumed()
        if checkpoint is not None:
            content = read_option("--ckpt_path", checkpoint)
            if "pytorch-lightning_version" not in content:
                raise UserError(f"--ckpt_path: {checkpoint} was not written by a Trainer: expected a run's last.ckpt")
            self._checkpoint = content

    def before_instantiate_classes(self) -> None:
        trainer = self.config[self.subcommand].trainer
        if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
            trainer.max_epochs = 1  # Lightning's own default is 1000
        if trainer.barebones:  # which is the Trainer without all that costs time, and refuses to be given any of it
            trainer.logger = trainer.enable_progress_bar = trainer.enable_checkpointing = False
            trainer.log_every_n_steps = 0

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            seed = self.config[self.subcommand].seed_everything
            raise UserError(f"seed_everything: expected 0 to 4294967295, got {seed}") from error

    def instantiate_classes(self) -> None:
        check_trainer(self.config[self.subcommand].trainer)
        try:
            super().instantiate_classes()
        except (*BY_CONSTRUCTORS, MisconfigurationException) as error:
            raise of_constructor(error) from error
        check_callbacks(self._given_callbacks())
        if isinstance(self.model, _LanguageModule):
            check_optimizer(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        given = self._given_callbacks()
        resumed = self._resumed() if self.subcommand == "fit" else None
        self._accept_checkpoint()
        if resumed and any(isinstance(each, DecayFromCheckpoint) and each.branches_off(resumed) for each in given):
            resumed = None  # a decay is a run of its own
        folder = self._folder(None if resumed is None else folder_of_checkpoint(resumed))
        kwargs["default_root_dir"] = str(folder)
        kwargs["callbacks"] = all_callbacks(given, config.trainer, folder)
        if config.trainer.logger in (None, True):
            kwargs["logger"] = run_loggers(folder, config.project, f"{self._stem()}/{folder.name}")
        kwargs["plugins"] = with_checked_checkpoints(self.config_init[self.subcommand].trainer.plugins)
        return super().instantiate_trainer(**kwargs)

    def _accept_checkpoint(self) -> None:
        """Before anything is written: whether what is resumed or measured is a checkpoint of such a module."""
        content, self._checkpoint = self._checkpoint, None
        if content is None or not isinstance(self.model, _LanguageModule):
            return
        try:
            check_fits(self.model, content, self.datamodule, resumes=self.subcommand == "fit")
        except UserError as error:
            raise UserError(f"--ckpt_path: {self._resumed()}: {error}") from error

    def _folder(self, resumed: Path | None) -> Path:
        """The run's folder, made and held by the first process; the others are told, see `SaveConfig`."""
        config = self.config[self.subcommand]
        parent = config.runs_folder / self._stem()
        if _rank():
            return resumed or parent / "of_the_first_process"
        writable_folder("--runs_folder", resumed or parent)
        folder = resumed or new_folder(parent, config.run_name, config.seed_everything, self.subcommand == "fit")
        if self.subcommand == "fit":
            self._claim = FolderClaim(folder)
            if resumed is None:  # of a run that was stopped before its first checkpoint, and starts anew
                (folder / "metrics.csv").unlink(missing_ok=True)
        return folder

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (MisconfigurationException, ValueError, RuntimeError, AttributeError) as error:
            # Lightning's word for what the user asked for and cannot have.
            if isinstance(error, UserError) or not _is_lightnings(error):
                raise
            raise UserError(" ".join(str(error).split())) from error
        except Stopped as stop:
            self._end_others()
            way_on = self._way_on()
            said = f"go on with: {way_on}" if way_on else "the same command goes on from what is finished"
            stop.say(said)
            raise
        except SystemExit as stop:
            # Lightning meets Ctrl-C itself: checkpoint, loggers and record are in order by now.
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            self._end_others()
            raise KeyboardInterrupt(self._way_on()) from None
        finally:
            if self._claim is not None:
                self._claim.release()

    def _end_others(self) -> None:
        """Once the first process has saved, those that it has started have nothing left to do."""
        if _rank():
            sys.exit(0)  # else Lightning's first process would end itself by SIGKILL, its loggers unfinished
        launcher = self.trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)

    def _way_on(self) -> str:
        """The command that goes on from the newest checkpoint; empty where there is none."""
        callbacks = self.trainer.checkpoint_callbacks
        saved = [each.path(self.trainer) for each in callbacks if isinstance(each, LastCheckpoint)]
        saved = [path for path in saved if path.is_file()]
        if not saved or self.subcommand != "fit":
            return ""
        newest, here, resumed = saved[-1], Path.cwd(), self._resumed()
        path = newest.relative_to(here) if newest.is_relative_to(here) else newest
        known = resumed is not None and resumed.resolve() == newest.resolve()
        return shlex.join(["lit-pref", *sys.argv[1:], *([] if known else ["--ckpt_path", str(path)])])

    def _given_callbacks(self) -> list[Callback]:
        given = self.config_init[self.subcommand].trainer.callbacks or []
        return given if isinstance(given, list) else [given]

    def _stem(self) -> str:
        configs = self.config[self.subcommand].get("config") or []
        return Path(str(configs[0])).stem if configs else type(self.model).__name__

    def _resumed(self) -> Path | None:
        checkpoint = self.config[self.config["subcommand"]].get("ckpt_path")
        return Path(checkpoint) if checkpoint else None


def _is_lightnings(error: BaseException) -> bool:
    """Whether Lightning itself raised it, rather than what it called."""
    last = inspect.getinnerframes(error.__traceback__)[-1] if error.__traceback__ else None
    return last is not None and last.frame.f_globals.get("__name__", "").startswith("lightning.")


def _rank() -> int:
    """Of this process, by its environment: the strategy is not there yet, or not any more."""
    rank: int = getattr(rank_zero_only, "rank", 0)
    return rank


def run(arguments: list[str]) -> None:
    """Parse `fit --config ...` and the like, and run it."""
    command = arguments[0]
    # Strategies start their other processes with it, and it is what a run says that it goes on with.
    sys.argv = [sys.argv[0], *arguments]
    # torch asks for the affinity, not for a container's quota; OMP_NUM_THREADS still lowers it.
    torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
    with quiet_lightning(), STOP.handled():
        try:
            _run_cli(command, with_own_configs(arguments))
        except Stopped as stop:
            stop.say("the same command goes on from what is finished")
            raise


def _run_cli(command: str, arguments: list[str]) -> None:
    TrainingCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveConfig,
        trainer_defaults={
            "log_every_n_steps": 10,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
        },
        seed_everything_default=0,
        parser_class=_Parser,
        parser_kwargs={command: {"description": DESCRIPTIONS[command]}, "prog": "lit-pref"},
        args=arguments,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )
