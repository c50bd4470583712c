"""Features of Lightning's Trainer with this kit's modules and data: each does what its name says, or is refused."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.tuner import Tuner
from torch import Tensor

from lit_pref.datamodules import DemonstrationsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import DPO
from lit_pref.modules import DPOModule, SFTModule, WarmupCosine, WarmupStableDecay

# Prompts and responses of unlike lengths: twelve to train on, four to hold out.
ROWS = [
    {"prompt": f"# {i}\n", "chosen": "x = 1\n" * (7 * i % 5 + 1), "rejected": "y + " * (3 * i % 4) + "1"}
    for i in range(12)
]


def written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.01)


class Seen(Callback):
    """Rows of each batch by epoch, what each optimizer step logged, and how many validations there were."""

    def __init__(self) -> None:
        self.rows: dict[int, list[list[int]]] = {}
        self.steps: list[dict[str, float]] = []
        self.validations = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, _: Any, batch: Any, index: int) -> None:
        if hasattr(batch, "row_R"):
            self.rows.setdefault(trainer.current_epoch, []).append(batch.row_R.tolist())
        if trainer.global_step > len(self.steps):
            self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.validations += not trainer.sanity_checking


class Run:
    def __init__(self, policy: str, folder: Path) -> None:
        self.policy, self.folder, self.seen = policy, folder, Seen()

    def module(self, **settings: Any) -> DPOModule:
        return DPOModule(self.policy, DPO(0.3), **{"optimizer": sgd, "scheduler": None, **settings})

    def data(self, **settings: Any) -> PairsDataModule:
        train, held_out = (self.folder / name for name in ("train.jsonl", "held_out.jsonl"))
        return PairsDataModule(
            written(train, ROWS), validation=written(held_out, ROWS[:4]), **{"batch_size": 2, **settings}
        )

    def trainer(self, *callbacks: Callback, **settings: Any) -> Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": self.folder,
            "callbacks": [self.seen, *callbacks],
        }
        return Trainer(**(defaults | settings))

    def fit(self, *callbacks: Callback, scheduler: Any = None, **settings: Any) -> Trainer:
        trainer = self.trainer(*callbacks, **settings)
        trainer.fit(self.module(scheduler=scheduler), self.data())
        return trainer


@pytest.fixture
def run(policy: str, tmp_path: Path) -> Run:
    return Run(policy, tmp_path)


# --- how much of the data ---------------------------------------------------------------------------------------------

# Twelve pairs in batches of 2 are six steps an epoch, and four held-out ones two batches.
COUNTS = {
    "plain": ({}, 6, 1),
    "fast_dev_run": ({"fast_dev_run": True}, 1, 1),
    "fast_dev_run of 2": ({"fast_dev_run": 2}, 2, 1),
    "max_steps": ({"max_steps": 4, "max_epochs": -1}, 4, 0),
    "limit_train_batches, a share": ({"limit_train_batches": 0.5}, 3, 1),
    "limit_train_batches, accumulated": ({"limit_train_batches": 5, "accumulate_grad_batches": 2}, 3, 1),
    "limit_val_batches": ({"limit_val_batches": 1}, 6, 1),
    "no validation": ({"limit_val_batches": 0}, 6, 0),
    "val_check_interval, a share": ({"val_check_interval": 0.5}, 6, 2),
    "val_check_interval, batches": ({"val_check_interval": 2}, 6, 3),
    "val_check_interval over epochs": (
        {"val_check_interval": 4, "check_val_every_n_epoch": None, "max_epochs": 2}, 12, 3
    ),
    "check_val_every_n_epoch": ({"check_val_every_n_epoch": 2, "max_epochs": 3}, 18, 1),
    "num_sanity_val_steps": ({"num_sanity_val_steps": 2}, 6, 1),
    "max_time": ({"max_time": timedelta(0)}, 0, 0),
    "deterministic": ({"deterministic": "warn"}, 6, 1),
    "detect_anomaly": ({"detect_anomaly": True, "limit_train_batches": 1}, 1, 1),
    "profiler": ({"profiler": "simple"}, 6, 1),
    "inference_mode": ({"inference_mode": False}, 6, 1),
    "gradient_clip_val": ({"gradient_clip_val": 0.1}, 6, 1),
    "reload_dataloaders": ({"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2}, 12, 2),
    "progress bar and summary": ({"enable_progress_bar": True, "enable_model_summary": True}, 6, 1),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "steps", "validations"), COUNTS.values(), ids=COUNTS)
def test_steps_and_validations_are_as_many_as_asked_for(run: Run, settings: Any, steps: int, validations: int):
    trainer = run.fit(**settings)
    assert (trainer.global_step, run.seen.validations) == (steps, validations)
    assert ("validation/loss" in trainer.callback_metrics) == (validations > 0)
    rows = [row for epoch in run.seen.rows.values() for batch in epoch for row in batch]
    assert len(rows) == len(set(rows)) * len(run.seen.rows) or "max_steps" in settings  # none twice in an epoch


@pytest.mark.parametrize(("share", "batches"), [(2, 2), (0.5, 3)])
def test_overfit_batches_takes_the_same_batches_in_every_epoch(run: Run, share: Any, batches: int):
    run.fit(overfit_batches=share, max_epochs=2)
    first, second = run.seen.rows.values()
    assert first == second and len(first) == batches


def test_demonstrations_can_be_overfitted_too(run: Run):
    path = run.folder / "rows.jsonl"
    written(path, [{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS])
    data = DemonstrationsDataModule(train=str(path), validation=str(path), batch_size=2)
    trainer = run.trainer(overfit_batches=2, max_epochs=3)
    trainer.fit(SFTModule(run.policy, optimizer=sgd, scheduler=None), data)
    losses = [step["train/loss"] for step in run.seen.steps]
    assert len(losses) == 6 and losses[4] < losses[0] and losses[5] < losses[1]  # the same two batches, better known


def test_a_limit_shortens_the_last_step_to_the_batches_that_are_left(run: Run):
    # Three batches of 2, 2 and 2 pairs by twos: the last step is one batch, as in a run without accumulation.
    rate_0 = lambda params: torch.optim.SGD(params, lr=0.0)  # noqa: E731 - so that the steps can be compared
    run.trainer(limit_train_batches=3, accumulate_grad_batches=2).fit(run.module(optimizer=rate_0), run.data())
    plain = Run(run.policy, run.folder)
    plain.trainer(limit_train_batches=3).fit(run.module(optimizer=rate_0), run.data())
    assert len(run.seen.steps) == 2 and len(plain.seen.steps) == 3
    assert run.seen.steps[1]["train/grad_norm"] == pytest.approx(plain.seen.steps[2]["train/grad_norm"], rel=1e-6)


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_accumulation_may_change_from_epoch_to_epoch(run: Run):
    # Six batches each: six steps, then three. A step's gradient stays the mean over its pairs: that of a run that
    # accumulates from the start is the same.
    run.fit(GradientAccumulationScheduler({0: 1, 1: 2}), max_epochs=2)
    assert len(run.seen.steps) == 9
    from_the_start = Run(run.policy, run.folder)
    from_the_start.fit(GradientAccumulationScheduler({0: 2}))
    plain = Run(run.policy, run.folder)
    plain.fit(accumulate_grad_batches=2)
    for one, other in zip(from_the_start.seen.steps, plain.seen.steps, strict=True):
        assert one["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=1e-6)


def test_a_schedule_spans_a_run_whose_accumulation_changes(run: Run):
    # Six steps, then two; the last quarter, two steps, falls linearly to 0 behind the last one.
    decaying = lambda optimizer: WarmupStableDecay(optimizer, warmup=0.0, decay=0.25)  # noqa: E731
    trainer = run.fit(GradientAccumulationScheduler({0: 1, 1: 3}), scheduler=decaying, max_epochs=2)
    assert trainer.global_step == 8
    assert [step["train/learning_rate"] for step in run.seen.steps][5:] == pytest.approx([0.01, 0.01, 0.005])


def test_a_timer_ends_the_run(run: Run):
    assert run.fit(Timer(duration=timedelta(0)), max_epochs=5).global_step == 0


@pytest.mark.parametrize("monitor", ["validation/loss", "train/loss"])
def test_early_stopping_ends_the_run(run: Run, monitor: str):
    # No loss is better by 100: the second look is one too many.
    stopping = EarlyStopping(monitor, min_delta=100.0, patience=1)
    assert run.fit(stopping, max_epochs=5).global_step == 12


def test_a_rate_falls_where_the_figure_stays(run: Run):
    # No loss is better by 100: best after the first epoch, a tenth of the rate after each further one.
    plateau = lambda optimizer: ReduceLROnPlateau(  # noqa: E731
        optimizer, monitor="validation/loss", patience=0, threshold=100.0, threshold_mode="abs"
    )
    run.fit(scheduler=plateau, max_epochs=4)
    rates = [step["train/learning_rate"] for step in run.seen.steps]
    assert rates[::6] == pytest.approx([0.01, 0.01, 0.001, 0.0001])


def test_a_plateau_of_no_figure_is_refused(run: Run):
    with pytest.raises(UserError, match=r"does not say which figure it looks at: give lightning.pytorch.cli.ReduceLR"):
        run.fit(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)


@pytest.mark.filterwarnings("ignore:.*Swapping scheduler.*")
@pytest.mark.parametrize(
    "averaging",
    [EMAWeightAveraging(decay=0.5), StochasticWeightAveraging(1e-2, swa_epoch_start=1, annealing_epochs=1)],
    ids=["EMA", "SWA"],
)
def test_averaged_weights_are_left_in_the_module(run: Run, averaging: Callback):
    last: list[Tensor] = []

    class Last(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
            last[:] = [value.detach().clone() for value in module.parameters()]

    module = run.module()
    trainer = run.trainer(Last(), averaging, max_epochs=3, limit_train_batches=2)
    trainer.fit(module, run.data())
    assert trainer.global_step == 6 == len(run.seen.steps)
    assert any(not torch.equal(*both) for both in zip(last, module.parameters(), strict=True))


def test_the_batch_size_finder_finds_one_and_the_run_starts_anew(run: Run):
    # Three trials from 2 on, none out of memory: 2, 4 and 8 pairs; then two steps of the twelve.
    finder = BatchSizeFinder(steps_per_trial=1, max_trials=3, init_val=2)
    data = run.data()
    module = run.module(scheduler=WarmupCosine)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    begun: list[Tensor] = []

    class Begin(Callback):
        def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
            begun.extend(value.clone() for value in module.state_dict().values())

    trainer = run.trainer(finder, Begin(), enable_checkpointing=True)
    trainer.fit(module, data)
    assert data.batch_size == finder.optimal_batch_size == 8
    assert trainer.global_step == 2 and trainer.lr_scheduler_configs[0].scheduler.total_steps == 2
    assert all(torch.equal(*both) for both in zip(begun, start.values(), strict=True))


def test_the_learning_rate_finder_says_what_it_misses(run: Run):
    trainer = run.trainer(enable_checkpointing=True)
    with pytest.raises(AttributeError, match="When using the learning rate finder, either `model` or"):
        Tuner(trainer).lr_find(run.module(), datamodule=run.data())


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_barebones_run_trains_as_any_other(run: Run):
    trained = []
    for settings in ({}, {"barebones": True}):
        seed_everything(0, verbose=False)
        module = run.module()
        if settings:
            Trainer(barebones=True, accelerator="cpu", max_epochs=1, default_root_dir=run.folder).fit(
                module, run.data()
            )
        else:
            run.trainer().fit(module, run.data())
        trained.append(module)
    assert all(torch.equal(*both) for both in zip(*(module.parameters() for module in trained), strict=True))
