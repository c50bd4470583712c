"""Checkpoints of the stable phase and what decays from them, on a tiny Llama with SGD, in runs of 20 steps.

10 steps an epoch, of 4 pairs each. Warm-up 0.1 is 2 steps, decay 0.25 the last 5: stable from 2 to 15 finished steps.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_pref.callbacks import DecayFromCheckpoint, GeometricCheckpoints
from lit_pref.callbacks.geometric_checkpoints import geometric_steps
from lit_pref.cli.main import main
from lit_pref.datamodules import DemonstrationsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.modules import PMPretrainModule, SFTModule, WarmupCosine, WarmupStableDecay

ROOT = Path(__file__).parents[2]
RATE = 0.01
STATES = "stable_checkpoints"


@pytest.fixture(autouse=True)
def _own_cache_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that what seed_everything sets is put back


def pairs_file(folder: Path) -> str:
    path = folder / "pairs.jsonl"
    rows = [{"prompt": f"# add {i}\n", "chosen": f"    return x + {i}\n", "rejected": "    x\n"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Seen(Callback):
    """The weights at the start, and of each step its rows and learning rate."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.start: dict[str, Tensor] = {}
        self.rows: list[list[int]] = []
        self.rates: list[float] = []
        self.fail_at = fail_at

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.start = {name: x.clone() for name, x in module.state_dict().items()}

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.fail_at:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "stopped.ckpt")
            raise RuntimeError("on purpose")
        self.rows.append(batch.row_R.tolist())

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"] / RATE)


class Run:
    """A fit in a folder of its own."""

    def __init__(self, policy: str, folder: Path, *callbacks: Callback, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seen = folder, Seen(settings.pop("fail_at", None))
        checkpoint, schedule = settings.pop("checkpoint", None), settings.pop("schedule", stable_decay)
        self.module = PMPretrainModule(
            policy, optimizer=lambda params: torch.optim.SGD(params, lr=RATE), scheduler=schedule
        )
        defaults = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "default_root_dir": folder}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        self.trainer = Trainer(**(defaults | quiet | settings), callbacks=[*callbacks, self.seen])
        data = PairsDataModule(pairs_file(folder.parent), validation_size=0.0, batch_size=4, seed=1)
        self.trainer.fit(self.module, data, ckpt_path=checkpoint, weights_only=True)

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def state(self, step: int) -> Path:
        (path,) = (self.folder / STATES).glob(f"step={step:06d}-*.ckpt")
        return path


