"""The callback on a linear model whose weight is the figure, so that what is measured when is plain."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import Logger
from rich import get_console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.callbacks import BeforeAfter, MetricsCSV
from lit_pref.evaluation.base import Evaluation
from lit_pref.types import Split


class Module(LightningModule):
    """One weight, which each SGD step lowers by the learning rate: the loss is the weight itself."""

    def __init__(self, lr: float = 0.5) -> None:
        super().__init__()
        self.lr = lr
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Dropout().eval()
        self.draws: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.draws.append(torch.rand(1).item())
        return self.weight + 0 * batch.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=self.lr)


class WeightOfItems(Evaluation):
    """Five items; the figure is the weight plus the item's number. Draws random numbers, as sampling would."""

    def __init__(self, name: str = "weight", split: Split | None = None) -> None:
        self.name, self.split, self.calls = name, split, 0
        self.asked: list[Split] = []
        self.seen_training: list[bool] = []

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        self.calls += 1
        self.asked.append(split)
        self.seen_training += [part.training for part in module.modules()]
        assert not torch.is_grad_enabled()
        torch.rand(7)
        assert isinstance(module, Module)
        return {self.name: module.weight + torch.arange(5)}


def loader() -> DataLoader[Tensor]:
    return DataLoader(torch.zeros(8, 1), batch_size=1)  # type: ignore[arg-type]


SILENT: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def trainer_for(folder: Path, callbacks: list, steps: int = 3, loggers: list[Logger] | None = None) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=loggers or False,
        log_every_n_steps=1,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
    )


def test_measures_before_the_first_step_and_after_the_last(tmp_path: Path):
    callback = BeforeAfter([WeightOfItems()])
    trainer_for(tmp_path, [callback]).fit(Module(lr=0.5), loader())
    # 2 before; three steps of 0.5 down: 0.5 after.
    torch.testing.assert_close(callback.before["weight"], 2 + torch.arange(5.0))
    torch.testing.assert_close(callback.after["weight"], 0.5 + torch.arange(5.0))
    assert callback.after["weight"].dtype == torch.float32 and not callback.after["weight"].requires_grad


def test_evaluates_in_eval_mode_and_puts_every_mode_back(tmp_path: Path):
    evaluation, module = WeightOfItems(), Module()
    trainer_for(tmp_path, [BeforeAfter([evaluation])]).fit(module, loader())
    assert evaluation.seen_training and not any(evaluation.seen_training)
    assert module.training and not module.frozen.training


def test_does_not_change_the_random_numbers_of_training(tmp_path: Path):
    draws = []
    for callbacks in ([], [BeforeAfter([WeightOfItems()])]):
        seed_everything(1, verbose=False)
        module = Module()
        trainer_for(tmp_path, callbacks).fit(module, loader())
        draws.append(module.draws)
    assert draws[0] == draws[1] and len(draws[0]) == 3


@pytest.mark.parametrize("first", [True, False])
def test_with_averaged_weights_those_are_measured(tmp_path: Path, first: bool):
    callback, average = BeforeAfter([WeightOfItems()]), EMAWeightAveraging(decay=0.5)
    module = Module(lr=0.5)
    trainer_for(tmp_path, [callback, average] if first else [average, callback]).fit(module, loader())
    # Weights 1.5, 1, 0.5 after the steps; the average starts at the first of them: 1.5, then 1.25, then 0.875.
    expected = module.weight.item()
    assert expected == pytest.approx(0.875)
    torch.testing.assert_close(callback.after["weight"], expected + torch.arange(5.0))


@pytest.mark.filterwarnings("ignore:.*Swapping scheduler.*", "ignore:.*lr_scheduler.step.*")
def test_with_stochastic_weight_averaging_the_average_is_measured(tmp_path: Path):
    callback, module = BeforeAfter([WeightOfItems()]), Module(lr=0.5)
    average = StochasticWeightAveraging(swa_lrs=0.5, swa_epoch_start=1, annealing_epochs=1)
    trainer = Trainer(**SILENT, max_epochs=3, callbacks=[callback, average], default_root_dir=tmp_path)
    trainer.fit(module, loader())
    assert module.weight.item() > 2 - 24 * 0.5 + 1  # an average, not the last one
    torch.testing.assert_close(callback.after["weight"], module.weight.item() + torch.arange(5.0))


class Nothing(Evaluation):
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        self.calls += 1
        return {}


def test_without_a_figure_the_run_folder_is_printed(tmp_path: Path):
    nothing = Nothing()
    with get_console().capture() as capture:
        trainer_for(tmp_path, [BeforeAfter([nothing])]).fit(Module(), loader())
    assert capture.get().strip() == f"run: {tmp_path}"
    assert nothing.calls == 2


def test_prints_the_table_and_the_run_folder(tmp_path: Path):
    with get_console().capture() as capture:
        trainer_for(tmp_path, [BeforeAfter([WeightOfItems()])]).fit(Module(), loader())
    text = capture.get()
    # mean of 2..6 is 4.0, of 0.5..4.5 is 2.5; each item fell by 1.5
    (line,) = [line for line in text.splitlines() if line.startswith("weight")]
    assert "4.0 [" in line and "2.5 [" in line and "-1.5" in line
    assert text.rstrip().splitlines()[-1] == f"run: {tmp_path}"


