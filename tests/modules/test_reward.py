"""RewardFinetuneModule on a tiny random Llama, against plain transformers forward passes of single sequences."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM

from lit_pref.callbacks import BeforeAfter
from lit_pref.cli.export import export
from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules import DemonstrationsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.evaluation import PairAccuracy
from lit_pref.losses import BradleyTerry
from lit_pref.models import LoRA, export_reward_model, load_tokenizer
from lit_pref.modules import Compute, RewardFinetuneModule, adamw
from lit_pref.modules.pairs import score_pairs
from lit_pref.types import PreferencePair, RowBatch, StepWeight
from tests.tiny import saved, tiny_llama, trainer_for

PROMPTS = ["def add(a, b):\n", "# the largest of two numbers\n", "x = 1\ny = 2\nprint(", "def f(words):\n    return"]
CHOSEN = ["    return a + b", "max(a, b)", "x + y)", " sorted(words)", "    c = a + b\n    return c"]
REJECTED = ["    return a - b", "    return a", "y", " words[::-1]", "    pass"]
PAIRS = [
    PreferencePair(PROMPTS[i % 4], CHOSEN[i % 5] + " " * (i % 3), REJECTED[(i + i // 5) % 5] + ")" * (i % 4), i / 8)
    for i in range(12)
]


def pairs_file(folder: Path, pairs: list[PreferencePair] = PAIRS, name: str = "pairs", margins: bool = False) -> str:
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    if margins:
        rows = [{**row, "margin": pair.margin} for row, pair in zip(rows, pairs, strict=True)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs_data(folder: Path, margins: bool = False, **settings: Any) -> PairsDataModule:
    path = pairs_file(folder, margins=margins)
    return PairsDataModule(path, **{"validation_size": 0.0, "batch_size": 12, **settings})


def sgd(lr: float) -> Any:
    return lambda params: torch.optim.SGD(params, lr=lr)


def reward(policy: str, **settings: Any) -> RewardFinetuneModule:
    return RewardFinetuneModule(policy, **{"head_std": 1.0, "optimizer": sgd(0.01), "scheduler": None, **settings})


class Recorder(Callback):
    """Gradients by parameter, and what each step logged."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.logged: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.logged.append({name: float(value) for name, value in trainer.logged_metrics.items()})


def fit(module: RewardFinetuneModule, data: Any, folder: Path, **settings: Any) -> Recorder:
    recorder = Recorder()
    trainer_for(folder, recorder, **settings).fit(module, data)
    return recorder


# --- the same by hand -------------------------------------------------------------------------------------------------


def plain_scores(
    model: LlamaForCausalLM, weight: Tensor, policy: str, pairs: list[PreferencePair] = PAIRS
) -> tuple[Tensor, Tensor]:
    """Of chosen and of rejected, [P] each: one unpadded sequence at a time, EOS behind it, read at its last token."""
    tokenizer, sides = load_tokenizer(policy), ([], [])
    for pair in pairs:
        for side, response in zip(sides, (pair.chosen, pair.rejected), strict=True):
            ids = [*tokenizer(pair.prompt).input_ids, *tokenizer(response).input_ids, 0]
            side.append(model.model(torch.tensor([ids])).last_hidden_state[0, -1] @ weight[0])
    return torch.stack(sides[0]), torch.stack(sides[1])


def batch_of(module: RewardFinetuneModule, layout: Any) -> RowBatch:
    trees = tokenize(PAIRS, module.tokenizer).trees
    return collate_rows("pair", lay_out(trees, layout), range(len(PAIRS)), pad_id=1, shared=layout != "repeated")


# --- scores and losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "shared", "repeated"])
def test_scores_equal_those_of_plain_forwards(policy: str, layout: Any):
    module = reward(policy)
    rewards = module.reward_pairs(batch_of(module, layout))
    expected = plain_scores(tiny_llama(), module.score_head.weight, policy)
    torch.testing.assert_close(tuple(rewards), expected, rtol=2e-5, atol=1e-5)
    assert expected[0].std() > 0.5  # so that another place of reading would show


