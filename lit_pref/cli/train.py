"""`lit-pref fit | validate | test | predict`: LightningCLI with a complete run folder, and errors meant for people.

The constructors are the configuration: every class named in YAML is read by jsonargparse from its signature.
"""

import inspect
import logging
import math
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.callbacks.timer import Interval
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

# Classes are found in YAML by their bare name once they are imported.
import lit_pref.datamodules
import lit_pref.evaluation
import lit_pref.losses
import lit_pref.tasks  # noqa: F401
from lit_pref.callbacks import (
    CheckedCheckpointIO,
    DecayFromCheckpoint,
    FiniteLoss,
    LastCheckpoint,
    PredictionsFile,
    RunRecord,
    TrainingProgress,
    run_loggers,
)
from lit_pref.callbacks.run_folders import FolderClaim, folder_of_checkpoint, new_folder
from lit_pref.callbacks.stop_signals import STOP, Stopped
from lit_pref.cli.errors import BY_CONSTRUCTORS, PlainParser, of_constructor
from lit_pref.cli.export import read_option
from lit_pref.cli.functions import writable_folder
from lit_pref.cli.old_names import LOGGED
from lit_pref.errors import UserError
from lit_pref.machine.processors import usable_processors
from lit_pref.modules.fitting import check_fits
from lit_pref.modules.language_model import _LanguageModule

_CLASSES = "The arguments of a class: --model.help DPOModule, --data.help PairsDataModule."
DESCRIPTIONS = {
    "fit": f"Train a method on data; figures before and after, and a complete run folder. {_CLASSES}",
    "validate": f"Measure a checkpoint (--ckpt_path) on the held-out data, against where it started. {_CLASSES}",
    "test": f"Measure a checkpoint (--ckpt_path) on the held-out data, logged under test/. {_CLASSES}",
    "predict": f"Write every figure of every held-out pair under a checkpoint to predictions.parquet. {_CLASSES}",
}

# Said in every run, and nothing that a user could or should change.
_IDLE_WARNINGS = (
    "`isinstance.treespec, LeafSpec.` is deprecated",  # between Lightning and a newer torch
    ".*does not have many workers",  # batches are put together from token ids in memory: workers would only copy them
    ".*module.s. in eval mode",  # dropout is off unless the module's argument says otherwise
    "Total length of `list` across ranks is zero",  # no validation data was given
    "You are trying to `self.log.*barebones",  # nothing is logged there, as was asked for
    "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its own folder
    "Couldn't infer the batch indices",  # predictions carry their own row numbers
    "The dirpath has changed from",  # a checkpoint that is validated stays where it is
)
_IDLE_MESSAGES = re.compile(
    # In the resolved configuration and the run record.
    "Seed set to|[GT]PU available|LOCAL_RANK|`Trainer.*was configured so|`Trainer.fit` stopped: `max_epochs|"
    # Said again when it is done, or by ourselves with the way to go on.
    r"Restoring states from|An \w+ was raised with message|Loading `train_dataloader`|Detected KeyboardInterrupt|"
    "KeyboardInterrupt was raised|"
    # Advertisement.
    "Tip: "
)
# Else the Timer's interval could not stand in a run's config.yaml.
yaml.SafeDumper.add_multi_representer(Interval, lambda dumper, value: dumper.represent_str(value.value))
_TALKATIVE = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")


class _Parser(PlainParser, LightningArgumentParser):
    """Lightning's parser, with mistakes in a sentence."""


class _SaveConfig(SaveConfigCallback):
    """Writes the resolved `config.yaml` into the run folder, where it meets no other file of that name, and logs it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Processes that know no more than the command have made up another folder.
        folder = trainer.strategy.broadcast(trainer.default_root_dir)
        trainer._default_root_dir = folder  # type: ignore[attr-defined]
        if trainer.ckpt_path is None or stage != "fit":
            self._write(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is not None:  # by now the run that it resumes has been accepted
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(
                self.config, folder / self.config_filename, skip_none=False, overwrite=True, multifile=False
            )
            resolved = yaml.safe_load((folder / self.config_filename).read_text())
            for logger in trainer.loggers:
                logger.log_hyperparams(resolved)  # what runs are compared by


class TrainingCLI(LightningCLI):
    """LightningCLI whose runs lie in `runs/<config stem>/<time>-seed<seed>/`."""

    _checkpoint: dict[str, Any] | None = None  # what is resumed or measured, until it was accepted
    _claim: FolderClaim | None = None

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = super().init_parser(**kwargs)
        assert isinstance(parser, _Parser)
        checkpoint = "" if sys.argv[1] == "fit" else " --ckpt_path runs/.../last.ckpt"
        parser.example = f"lit-pref {sys.argv[1]} --config configs/dpo.yaml{checkpoint}"
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
        _check_trainer(self.config[self.subcommand].trainer)
        try:
            super().instantiate_classes()
        except (*BY_CONSTRUCTORS, MisconfigurationException) as error:
            raise of_constructor(error) from error
        for callback in self._given_callbacks():
            if refused := _CANNOT.get(type(callback).__name__):
                raise UserError(f"trainer.callbacks: {type(callback).__name__} cannot work here: {refused}")
            monitored = str(getattr(callback, "monitor", ""))
            for old, new in LOGGED.items():
                if monitored.startswith(old):
                    raise UserError(f"trainer.callbacks: monitor: {monitored} is now {monitored.replace(old, new, 1)}")
        if isinstance(self.model, _LanguageModule):
            _check_optimizer(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        given = self._given_callbacks()
        resumed = self._resumed() if self.subcommand == "fit" else None
        self._accept_checkpoint()
        if resumed and any(isinstance(each, DecayFromCheckpoint) and each.branches_off(resumed) for each in given):
            resumed = None  # a decay is a run of its own
        folder = self._folder(None if resumed is None else folder_of_checkpoint(resumed))
        kwargs["default_root_dir"] = str(folder)
        if config.trainer.enable_checkpointing is not False:
            given = [_beside_last(callback, folder) for callback in given]
        defaults = default_callbacks(given, config.trainer.enable_checkpointing)
        if config.trainer.enable_progress_bar is False:
            defaults = [callback for callback in defaults if not isinstance(callback, ProgressBar)]
        # The bar ends before others print; the record is written when they have measured.
        bars = [callback for callback in defaults if isinstance(callback, ProgressBar)]
        callbacks = [*bars, *given, *(callback for callback in defaults if callback not in bars)]
        # The newest state holds what other checkpoint callbacks have saved.
        kwargs["callbacks"] = sorted(callbacks, key=lambda callback: isinstance(callback, LastCheckpoint))
        if config.trainer.logger in (None, True):
            kwargs["logger"] = run_loggers(folder, config.project, f"{self._stem()}/{folder.name}")
        kwargs["plugins"] = _with_checked_checkpoints(self.config_init[self.subcommand].trainer.plugins)
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
        """The run's folder, made and held by the first process; the others are told, see `_SaveConfig`."""
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