def stable_decay(optimizer: Any) -> WarmupStableDecay:
    return WarmupStableDecay(optimizer, warmup=0.1, decay=0.25)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def whole(policy: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """20 steps with states at 2, 4 and 8; tests read it alone."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_PREF_CACHE", str(folder / "cache"))
        patch.setenv("PL_GLOBAL_SEED", "0")
        return Run(policy, folder / "whole", GeometricCheckpoints(ratio=2.0))


# --- which steps ------------------------------------------------------------------------------------------------------


def test_steps_are_geometric_within_the_stable_phase():
    assert geometric_steps(range(3, 37), 2.0) == [3, 6, 12, 24]
    # 3 · 2^(k/4) = 3, 3.57, 4.24, 5.05, 6, 7.14, 8.49, 10.09, 12, 14.27: those that round alike are one
    assert geometric_steps(range(3, 15), 2**0.25) == [3, 4, 5, 6, 7, 8, 10, 12, 14]
    assert geometric_steps(range(10, 31), 2.0, first=4) == [16]  # 4 and 8 warm up, 32 decays
    assert geometric_steps(range(2, 16), 2.0, first=15) == [15]
    assert geometric_steps(range(2, 16), 2.0, first=16) == geometric_steps(range(0), 2.0) == []


def test_states_are_named_by_steps_and_pairs(whole: Run):
    names = sorted(path.name for path in (whole.folder / STATES).iterdir())
    # 4 pairs a step
    assert names == ["step=000002-pairs=8.ckpt", "step=000004-pairs=16.ckpt", "step=000008-pairs=32.ckpt"]
    for step in (2, 4, 8):
        state = torch.load(whole.state(step), weights_only=True)
        assert state["global_step"] == state["lr_schedulers"][0]["last_epoch"] == step
    assert whole.trainer.global_step == 20


def test_saving_changes_nothing(whole: Run, policy: str, tmp_path: Path):
    without = Run(policy, tmp_path / "without")
    assert equal(without.weights, whole.weights) and without.seen.rows == whole.seen.rows
    # 2 warm-up steps by thirds, 13 stable, 5 that fall by fifths
    rates = [1 / 3, 2 / 3, *[1.0] * 13, 1.0, 4 / 5, 3 / 5, 2 / 5, 1 / 5]
    assert whole.seen.rates == pytest.approx(rates)


@pytest.mark.parametrize("stop", [3, 8])
def test_an_interrupted_run_goes_on_counting(policy: str, tmp_path: Path, stop: int):
    with pytest.raises(RuntimeError, match="on purpose"):
        Run(policy, tmp_path / "run", GeometricCheckpoints(ratio=2.0), fail_at=stop)
    resumed = Run(policy, tmp_path / "run", GeometricCheckpoints(2.0), checkpoint=tmp_path / "run" / "stopped.ckpt")
    assert resumed.state(8).name == "step=000008-pairs=32.ckpt"


def test_accumulated_steps_are_saved_once_behind_their_last_batch(policy: str, tmp_path: Path):
    # 5 steps an epoch of 2 batches: 10 steps; warm-up 1 step, decay round(2.5) = 2, stable from 1 to 8
    whole = Run(policy, tmp_path / "whole", GeometricCheckpoints(2.0, first=3), accumulate_grad_batches=2)
    names = sorted(path.name for path in (whole.folder / STATES).iterdir())
    assert names == ["step=000003-pairs=24.ckpt", "step=000006-pairs=48.ckpt"]
    again = Run(
        policy,
        tmp_path / "again",
        GeometricCheckpoints(2.0, first=3),
        accumulate_grad_batches=2,
        checkpoint=whole.state(3),
    )
    assert again.seen.rows == whole.seen.rows[6:] and equal(again.weights, whole.weights)
    assert [path.name for path in (again.folder / STATES).iterdir()] == ["step=000006-pairs=48.ckpt"]


# --- resumed and decayed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [4, 10])  # 10 is the end of an epoch
def test_a_state_resumes_as_if_there_had_been_no_end(policy: str, tmp_path: Path, step: int):
    whole = Run(policy, tmp_path / "whole", GeometricCheckpoints(first=step, ratio=9.0))
    again = Run(policy, tmp_path / "again", checkpoint=whole.state(step))
    assert again.seen.rows == whole.seen.rows[step:]
    assert again.seen.rates == whole.seen.rates[step:]
    assert equal(again.weights, whole.weights)


@pytest.mark.parametrize(
    ("step", "rates"),
    [
        # a decay of half of all steps: behind s steps s more, from 1 by 1/s
        (4, [1.0, 3 / 4, 2 / 4, 1 / 4]),
        (8, [1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
    ],
)
def test_a_state_decays_apart(whole: Run, policy: str, tmp_path: Path, step: int, rates: list[float]):
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    branch = Run(policy, tmp_path / "branch", DecayFromCheckpoint(0.5), checkpoint=whole.state(step))
    state = torch.load(whole.state(step), weights_only=True)
    assert equal(branch.seen.start, state["state_dict"])
    assert branch.seen.rates == pytest.approx(rates)
    assert branch.trainer.global_step == 2 * step
    assert branch.trainer.optimizers[0].param_groups[0]["lr"] == 0
    # The very next batches, across the end of an epoch of 10 too
    assert branch.seen.rows == whole.seen.rows[step : 2 * step]
    assert not equal(branch.weights, branch.seen.start)
    assert before == {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}


def test_the_decay_of_the_last_stable_step_is_the_run_s_own(policy: str, tmp_path: Path):
    # decay 0.25 behind 15 steps: 15 / 0.75 = 20 in all, as the run itself
    whole = Run(policy, tmp_path / "whole", GeometricCheckpoints(first=15))
    branch = Run(policy, tmp_path / "branch", DecayFromCheckpoint(), checkpoint=whole.state(15))
    assert branch.seen.rates == whole.seen.rates[15:]
    assert equal(branch.weights, whole.weights)


def test_a_decay_saves_no_states_of_the_stable_phase(whole: Run, policy: str, tmp_path: Path):
    callbacks = [GeometricCheckpoints(2.0), DecayFromCheckpoint(0.5)]
    for order in (callbacks, callbacks[::-1]):
        branch = Run(policy, tmp_path / "branch", *order, checkpoint=whole.state(4))
        assert branch.trainer.global_step == 8 and not (branch.folder / STATES).exists()


def test_an_interrupted_decay_goes_on_where_it_was(whole: Run, policy: str, tmp_path: Path):
    uninterrupted = Run(policy, tmp_path / "one", DecayFromCheckpoint(0.5), checkpoint=whole.state(8))
    with pytest.raises(RuntimeError, match="on purpose"):
        Run(policy, tmp_path / "two", DecayFromCheckpoint(0.5), checkpoint=whole.state(8), fail_at=11)
    stopped = tmp_path / "two" / "stopped.ckpt"
    resumed = Run(policy, tmp_path / "two", DecayFromCheckpoint(0.5), checkpoint=stopped)
    assert resumed.seen.rates == pytest.approx([5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert resumed.trainer.global_step == 16 and equal(resumed.weights, uninterrupted.weights)
    with pytest.raises(UserError, match=r"this run decays by 0\.5 already, got 0\.3"):
        Run(policy, tmp_path / "two", DecayFromCheckpoint(0.3), checkpoint=stopped)


def test_one_command_decays_a_state_in_a_run_of_its_own(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = {
        "model": {"class_path": "PMPretrainModule", "init_args": {"policy": policy}},
        "data": {
            "class_path": "PairsDataModule",
            "init_args": {"train": pairs_file(tmp_path), "validation_size": 0.0, "batch_size": 4},
        },
        "trainer": {"callbacks": [{"class_path": "GeometricCheckpoints", "init_args": {"ratio": 2.0}}]},
    }
    Path("small.yaml").write_text(yaml.safe_dump(config))
    # 10 steps: no warm-up (round(0.3)), decay 1 step; stable from 1 to 9
    main(["fit", "--config", "small.yaml", "--run_name", "whole"])
    whole = Path("runs/small/whole")
    assert len(list((whole / STATES).iterdir())) == 4  # 1, 2, 4 and 8
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    state = whole / STATES / "step=000008-pairs=32.ckpt"
    overlay = ["--config", str(ROOT / "configs/trainer/decay.yaml"), "--ckpt_path", str(state)]
    main(["fit", "--config", "small.yaml", *overlay, "--run_name", "decayed"])
    summary = json.loads(Path("runs/small/decayed/summary.json").read_text())
    # a tenth of all: floor(8 / 0.9) = 8, but at least one step
    assert (summary["status"], summary["optimizer_steps"]) == ("finished", 9)
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    # It goes on from its own last.ckpt, where nothing is left to do.
    last = Path("runs/small/decayed/checkpoints/last.ckpt")
    assert not DecayFromCheckpoint().branches_off(last) and DecayFromCheckpoint().branches_off(state)
    main(["fit", "--config", "small.yaml", *overlay, "--ckpt_path", str(last)])
    assert json.loads(Path("runs/small/decayed/summary.json").read_text())["optimizer_steps"] == 9
    resolved = yaml.safe_load(Path("runs/small/decayed/config.yaml").read_text())["trainer"]["callbacks"]
    names = [callback["class_path"].rpartition(".")[2] for callback in resolved]
    assert names == ["GeometricCheckpoints", "DecayFromCheckpoint"]
    # A run that was stopped in its stable phase stays as it is when its own last.ckpt is decayed.
    stopped = Path("runs/small/stopped/checkpoints/last.ckpt")
    stopped.parent.mkdir(parents=True)
    stopped.write_bytes(state.read_bytes())
    main(["fit", "--config", "small.yaml", *overlay[:2], "--ckpt_path", str(stopped), "--run_name", "from_last"])
    assert json.loads(Path("runs/small/from_last/summary.json").read_text())["optimizer_steps"] == 9
    assert [path for path in stopped.parents[1].rglob("*") if path.is_file()] == [stopped]


# --- wrong input ------------------------------------------------------------------------------------------------------


def refused(message: str, *arguments: Any, **settings: Any) -> None:
    with pytest.raises(UserError, match=message):
        Run(*arguments, **settings)


def test_a_decay_needs_a_checkpoint_of_the_stable_phase(whole: Run, policy: str, tmp_path: Path):
    branch, folder = DecayFromCheckpoint(), tmp_path / "branch"
    refused("DecayFromCheckpoint: give --ckpt_path a checkpoint of the stable phase", policy, folder, branch)
    for step in (1, 17):
        with pytest.raises(RuntimeError, match="on purpose"):
            Run(policy, folder, fail_at=step)
        message = f"step {step} is not in the stable phase, which is 2 to 15 of 20"
        refused(message, policy, folder, branch, checkpoint=folder / "stopped.ckpt")
    refused(
        "the decay would end at step 40, but the run ends at step 20: .* trainer.max_epochs",
        policy,
        folder,
        DecayFromCheckpoint(0.8),
        checkpoint=whole.state(8),
    )


def test_a_decay_does_not_overwrite_what_it_starts_from(whole: Run, policy: str, tmp_path: Path):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(whole.state(8).read_bytes())
    message = r"last\.ckpt is of the run in .*, where the decay would overwrite it"
    refused(message, policy, tmp_path / "run", DecayFromCheckpoint(0.5), checkpoint=last)
    assert Run(policy, tmp_path / "other", DecayFromCheckpoint(0.5), checkpoint=last).trainer.global_step == 16


def test_a_folder_of_shards_is_looked_at_no_further(tmp_path: Path):
    assert not DecayFromCheckpoint().branches_off(tmp_path)


def test_a_finished_run_has_nothing_left_to_decay(whole: Run, policy: str, tmp_path: Path):
    message = r"step=000008-pairs=32\.ckpt stands at step 8, the end of a run of 8"
    refused(message, policy, tmp_path / "run", DecayFromCheckpoint(), checkpoint=whole.state(8), max_steps=8)


def test_a_decay_needs_a_checkpoint_of_its_schedule(policy: str, tmp_path: Path):
    branch, folder = DecayFromCheckpoint(), tmp_path / "branch"
    for schedule, message in (
        (WarmupCosine, "model.scheduler: the checkpoint was trained with WarmupCosine, this run has WarmupStableDecay"),
        (None, "the checkpoint was trained without a schedule"),
    ):
        with pytest.raises(RuntimeError, match="on purpose"):
            Run(policy, folder, schedule=schedule, fail_at=8)
        refused(message, policy, folder, branch, checkpoint=folder / "stopped.ckpt")


@pytest.mark.parametrize("callback", [GeometricCheckpoints(), DecayFromCheckpoint()], ids=["states", "decay"])
def test_schedules_without_a_stable_phase_are_named(policy: str, tmp_path: Path, callback: Callback):
    needs = f"{type(callback).__name__} needs model.scheduler: WarmupStableDecay.*this run has"
    for schedule, has in ((WarmupCosine, "WarmupCosine"), (None, "none")):
        with pytest.raises(RuntimeError, match="on purpose"):
            Run(policy, tmp_path / "run", schedule=schedule, fail_at=4)
        stopped = tmp_path / "run" / "stopped.ckpt"
        refused(f"{needs} {has}", policy, tmp_path / "run", callback, schedule=schedule, checkpoint=stopped)


def test_a_run_without_any_such_step_is_refused_before_it_starts(policy: str, tmp_path: Path):
    message = "no step from 16 on lies in the stable phase of this run of 20 steps"
    refused(message, policy, tmp_path / "run", GeometricCheckpoints(first=16))
    assert not (tmp_path / "run" / STATES).exists()


def test_data_of_no_pairs_is_refused(policy: str, tmp_path: Path):
    path = tmp_path / "demonstrations.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", enable_checkpointing=False, max_epochs=9, callbacks=[GeometricCheckpoints()], **quiet
    )
    with pytest.raises(UserError, match="GeometricCheckpoints counts preference pairs, the data gives demonstrations"):
        trainer.fit(SFTModule(policy, scheduler=stable_decay), DemonstrationsDataModule(train=str(path)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeometricCheckpoints(ratio=1.0), r"ratio must be > 1 and finite, got 1\.0"),
        (lambda: GeometricCheckpoints(ratio=float("nan")), "ratio must be > 1 and finite, got nan"),
        (lambda: GeometricCheckpoints(first=0), "first must be >= 1, got 0"),
        (lambda: DecayFromCheckpoint(0.0), r"decay must be in \(0, 1\), got 0\.0"),
        (lambda: DecayFromCheckpoint(1.5), r"decay must be in \(0, 1\), got 1\.5"),
        (lambda: DecayFromCheckpoint(1.0), r"decay must be in \(0, 1\), got 1\.0"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()