def test_no_logits_are_made(policy: str):
    module, calls = reward(policy), []
    module.model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    module.reward_pairs(batch_of(module, "shared"))
    assert calls == []
    score_pairs(module, batch_of(module, "shared"))  # the control: what needs logits does call it
    assert calls


def test_scores_are_read_by_place_also_where_padding_is_the_end(policy: str):
    # As with a tokenizer without a pad token, whose EOS then pads.
    module = reward(policy)
    trees = tokenize(PAIRS, module.tokenizer).trees
    batch = collate_rows("pair", [[tree] for tree in trees], range(len(PAIRS)), pad_id=0)
    assert torch.equal(
        torch.stack(module.reward_pairs(batch)), torch.stack(module.reward_pairs(batch_of(module, "shared")))
    )


@pytest.mark.parametrize("layout", ["auto", "repeated"])
@pytest.mark.parametrize("tied", [False, True])
def test_steps_equal_plain_bradley_terry(tmp_path: Path, layout: Any, tied: bool):
    seed_everything(0, verbose=False)  # of the head, which is large here: what ran before would decide on it
    policy = saved(tmp_path / "m", tiny_llama(tie_word_embeddings=tied))
    loss = BradleyTerry(centering=0.05, use_margin=True)
    module = reward(policy, loss=loss, compute=Compute(layout=layout), optimizer=sgd(1e-3))
    model, weight = tiny_llama(tie_word_embeddings=tied), module.score_head.weight.detach().clone().requires_grad_()
    margin = torch.tensor([pair.margin for pair in PAIRS])
    steps = fit(module, pairs_data(tmp_path, margins=True), tmp_path, max_epochs=3)
    assert len(steps.logged) == 3
    for logged, gradients in zip(steps.logged, steps.gradients, strict=True):
        model.zero_grad()
        weight.grad = None
        chosen, rejected = plain_scores(model, weight, policy)
        expected = (-logsigmoid(chosen - rejected - margin) + 0.05 * (chosen + rejected).square()).mean()
        expected.backward()
        assert logged["train/loss"] == pytest.approx(expected.item(), abs=1e-5)
        by_hand = {f"model.{name}": p for name, p in model.named_parameters() if p.grad is not None}
        by_hand["score_head.weight"] = weight
        assert gradients.keys() == by_hand.keys()
        for name, parameter in by_hand.items():
            off = (gradients[name] - parameter.grad).abs().max() / parameter.grad.abs().max()
            assert off < 1e-4, f"{name}: off by {off} of its largest"
            with torch.no_grad():
                parameter -= 1e-3 * parameter.grad


def test_batches_of_any_size_step_like_one(policy: str, tmp_path: Path):
    # 12 pairs as one batch, and as 5, 5 and 2 weighed by their pairs
    module = reward(policy)
    trees = tokenize(PAIRS, module.tokenizer).trees
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    whole = module.training_step(batch_of(module, "shared"), 0)
    parts = []
    for rows in (range(5), range(5, 10), range(10, 12)):
        batch = collate_rows("pair", [[trees[row]] for row in rows], rows, pad_id=1)
        weight = StepWeight(3 * len(rows) / 12, math.nan)
        parts.append(module.training_step(batch._replace(weight=weight), 0))
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_margins_that_are_not_asked_for_are_not_looked_at(policy: str, tmp_path: Path):
    plain, given = (
        fit(reward(policy), pairs_data(tmp_path, margins=margins), tmp_path).logged[0]["train/loss"]
        for margins in (False, True)
    )
    assert plain == given