# Bounds of the Trainer's arguments that Lightning does not look at; inclusive.
_AT_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "num_nodes": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "val_check_interval": 1e-9,
}


# Callbacks of Lightning that would break on the way, and what to do.
_CANNOT = {
    "BackboneFinetuning": "a policy has no backbone apart; take --model.adapter LoRA to train few weights",
}


def _check_trainer(trainer: Namespace) -> None:
    for name, least in _AT_LEAST.items():
        value = trainer[name]
        if isinstance(value, int | float) and not least <= value < math.inf:
            bound = f">= {least}" if least != 1e-9 else "> 0"
            raise UserError(f"trainer.{name}: must be {bound} and finite, got {value}")


def _check_optimizer(module: _LanguageModule) -> None:
    """Make optimizer and schedule once, of nothing: else what is wrong with them would show after all data is made."""
    if module.make_optimizer is None:
        raise UserError("model.optimizer: expected a class such as torch.optim.AdamW, got null")
    try:
        optimizer = module.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    except BY_CONSTRUCTORS as error:
        raise UserError(f"model.optimizer: {error}") from error
    for name, value in optimizer.defaults.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"model.optimizer: {name} must be finite, got {value}")
    if module.make_scheduler is None:
        return
    try:
        scheduler = module.make_scheduler(optimizer)
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the optimizer has not stepped
                scheduler.step()
    except BY_CONSTRUCTORS as error:
        raise UserError(f"model.scheduler: {error}") from error


def default_callbacks(given: list[Callback], checkpoints: bool | None) -> list[Callback]:
    """What every run has unless the configuration brings its own of the kind."""
    defaults: list[Callback] = [TrainingProgress(), FiniteLoss(), RunRecord(), PredictionsFile()]
    if checkpoints is not False:
        defaults.append(LastCheckpoint())
    kinds = (ProgressBar, FiniteLoss, RunRecord, PredictionsFile, LastCheckpoint)
    present = [kind for kind in kinds if any(isinstance(callback, kind) for callback in given)]
    return [callback for callback in defaults if not isinstance(callback, tuple(present))]


def _beside_last(callback: Callback, folder: Path) -> Callback:
    """A ModelCheckpoint of the configuration, which must leave the run's `last.ckpt` to `LastCheckpoint`."""
    if isinstance(callback, ModelCheckpoint):
        there = folder / "checkpoints"
        if callback.dirpath is None or Path(callback.dirpath).resolve() == there.resolve():
            callback.save_last = None  # it is there, and the newest
            if callback.filename == "last":
                raise UserError(
                    f"trainer.callbacks: ModelCheckpoint(filename='last') would write over the run's own "
                    f"{there / 'last.ckpt'}, which is kept in any case: leave it out, or give another filename"
                )
    return callback


def _with_checked_checkpoints(plugins: Any) -> list[Any]:
    """The configuration's plugins, and ours for checkpoints unless it brings its own."""
    given = [] if plugins is None else plugins if isinstance(plugins, list) else [plugins]
    # XLA's strategies take no other than their own.
    own = any(isinstance(plugin, CheckpointIO) for plugin in given) or XLAAccelerator.is_available()
    return given if own else [*given, CheckedCheckpointIO()]


def run(arguments: list[str]) -> None:
    """Parse `fit --config ...` and the like, and run it."""
    command = arguments[0]
    # LightningCLI wants its arguments from the command line; a caller in Python gets the same. The first one stays:
    # strategies start their other processes with it.
    sys.argv = [sys.argv[0], *arguments]
    # torch asks for the affinity, not for a container's quota; OMP_NUM_THREADS still lowers it.
    torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))
    with _quiet_lightning(), STOP.handled():
        try:
            _run_cli(command)
        except Stopped as stop:
            stop.say("the same command goes on from what is finished")
            raise


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without what Lightning says in every run; what a user can act on is said as before."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    with warnings.catch_warnings():
        for message in _IDLE_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.addFilter(_is_news)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not _IDLE_MESSAGES.search(record.getMessage())


def _run_cli(command: str) -> None:
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
        parser_kwargs={command: {"description": DESCRIPTIONS[command]}, "prog": "lit-pref"},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )
