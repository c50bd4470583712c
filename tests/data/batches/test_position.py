"""A run that is saved at any hook, in the middle of an accumulated step too, goes on as if it had not been stopped."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pref.callbacks import MetricsCSV
from lit_pref.datamodules import DemonstrationsDataModule
from lit_pref.errors import UserError
from lit_pref.models import EMBEDDED_FOLDER, export_model, load_tokenizer
from lit_pref.modules import SFTModule, WarmupCosine, adamw

SETTINGS: dict[str, dict[str, Any]] = {
    # 7 batches: steps after 4 and 7, validations after 2, 4 and 6.
    "accumulated": {"accumulate_grad_batches": 4, "val_check_interval": 2},
    "accumulated, no validation": {"accumulate_grad_batches": 3, "limit_val_batches": 0},
    "one validation an epoch": {},
    "every 4 batches": {"check_val_every_n_epoch": None, "val_check_interval": 4},
    "stops within an epoch": {"max_steps": 10, "max_epochs": 3},
}
HOOKS = (
    "on_train_epoch_start", "on_train_batch_start", "on_after_backward", "on_train_batch_end", "on_validation_start",
    "on_validation_batch_end", "on_validation_end", "on_train_epoch_end", "on_train_end",
)  # fmt: skip


class Saver(Callback):
    """Saves the run's state at every hook, as a callback that knows nothing of steps would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0


def _saving(hook: str) -> Callable[..., None]:
    def save(self: Saver, trainer: Trainer, module: LightningModule, *rest: Any) -> None:
        if trainer.global_step:
            trainer.save_checkpoint(self.folder / f"{self.count:03d}-{hook}.ckpt")
            self.count += 1

    return save


for _hook in HOOKS:
    setattr(Saver, _hook, _saving(_hook))


class Run(NamedTuple):
    weights: dict[str, Tensor]
    rows: list[dict[str, str]]
    tokens: int


class Whole(NamedTuple):
    run: Run
    settings: dict[str, Any]
    saved: list[Path]
    fit: Callable[..., Run]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    home = tmp_path_factory.mktemp("home")
    config = LlamaConfig(
        vocab_size=884, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, bos_token_id=None, eos_token_id=0, pad_token_id=1, attention_dropout=0.1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    policy = str(export_model(model, load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), home / "model"))
    rows = [{"prompt": f"# {i}\n", "completion": "x" * (1 + i % 5)} for i in range(20)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(folder: Path, checkpoint: Path | None = None, saver: Saver | None = None, **settings: Any) -> Run:
        data_settings = {name: settings.pop(name) for name in ("batch_size", "seed") if name in settings}
        seed_everything(3, verbose=False)
        scheduler = lambda optimizer: WarmupCosine(optimizer, warmup=0.2)  # noqa: E731
        module = SFTModule(policy=policy, optimizer=adamw(1e-2), scheduler=scheduler, dropout=True)
        source = str(home / "rows.jsonl")
        data = DemonstrationsDataModule(train=source, validation=source, **{"batch_size": 3, **data_settings})
        trainer = Trainer(
            accelerator="cpu", logger=MetricsCSV(folder), log_every_n_steps=1, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
            num_sanity_val_steps=0, callbacks=[] if saver is None else [saver],
            **{"max_epochs": 2, **settings},
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=checkpoint)
        return Run({name: x.clone() for name, x in module.state_dict().items()}, rows_of(folder), module.num_tokens)

    return run


def rows_of(folder: Path) -> list[dict[str, str]]:
    if not (folder / "metrics.csv").is_file():
        return []
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: x for name, x in row.items() if x and "per_second" not in name} for row in rows]


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, fit: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    run = fit(folder, None, Saver(folder), **SETTINGS[request.param])
    return Whole(run, SETTINGS[request.param], sorted(folder.glob("*.ckpt")), fit)


def goes_on(whole: Whole, checkpoint: Path, folder: Path) -> None:
    resumed = whole.fit(folder, checkpoint, **whole.settings)
    assert all(torch.equal(resumed.weights[name], value) for name, value in whole.run.weights.items())
    assert resumed.tokens == whole.run.tokens
    # Lightning logs a step after the hooks of its last batch; what a run had logged before stays in its file.
    assert resumed.rows == whole.run.rows[len(whole.run.rows) - len(resumed.rows) :]


@pytest.mark.parametrize("whole", ["accumulated"], indirect=True)
def test_saved_within_an_accumulated_step(whole: Whole, tmp_path: Path) -> None:
    """One step of two epochs is over; one batch of the next, a validation inside of it, and the epoch's end."""
    backward = [path for path in whole.saved if "after_backward" in path.name]
    validation = [path for path in whole.saved if "validation_batch_end" in path.name]
    ends = [path for path in whole.saved if "epoch_end" in path.name]
    for number, checkpoint in enumerate((backward[1], validation[-1], ends[0])):
        goes_on(whole, checkpoint, tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("whole", SETTINGS, indirect=True)
def test_saved_at_any_hook(whole: Whole, tmp_path: Path) -> None:
    assert len(whole.saved) > 20
    for number, checkpoint in enumerate(whole.saved):
        goes_on(whole, checkpoint, tmp_path / str(number))


@pytest.mark.parametrize("whole", ["accumulated"], indirect=True)
def test_another_order_within_an_epoch_is_refused_by_name(whole: Whole, tmp_path: Path) -> None:
    inside = next(path for path in whole.saved if "after_backward" in path.name)
    for changed, words in (
        ({"batch_size": 4}, "data.batch_size 3 there, 4 here"),
        ({"seed": 9}, "data.seed 3 there, 9 here"),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches 4 there, 2 here"),
    ):
        with pytest.raises(UserError, match=f"within epoch 0, after 4 batches.*{words}.*epoch's end"):
            whole.fit(tmp_path, inside, **{**whole.settings, **changed})
    assert not (tmp_path / "metrics.csv").exists()
    # At an epoch's end every row was seen once, and the next epoch may be cut otherwise.
    end = next(path for path in whole.saved if "epoch_end" in path.name)
    resumed = whole.fit(tmp_path, end, **{**whole.settings, "batch_size": 4})
    assert resumed.tokens == whole.run.tokens