def test_margins_that_are_missing_are_named_with_the_mend(policy: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"model.loss.use_margin: .*the data gives none: add a `margin`"):
        fit(reward(policy, loss=BradleyTerry(use_margin=True)), pairs_data(tmp_path), tmp_path)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_margin_that_is_no_number_is_named_before_the_step(
    policy: str, tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
):
    def spoilt(self: PairsDataModule, batch: RowBatch, _: int) -> RowBatch:
        return batch._replace(value_R=torch.where(batch.row_R == 7, float(value), 0.0))

    monkeypatch.setattr(PairsDataModule, "on_after_batch_transfer", spoilt)
    module = reward(policy, loss=BradleyTerry(use_margin=True))
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    with pytest.raises(UserError, match=f"because the margin of pair 7 is {value}; expected a finite number"):
        fit(module, pairs_data(tmp_path, batch_size=12), tmp_path)
    assert all(torch.equal(p, start[name]) for name, p in module.named_parameters())


def test_a_score_that_is_no_number_is_named_before_the_step(policy: str, tmp_path: Path):
    module = reward(policy)
    with torch.no_grad():
        module.score_head.weight[0, 0] = math.inf
    with pytest.raises(UserError, match=r"the loss is nan, because the score of chosen of pair .* is (nan|-?inf)"):
        fit(module, pairs_data(tmp_path), tmp_path)


def test_demonstrations_are_refused_with_the_mend(policy: str, tmp_path: Path):
    path = tmp_path / "demonstrations.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(
        UserError, match="RewardFinetuneModule takes batches of the kind pair, and is given demonstration"
    ):
        trainer_for(tmp_path).fit(reward(policy), DemonstrationsDataModule(train=str(path)))


# --- what is logged and predicted -------------------------------------------------------------------------------------


