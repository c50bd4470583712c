"""SFTModule on a tiny random Llama, against plain transformers forward passes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor
from transformers import PreTrainedModel

from lit_pref.datamodules import DemonstrationsDataModule, PairsDataModule
from lit_pref.models import load_causal_lm, load_tokenizer
from lit_pref.modules import Compute, SFTModule, adamw

# Completions of 2, 12, 1, 5 and 3 characters: a mean over batches is not a mean over tokens.
ROWS = [
    {"prompt": f"# number {i}\n", "completion": text}
    for i, text in enumerate(["ab", "x = (1, 2, 3)", "y", "print", "sum"])
]
PAIR_ROWS = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "    pass" + "!" * i * i}
             for i, row in enumerate(ROWS)]  # fmt: skip


def written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def demonstrations(folder: Path, **settings: Any) -> DemonstrationsDataModule:
    return DemonstrationsDataModule(train=written(folder / "rows.jsonl", ROWS), **{"batch_size": 5, **settings})


def fitted(module: SFTModule, data: LightningDataModule, folder: Path, **settings: Any) -> dict[str, float]:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    trainer = Trainer(**(defaults | settings))
    trainer.fit(module, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def completion_nll(model: PreTrainedModel, policy: str, rows: list[dict[str, str]] = ROWS) -> list[Tensor]:
    """The negative log-prob of each token of each completion, EOS included; one unpadded forward pass a row."""
    tokenizer, result = load_tokenizer(policy), []
    for row in rows:
        prompt, target = tokenizer(row["prompt"]).input_ids, [*tokenizer(row["completion"]).input_ids, 0]
        logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        result.append(-logits.log_softmax(-1).gather(-1, torch.tensor(target)[:, None])[:, 0])
    return result


def module_of(policy: str, **settings: Any) -> SFTModule:
    optimizer = lambda params: torch.optim.SGD(params, lr=0.1)  # noqa: E731
    return SFTModule(policy, **{"optimizer": optimizer, "scheduler": None, **settings})


@pytest.mark.parametrize("layout", ["shared", "repeated"])
def test_a_step_is_one_on_the_mean_over_completion_tokens(policy: str, tmp_path: Path, layout: Any):
    module, by_hand = module_of(policy, compute=Compute(layout=layout)), load_causal_lm(policy)
    metrics = fitted(module, demonstrations(tmp_path), tmp_path)
    loss = torch.cat(completion_nll(by_hand, policy)).mean()
    loss.backward()
    assert metrics["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
    for name, parameter in by_hand.named_parameters():
        stepped = parameter.detach() - 0.1 * parameter.grad  # type: ignore[operator]
        torch.testing.assert_close(module.model.get_parameter(name).detach(), stepped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["demonstrations", "pairs"])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 4)])
def test_a_step_is_the_mean_over_its_tokens_however_it_is_accumulated(
    policy: str, tmp_path: Path, kind: str, batch_size: int, accumulate: int
):
    # Eight completions of 1 to 26 characters; by threes they are 3, 3 and 2, fewer than the 4 batches of a step.
    texts = ["y", "x = (1, 2, 3)", "print", "sum(x for x in words if x)", "ab", "a" * 12, "return", "0"]
    rows = [{"prompt": f"# number {i}\n", "completion": text} for i, text in enumerate(texts)]
    data: LightningDataModule
    if kind == "pairs":
        pair_rows = [
            {"prompt": r["prompt"], "chosen": r["completion"], "rejected": "no" * i} for i, r in enumerate(rows, 1)
        ]
        path = written(tmp_path / "pairs.jsonl", pair_rows)
        data = PairsDataModule(path, validation_size=0, batch_size=batch_size)
    else:
        data = DemonstrationsDataModule(train=written(tmp_path / "rows.jsonl", rows), batch_size=batch_size)
    at_rate_1 = lambda params: torch.optim.SGD(params, lr=1.0)  # noqa: E731
    module, by_hand = module_of(policy, optimizer=at_rate_1), load_causal_lm(policy)
    metrics = fitted(module, data, tmp_path, accumulate_grad_batches=accumulate)
    loss = torch.cat(completion_nll(by_hand, policy, rows)).mean()
    loss.backward()
    assert metrics["train/loss"] == pytest.approx(loss.item(), abs=1e-6)  # of the whole step, too
    for name, parameter in by_hand.named_parameters():
        stepped = parameter.detach() - parameter.grad  # type: ignore[operator]
        torch.testing.assert_close(module.model.get_parameter(name).detach(), stepped, rtol=0, atol=1e-6)


def test_of_pairs_only_chosen_is_imitated(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", PAIR_ROWS)
    of_pairs = module_of(policy)
    metrics = fitted(of_pairs, PairsDataModule(path, validation=path, batch_size=5), tmp_path)
    expected = torch.cat(completion_nll(load_causal_lm(policy), policy)).mean().item()
    assert metrics["train/loss"] == pytest.approx(expected, abs=1e-5)
    of_demonstrations = module_of(policy)
    fitted(of_demonstrations, demonstrations(tmp_path), tmp_path)
    for name, value in of_demonstrations.model.state_dict().items():
        torch.testing.assert_close(of_pairs.model.state_dict()[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["demonstrations", "pairs"])
def test_validation_loss_is_the_mean_over_all_tokens(policy: str, tmp_path: Path, kind: str):
    # 5 rows, shortest first, in batches of 2, 2 and 1.
    module = module_of(policy)
    data: LightningDataModule
    if kind == "pairs":
        path = written(tmp_path / "pairs.jsonl", PAIR_ROWS)
        data = PairsDataModule(path, validation=path, batch_size=2)
    else:
        data = demonstrations(tmp_path, validation=written(tmp_path / "held_out.jsonl", ROWS), batch_size=2)
    metrics = fitted(module, data, tmp_path)
    nll = completion_nll(module.model, policy)
    over_tokens, over_rows = torch.cat(nll).mean().item(), torch.stack([x.mean() for x in nll]).mean().item()
    assert abs(over_tokens - over_rows) > 0.01  # so that the difference would show
    assert metrics["validation/loss"] == pytest.approx(over_tokens, rel=1e-5)
    assert {
        "validation/entropy",
        "validation/mean_token_accuracy",
        "train/grad_norm",
        "train/num_tokens",
    } <= metrics.keys()


def test_training_learns_the_rows_by_heart(policy: str, tmp_path: Path):
    module = SFTModule(policy, optimizer=adamw(1e-2))
    metrics = fitted(module, demonstrations(tmp_path, batch_size=5), tmp_path, max_epochs=60)
    assert metrics["train/loss"] < 0.3  # from more than log 884 = 6.8
    assert metrics["train/mean_token_accuracy"] == 1.0


def test_tokens_are_counted_with_their_prompts(policy: str, tmp_path: Path):
    tokenizer = load_tokenizer(policy)
    tokens = sum(len(tokenizer(row["prompt"] + row["completion"]).input_ids) + 1 for row in ROWS)
    metrics = fitted(module_of(policy), demonstrations(tmp_path, batch_size=2), tmp_path, max_epochs=3)
    assert metrics["train/num_tokens"] == 3 * tokens


def flat(module: SFTModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_fresh_weights_follow_the_seed_of_the_run(policy: str):
    drawn = []
    for seed in (1, 1, 2):
        seed_everything(seed, verbose=False)
        torch.rand(3)  # what has been drawn before does not matter
        drawn.append(flat(SFTModule(policy, random_init=True)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], flat(SFTModule(policy)))


def test_fresh_weights_leave_the_random_state_alone(policy: str):
    seed_everything(1, verbose=False)
    expected = torch.rand(3)
    seed_everything(1, verbose=False)
    SFTModule(policy, random_init=True)
    assert torch.equal(torch.rand(3), expected)


def test_fresh_weights_of_the_configuration_know_nothing(policy: str, tmp_path: Path):
    # initializer_range 0.3 at width 16: logits of standard deviation about 0.3 · sqrt(16) = 1.2, so that the mean
    # loss lies about σ²/2 = 0.7 above that of a uniform guess
    module = module_of(policy, random_init=True)
    metrics = fitted(module, demonstrations(tmp_path), tmp_path)
    assert metrics["train/loss"] == pytest.approx(math.log(884) + 0.7, abs=0.7)