def test_logs_the_means(tmp_path: Path):
    logger = MetricsCSV(tmp_path)
    trainer_for(tmp_path, [BeforeAfter([WeightOfItems("pass@1")])], loggers=[logger]).fit(Module(), loader())
    text = logger.path.read_text()
    header = text.splitlines()[0].split(",")
    assert {"before/pass@1", "after/pass@1"} <= set(header)
    rows = [dict(zip(header, line.split(","), strict=True)) for line in text.splitlines()[1:]]
    assert [(r["step"], float(r["before/pass@1"])) for r in rows if r["before/pass@1"]] == [("0", 4.0)]
    assert [(r["step"], float(r["after/pass@1"])) for r in rows if r["after/pass@1"]] == [("3", 2.5)]


@pytest.mark.filterwarnings(
    "ignore:You're resuming from a checkpoint that ended before the epoch ended.*",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint.*",
)
def test_a_resumed_run_compares_with_the_start_of_the_first(tmp_path: Path):
    checkpoint = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=1)
    trainer_for(tmp_path, [BeforeAfter([WeightOfItems()]), checkpoint]).fit(Module(), loader())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]

    evaluation = WeightOfItems()
    resumed = BeforeAfter([evaluation])
    trainer = trainer_for(tmp_path, [resumed], steps=4)
    trainer.fit(Module(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert evaluation.calls == 1
    torch.testing.assert_close(resumed.before["weight"], 2 + torch.arange(5.0))
    torch.testing.assert_close(resumed.after["weight"], 0 + torch.arange(5.0))  # the fourth step: 2 − 4 · 0.5


def test_a_second_fit_measures_anew(tmp_path: Path):
    callback, module = BeforeAfter([WeightOfItems()]), Module()
    trainer_for(tmp_path, [callback]).fit(module, loader())
    trainer_for(tmp_path, [callback]).fit(module, loader())
    torch.testing.assert_close(callback.before["weight"], 0.5 + torch.arange(5.0))


def test_a_failed_run_has_no_after(tmp_path: Path):
    class Failing(Module):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            raise RuntimeError("on purpose")

    callback = BeforeAfter([WeightOfItems()])
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer_for(tmp_path, [callback]).fit(Failing(), loader())
    assert callback.before and not callback.after


def test_two_evaluations_may_not_share_a_name(tmp_path: Path):
    with pytest.raises(ValueError, match="gives 'weight', which another evaluation gives too"):
        trainer_for(tmp_path, [BeforeAfter([WeightOfItems(), WeightOfItems()])]).fit(Module(), loader())


def test_a_mean_instead_of_items_is_refused(tmp_path: Path):
    class Mean(Evaluation):
        def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
            return {"pass@1": torch.tensor(0.5)}

    with pytest.raises(ValueError, match=r"Mean must give 'pass@1' as one value an item, \[items\], got shape \(\)"):
        trainer_for(tmp_path, [BeforeAfter([Mean()])]).fit(Module(), loader())


class Validated(Module):
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("validation/loss", self.weight)

    test_step = validation_step


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_is_measured_against_what_it_carries_from_before_of_the_same_split(tmp_path: Path, command: str):
    saved = ModelCheckpoint(dirpath=tmp_path, filename="last")
    evaluations = [WeightOfItems(), WeightOfItems("benchmark", "test")]
    trainer_for(tmp_path, [BeforeAfter(list(evaluations)), saved], steps=2).fit(Validated(), loader(), loader())
    assert evaluations[0].asked == ["validation", "validation"]
    callback = BeforeAfter([WeightOfItems(), WeightOfItems("benchmark", "test")])
    trainer = trainer_for(tmp_path, [callback, ModelCheckpoint(dirpath=tmp_path, filename="last")])
    with get_console().capture() as capture:
        getattr(trainer, command)(Validated(), loader(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    split = "validation" if command == "validate" else "test"
    assert callback.splits == {"weight": split, "benchmark": "test"}
    # 2 at the start, two steps of 0.5: 1 in the checkpoint. The fit measured `weight` on validation items only.
    compared = {"weight", "benchmark"} if command == "validate" else {"benchmark"}
    assert callback.before.keys() == compared and callback.after.keys() == {"weight", "benchmark"}
    torch.testing.assert_close(callback.before["benchmark"], 2 + torch.arange(5.0))
    torch.testing.assert_close(callback.after["weight"], 1 + torch.arange(5.0))
    lines = capture.get().splitlines()
    assert f"{split}, 5 items" in map(str.strip, lines)
    for name in ("weight", "benchmark"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert ("-1.0" in line) == (name in compared)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended.*")
def test_figures_that_do_not_say_of_which_split_they_are_are_taken_anew(tmp_path: Path):
    callback = BeforeAfter([WeightOfItems()])
    callback.load_state_dict({"before": {"weight": torch.zeros(5)}})  # as older checkpoints hold it
    trainer_for(tmp_path, [callback]).fit(Module(), loader())
    torch.testing.assert_close(callback.before["weight"], 2 + torch.arange(5.0))


def test_validation_within_a_fit_is_not_the_end(tmp_path: Path):
    evaluation = WeightOfItems()
    trainer_for(tmp_path, [BeforeAfter([evaluation])]).fit(Validated(), loader(), loader())
    assert evaluation.calls == 2