def figures(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    both = torch.cat([chosen, rejected])
    values = {
        "loss": -logsigmoid(chosen - rejected).mean(),
        "accuracy": (chosen > rejected).float().mean(),
        "margin": (chosen - rejected).mean(),
        "min_reward": both.min(),
        "mean_reward": both.mean(),
        "max_reward": both.max(),
    }
    return {name: value.item() for name, value in values.items()}


def test_a_training_step_logs_what_plain_forwards_give(policy: str, tmp_path: Path):
    module = reward(policy, optimizer=sgd(0.02))
    weight = module.score_head.weight.detach().clone()
    steps = fit(module, pairs_data(tmp_path), tmp_path, max_epochs=2)
    logged = {name.removeprefix("train/"): value for name, value in steps.logged[0].items()}
    tokenizer = load_tokenizer(policy)
    texts = [text for pair in PAIRS for text in (pair.prompt, pair.chosen, pair.prompt, pair.rejected)]
    norm = torch.cat([gradient.flatten() for gradient in steps.gradients[0].values()]).norm()
    expected = figures(*plain_scores(tiny_llama(), weight, policy)) | {
        "grad_norm": norm.item(),
        "learning_rate": 0.02,
        "num_tokens": sum(len(tokenizer(text).input_ids) for text in texts) + 2 * len(PAIRS),  # EOS
    }
    assert steps.logged[1]["train/tokens_per_second"] > 0  # that of the first: it is known once a step is over
    assert logged.keys() == expected.keys()
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert 0 < logged["accuracy"] < 1


def test_validation_means_are_over_pairs_and_extremes_over_all(policy: str, tmp_path: Path):
    # 5 pairs in batches of 2, 2 and 1, weighed alike.
    held_out = pairs_file(tmp_path, PAIRS[:5], "held_out")
    module, trainer = reward(policy), trainer_for(tmp_path)
    trainer.fit(module, pairs_data(tmp_path, validation=held_out, batch_size=2))
    logged = {
        name.removeprefix("validation/"): x
        for name, x in trainer.callback_metrics.items()
        if name.startswith("validation")
    }
    expected = figures(*plain_scores(module.model, module.score_head.weight, policy, PAIRS[:5]))
    assert logged.keys() == expected.keys()
    for name, value in expected.items():
        assert logged[name].item() == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_predictions_are_scores_by_row(policy: str, tmp_path: Path):
    module = reward(policy)
    data = pairs_data(tmp_path, validation=pairs_file(tmp_path, PAIRS[:5], "held_out"), batch_size=2)
    batches: Any = trainer_for(tmp_path).predict(module, data)
    columns = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    assert columns.keys() == {"row", "score_chosen", "score_rejected", "margin"}
    order = columns["row"].argsort()
    chosen, rejected = plain_scores(tiny_llama(), module.score_head.weight.detach(), policy, PAIRS[:5])
    for name, expected in (("score_chosen", chosen), ("score_rejected", rejected), ("margin", chosen - rejected)):
        torch.testing.assert_close(columns[name][order], expected.detach(), rtol=2e-5, atol=1e-5)


def test_held_out_accuracy_before_and_after_is_that_of_scores(policy: str, tmp_path: Path):
    module, table = reward(policy, optimizer=adamw(3e-3)), BeforeAfter([PairAccuracy()])
    start = copy.deepcopy(module.score_head.weight.detach())
    path = pairs_file(tmp_path)
    trainer_for(tmp_path, table, max_epochs=15).fit(module, pairs_data(tmp_path, validation=path))
    states = ((table.before, tiny_llama(), start), (table.after, module.model, module.score_head.weight))
    for shown, model, weight in states:
        chosen, rejected = plain_scores(model, weight, policy)
        assert shown.keys() == {"pair_accuracy", "nll", "margin", "score_chosen", "score_rejected"}
        assert shown["pair_accuracy"].tolist() == (chosen > rejected).float().tolist()
        torch.testing.assert_close(shown["score_chosen"], chosen.detach(), rtol=0, atol=1e-4)
        torch.testing.assert_close(shown["margin"], (chosen - rejected).detach(), rtol=0, atol=1e-4)
    assert table.after["pair_accuracy"].mean() == 1.0 > table.before["pair_accuracy"].mean()


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_orders_the_pairs(policy: str, tmp_path: Path):
    steps = fit(reward(policy, optimizer=adamw(1e-2)), pairs_data(tmp_path, batch_size=4), tmp_path, max_epochs=10)
    assert sum(step["train/loss"] for step in steps.logged[-3:]) / 3 < 0.1
    assert [step["train/accuracy"] for step in steps.logged[-3:]] == [1.0] * 3


def test_a_head_of_zeros_starts_at_log_2(policy: str, tmp_path: Path):
    steps = fit(reward(policy, head_std=0.0), pairs_data(tmp_path), tmp_path)
    assert steps.logged[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert steps.logged[0]["train/accuracy"] == 0.0  # ties
    # nothing flows through a head of zeros
    assert all(not g.any() for name, g in steps.gradients[0].items() if name != "score_head.weight")
    assert steps.gradients[0]["score_head.weight"].any()


def test_a_fresh_head_follows_the_seed_of_the_run(policy: str):
    drawn = []
    for seed in (1, 1, 2):
        seed_everything(seed, verbose=False)
        torch.rand(3)  # what has been drawn before does not matter
        drawn.append(RewardFinetuneModule(policy).score_head.weight)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_the_argument_s_decision(tmp_path: Path, dropout: bool):
    policy = saved(tmp_path / "m", tiny_llama(attention_dropout=0.5))
    module = reward(policy, dropout=dropout)
    expected = figures(*plain_scores(tiny_llama().eval(), module.score_head.weight, policy))
    steps = fit(module, pairs_data(tmp_path), tmp_path)
    assert (abs(steps.logged[0]["train/mean_reward"] - expected["mean_reward"]) > 1e-3) == dropout


def test_half_precision_runs_on_a_cpu_and_scores_in_fp32(policy: str, tmp_path: Path):
    module = reward(policy)
    expected = figures(*plain_scores(tiny_llama(), module.score_head.weight.detach().clone(), policy))
    steps = fit(module, pairs_data(tmp_path), tmp_path, precision="bf16-mixed")
    assert steps.logged[0]["train/loss"] == pytest.approx(expected["loss"], abs=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.rewards(batch_of(module, "shared").trees).dtype == torch.float32


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_plain_and_holds_the_head(policy: str, tmp_path: Path):
    module, trainer = reward(policy), trainer_for(tmp_path)
    trainer.fit(module, pairs_data(tmp_path))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert state.keys() == {"score_head.weight"} | {f"model.{name}" for name in tiny_llama().state_dict()}
    assert torch.equal(state["score_head.weight"], module.score_head.weight)


def test_a_checkpoint_of_an_adapter_holds_the_head_and_goes_on(policy: str, tmp_path: Path):
    pytest.importorskip("peft")
    module, trainer = reward(policy, adapter=LoRA(r=2)), trainer_for(tmp_path)
    trainer.fit(module, pairs_data(tmp_path))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert "score_head.weight" in state
    assert all("lora" in name for name in state.keys() - {"score_head.weight"}) and len(state) > 1
    seed_everything(5, verbose=False)
    other = reward(policy, adapter=LoRA(r=2))
    assert not torch.equal(other.score_head.weight, module.score_head.weight)
    trainer_for(tmp_path, max_epochs=1).validate(
        other, pairs_data(tmp_path, validation=pairs_file(tmp_path)), str(tmp_path / "last.ckpt"), weights_only=True
    )
    batch = batch_of(module, "shared")
    torch.testing.assert_close(other.reward_pairs(batch), module.reward_pairs(batch))


def test_a_trained_reward_model_opens_in_transformers_and_is_carried_over(tmp_path: Path):
    policy = saved(tmp_path / "m", tiny_llama(tie_word_embeddings=True))
    module = reward(policy, optimizer=adamw(1e-2))
    fit(module, pairs_data(tmp_path), tmp_path, max_epochs=3)
    folder = export_reward_model(module.model, module.score_head, module.tokenizer, tmp_path / "reward")
    rewards = torch.stack(module.reward_pairs(batch_of(module, "shared")))
    opened = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer, theirs = load_tokenizer(str(folder)), []
    for pair in PAIRS:
        ids = [[*tokenizer(pair.prompt).input_ids, *tokenizer(x).input_ids, 0] for x in (pair.chosen, pair.rejected)]
        theirs.append(opened(**tokenizer.pad({"input_ids": ids}, return_tensors="pt")).logits.squeeze(-1))
    torch.testing.assert_close(rewards, torch.stack(theirs, 1), rtol=2e-5, atol=1e-5)
    again = reward(str(folder))
    torch.testing.assert_close(torch.stack(again.reward_pairs(batch_of(again, "shared"))), rewards, rtol=0, atol=1e-6)
    fresh = reward(str(folder), fresh_head=True)
    assert not torch.equal(fresh.score_head.weight, again.score_head.weight)


@pytest.mark.parametrize("adapter", [None, LoRA(r=2)], ids=["all weights", "adapter"])
def test_a_checkpoint_exports_as_a_classifier_of_the_same_scores(tmp_path: Path, adapter: LoRA | None):
    policy = saved(tmp_path / "m", tiny_llama())
    module = reward(policy, adapter=adapter, optimizer=adamw(1e-2))
    fit(module, pairs_data(tmp_path), tmp_path, max_epochs=2)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    export(tmp_path / "last.ckpt", tmp_path / "reward")
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    again = reward(str(tmp_path / "reward"))
    torch.testing.assert_close(opened.score.weight, module.score_head.weight)
    batch = batch_of(module, "shared")
    torch.testing.assert_close(
        torch.stack(again.reward_pairs(batch)), torch.stack(module.reward_pairs(batch)), rtol=2e-5, atol=1e-5
    )
    with pytest.raises(UserError, match="is a reward model, whose head would be lost"):
        export(tmp_path / "last.ckpt", tmp_path / "other", adapter_only=True)
