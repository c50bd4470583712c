"""DPOModule on a tiny random Llama, against plain transformers forward passes and losses written out by hand."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor
from torch.nn.functional import logsigmoid, relu
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM, PreTrainedModel

from lit_pref.data.batches.packing import collate_rows
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules import DemonstrationsDataModule, ExecutionPairsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import DPO, ChosenNLL, LikelihoodBudget, SimPO
from lit_pref.models import EMBEDDED_FOLDER, export_model, load_tokenizer
from lit_pref.modules import Compute, DPOModule, PMPretrainModule, RewardFinetuneModule, SFTModule, adamw
from lit_pref.modules.pairs import pair_logps
from lit_pref.modules.reference import Reference
from lit_pref.types import Outcome, PairLogps, PreferencePair, Problem, RowBatch, StepWeight, Task, Verdict
from tests.tiny import tiny_llama, trainer_for

PROMPTS = ["def add(a, b):\n", "# the largest of two numbers\n", "x = 1\ny = 2\nprint(", "def f(words):\n    return"]
CHOSEN = ["    return a + b", "max(a, b)", "x + y)", " sorted(words)", "    c = a + b\n    return c"]
REJECTED = ["    return a - b", "    return a", "y", " words[::-1]", "    pass"]
PAIRS = [
    PreferencePair(PROMPTS[i % 4], CHOSEN[i % 5] + " " * (i % 3), REJECTED[(i + i // 5) % 5] + ")" * (i % 4))
    for i in range(12)
]
BETA = 0.3


def pairs_file(folder: Path, pairs: list[PreferencePair] = PAIRS, name: str = "pairs") -> str:
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs_data(folder: Path, pairs: list[PreferencePair] = PAIRS, **settings: Any) -> PairsDataModule:
    return PairsDataModule(pairs_file(folder, pairs), **{"validation_size": 0.0, "batch_size": 4, **settings})


def sgd(lr: float) -> Any:
    return lambda params: torch.optim.SGD(params, lr=lr)


def dpo(policy: str, **settings: Any) -> DPOModule:
    return DPOModule(policy, **{"objective": DPO(BETA), "optimizer": sgd(0.01), "scheduler": None, **settings})


class Step(NamedTuple):
    """A training step: weights before it, gradients, what it logged, and which rows it saw."""

    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]
    logged: dict[str, float]
    rows: list[int]
    in_training_mode: bool


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: RowBatch, index: int) -> None:
        self.weights = {name: value.detach().clone() for name, value in module.model.state_dict().items()}
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: RowBatch, index: int
    ) -> None:
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
        mode = module.model.training
        self.steps.append(Step(self.weights, self.gradients, logged, batch.row_R.tolist(), mode))


def fit(module: DPOModule, data: Any, folder: Path, **settings: Any) -> list[Step]:
    recorder = Recorder()
    trainer_for(folder, recorder, **settings).fit(module, data)
    return recorder.steps


# --- the same by hand -------------------------------------------------------------------------------------------------


class Plain(NamedTuple):
    """What a plain forward pass gives of the tokens of each completion, in the order chosen, rejected, chosen, ..."""

    logps: list[Tensor]
    entropy: list[Tensor]
    correct: list[Tensor]
    tokens: int  # prompts included

    def sums(self) -> PairLogps:
        # Added up in fp64: at 80 nats the last bit of an fp32 sum is as large as the bounds below.
        sums = torch.stack([x.double().sum().float() for x in self.logps])
        lengths = torch.tensor([float(len(x)) for x in self.logps])
        return PairLogps(sums[0::2], sums[1::2], lengths[0::2], lengths[1::2])


def plain(model: PreTrainedModel, policy: str, pairs: list[PreferencePair] = PAIRS) -> Plain:
    """One completion at a time, unpadded, its tokens followed by EOS."""
    tokenizer, result, tokens = load_tokenizer(policy), Plain([], [], [], 0), 0
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            prompt, target = tokenizer(pair.prompt).input_ids, [*tokenizer(response).input_ids, 0]
            logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
            logps = logits.log_softmax(-1)
            result.logps.append(logps.gather(-1, torch.tensor(target)[:, None])[:, 0])
            result.entropy.append(-(logps.exp() * logps).sum(-1))
            result.correct.append((logits.argmax(-1) == torch.tensor(target)).float())
            tokens += len(prompt) + len(target)
    return result._replace(tokens=tokens)


def log_ratios(policy: PairLogps, start: PairLogps) -> tuple[Tensor, Tensor]:
    return policy.chosen - start.chosen, policy.rejected - start.rejected


def with_weights(weights: dict[str, Tensor]) -> LlamaForCausalLM:
    model = tiny_llama()
    model.load_state_dict(weights)
    return model


# --- scores and losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["shared", "repeated"])
def test_scores_equal_a_plain_forward_pass(policy: str, layout: Any):
    module = dpo(policy, compute=Compute(layout=layout))
    assert module.row_layout == layout
    trees = tokenize(PAIRS, module.tokenizer).trees
    batch = collate_rows("pair", [[tree] for tree in trees], range(len(PAIRS)), pad_id=1, shared=layout == "shared")
    scores, expected = module.score_completions(batch), plain(module.model, policy)
    torch.testing.assert_close(pair_logps(batch, scores.logps_K), expected.sums(), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.entropy_N, torch.cat(expected.entropy), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.hit_n.float(), torch.cat(expected.correct[0::2]))


def test_token_accuracy_is_that_of_chosen(policy: str, tmp_path: Path):
    # Trained to say what is chosen and not what is rejected, so that the sides differ.
    module = dpo(policy, regularizer=ChosenNLL(), optimizer=adamw(2e-2))
    trainer = trainer_for(tmp_path, max_epochs=15)
    trainer.fit(module, pairs_data(tmp_path, validation=pairs_file(tmp_path, PAIRS[:5], "held_out")))
    correct = plain(module.model, policy, PAIRS[:5]).correct
    of_chosen, of_rejected = torch.cat(correct[0::2]).mean().item(), torch.cat(correct[1::2]).mean().item()
    assert of_chosen > 0.8 > of_rejected
    assert trainer.callback_metrics["validation/mean_token_accuracy"].item() == pytest.approx(of_chosen, rel=1e-5)


def test_the_first_loss_is_log_2(policy: str, tmp_path: Path):
    # Policy and reference are one: each pair's loss is −log σ(0). Their sums come from batches of other shapes.
    first = fit(dpo(policy), pairs_data(tmp_path), tmp_path)[0]
    assert first.logged["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first.logged["train/rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_steps_equal_plain_dpo_with_a_budget(policy: str, tmp_path: Path):
    # All pairs in one batch; a budget of −0.5 demands a rise, so that the hinge pulls from the first step on.
    budget = LikelihoodBudget(budget=-0.5, weight=0.7)
    steps = fit(dpo(policy, regularizer=budget), pairs_data(tmp_path, batch_size=12), tmp_path, max_epochs=4)
    model = tiny_llama()
    start = PairLogps(*(value.detach() for value in plain(model, policy).sums()))
    assert len(steps) == 4
    for step in steps:
        model.zero_grad()
        chosen, rejected = log_ratios(plain(model, policy).sums(), start)
        loss = (-logsigmoid(BETA * (chosen - rejected)) + 0.7 * relu(0.5 - chosen)).mean()
        loss.backward()
        assert step.logged["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(step.gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)
            with torch.no_grad():
                parameter -= 0.01 * parameter.grad
    # it did not stand still: the ratios that went into the last loss
    assert chosen.abs().max() > 0.1


def test_a_budget_neither_costs_nor_pulls_before_the_first_step(policy: str, tmp_path: Path):
    plain_step, budget_step = (
        fit(dpo(policy, regularizer=regularizer), pairs_data(tmp_path, batch_size=12), tmp_path)[0]
        for regularizer in (None, LikelihoodBudget(budget=0.01, weight=100.0))
    )
    assert budget_step.logged["train/budget/penalty"] == 0
    assert budget_step.logged["train/budget/over"] == 0
    assert budget_step.logged["train/loss"] == plain_step.logged["train/loss"]
    for name, gradient in plain_step.gradients.items():
        assert torch.equal(budget_step.gradients[name], gradient)


def test_layouts_give_equal_steps(policy: str, tmp_path: Path):
    runs = [
        fit(dpo(policy, compute=Compute(layout=layout), cache_folder=tmp_path / layout), pairs_data(tmp_path), tmp_path)
        for layout in ("shared", "repeated")
    ]
    for shared, repeated in zip(*runs, strict=True):
        assert shared.rows == repeated.rows
        assert shared.logged["train/loss"] == pytest.approx(repeated.logged["train/loss"], abs=1e-5)
        assert shared.logged["train/num_tokens"] == repeated.logged["train/num_tokens"]
        for name, gradient in shared.gradients.items():
            torch.testing.assert_close(gradient, repeated.gradients[name], rtol=1e-4, atol=1e-5)


# --- what is logged ---------------------------------------------------------------------------------------------------

SHARED_NAMES = ["loss", "entropy", "mean_token_accuracy"]
REWARDS = ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"]
LOGPS = ["logps/chosen", "logps/rejected"]
BUDGET = ["logps/chosen_fall", "logps/rejected_fall", "budget/over", "budget/penalty"]


def test_a_training_step_logs_what_plain_forwards_give(policy: str, tmp_path: Path):
    module = dpo(policy, regularizer=LikelihoodBudget(budget=0.05, weight=2.0), optimizer=sgd(0.02))
    steps = fit(module, pairs_data(tmp_path, batch_size=12), tmp_path, max_epochs=3)
    logged = {name.removeprefix("train/"): value for name, value in steps[2].logged.items()}
    now, start = plain(with_weights(steps[2].weights), policy), plain(tiny_llama(), policy).sums()
    chosen, rejected = log_ratios(now.sums(), start)
    penalty = 2.0 * relu(-chosen - 0.05)
    expected = {
        "loss": (-logsigmoid(BETA * (chosen - rejected)) + penalty).mean(),
        "rewards/chosen": BETA * chosen.mean(),
        "rewards/rejected": BETA * rejected.mean(),
        "rewards/margins": BETA * (chosen - rejected).mean(),
        "rewards/accuracies": (chosen > rejected).float().mean(),
        "logps/chosen": now.sums().chosen.mean(),  # sums over tokens, averaged over pairs
        "logps/rejected": now.sums().rejected.mean(),
        "entropy": torch.cat(now.entropy).mean(),
        "mean_token_accuracy": torch.cat(now.correct[0::2]).mean(),
        "logps/chosen_fall": -chosen.mean(),
        "logps/rejected_fall": -rejected.mean(),
        "budget/over": (-chosen > 0.05).float().mean(),
        "budget/penalty": penalty.mean(),
        "grad_norm": torch.cat([gradient.flatten() for gradient in steps[2].gradients.values()]).norm(),
        "learning_rate": torch.tensor(0.02),
        "num_tokens": torch.tensor(3.0 * now.tokens),
    }
    assert logged.pop("tokens_per_second") > 0
    assert logged.keys() == expected.keys()
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name
    assert 0 < logged["budget/over"] < 1 and logged["rewards/accuracies"] > 0.5


def test_validation_means_are_over_pairs_and_tokens(policy: str, tmp_path: Path):
    # 5 pairs in batches of 2, 2 and 1, weighed alike.
    held_out = pairs_file(tmp_path, PAIRS[:5], "held_out")
    module = dpo(policy, regularizer=LikelihoodBudget(budget=0.05))
    data = pairs_data(tmp_path, validation=held_out, batch_size=2)
    trainer = trainer_for(tmp_path)
    trainer.fit(module, data)
    logged = {
        name.removeprefix("validation/"): x
        for name, x in trainer.callback_metrics.items()
        if name.startswith("validation")
    }
    now, start = plain(module.model, policy, PAIRS[:5]), plain(tiny_llama(), policy, PAIRS[:5]).sums()
    chosen, rejected = log_ratios(now.sums(), start)
    assert logged.keys() == {*SHARED_NAMES, *REWARDS, *LOGPS, *BUDGET}
    expected = {
        "loss": (-logsigmoid(BETA * (chosen - rejected)) + relu(-chosen - 0.05)).mean(),
        "rewards/margins": BETA * (chosen - rejected).mean(),
        "logps/rejected": now.sums().rejected.mean(),
        "logps/chosen_fall": -chosen.mean(),
        "entropy": torch.cat(now.entropy).mean(),
        "mean_token_accuracy": torch.cat(now.correct[0::2]).mean(),
    }
    for name, value in expected.items():
        assert logged[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name


def test_a_regularizer_without_a_reference_logs_its_own(policy: str, tmp_path: Path):
    step = fit(dpo(policy, regularizer=ChosenNLL()), pairs_data(tmp_path, batch_size=12), tmp_path)[0]
    logps = plain(tiny_llama(), policy).sums()
    nll = -(logps.chosen / logps.chosen_length).mean().item()
    assert step.logged["train/nll_loss"] == pytest.approx(nll, rel=1e-5)
    assert step.logged["train/loss"] == pytest.approx(math.log(2) + nll, rel=1e-5)


def test_simpo_needs_no_reference_and_scores_none(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("the reference was scored")

    monkeypatch.setattr(Reference, "_score", refuse)
    module = dpo(policy, objective=SimPO(beta=2.0, margin=0.5), cache_folder=tmp_path / "own")
    first = fit(module, pairs_data(tmp_path, batch_size=12), tmp_path)[0]
    logps = plain(tiny_llama(), policy).sums()
    gap = logps.chosen / logps.chosen_length - logps.rejected / logps.rejected_length
    assert first.logged["train/loss"] == pytest.approx(-logsigmoid(2.0 * gap - 0.5).mean().item(), rel=1e-5)
    # without a reference the reward is beta · log p
    assert first.logged["train/rewards/chosen"] == pytest.approx(2.0 * logps.chosen.mean().item(), rel=1e-5)
    assert not any(name.startswith("train/budget") for name in first.logged)
    assert not (tmp_path / "own").exists()


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_reduces_the_loss(policy: str, tmp_path: Path):
    steps = fit(dpo(policy, optimizer=adamw(1e-2)), pairs_data(tmp_path), tmp_path, max_epochs=10)
    assert len(steps) == 30
    assert sum(step.logged["train/loss"] for step in steps[-3:]) / 3 < 0.35  # from log 2 = 0.69
    assert [step.logged["train/rewards/accuracies"] for step in steps[-3:]] == [1.0] * 3


def test_equal_seeds_end_in_equal_weights(policy: str, tmp_path: Path):
    ends = []
    for run, seed in enumerate((1, 1, 2)):
        seed_everything(seed, verbose=False)
        module = dpo(policy, cache_folder=tmp_path / f"{run}")
        fit(module, pairs_data(tmp_path), tmp_path)
        ends.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])  # another order of the pairs


def test_the_default_schedule_spans_the_run(policy: str, tmp_path: Path):
    module = DPOModule(policy, DPO(BETA), optimizer=sgd(0.01))
    steps = fit(module, pairs_data(tmp_path), tmp_path, max_epochs=4)
    # 12 steps, 1.2 of them warm-up: the first at 1/2, then a cosine over the other 11.
    expected = [0.5, *(0.5 * (1 + math.cos(math.pi * k / 11)) for k in range(11))]
    assert [step.logged["train/learning_rate"] for step in steps] == pytest.approx([0.01 * x for x in expected])


def test_accumulated_batches_step_like_one(policy: str, tmp_path: Path):
    runs = []
    for batch_size, accumulate in ((12, 1), (3, 4)):
        module = dpo(policy)
        steps = fit(module, pairs_data(tmp_path, batch_size=batch_size), tmp_path, accumulate_grad_batches=accumulate)
        assert sum(bool(step.gradients) for step in steps) == 1
        runs.append(module.model.state_dict())
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=0, atol=1e-6)


def test_clipped_gradients_bound_the_step(policy: str, tmp_path: Path):
    module = dpo(policy, optimizer=sgd(1.0))
    (step,) = fit(module, pairs_data(tmp_path, batch_size=12), tmp_path, gradient_clip_val=0.01)
    moved = torch.cat([(x - step.weights[name]).flatten() for name, x in module.model.state_dict().items()])
    # plain SGD at rate 1 moves by the clipped gradient; what is logged is the norm before
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert step.logged["train/grad_norm"] > 0.1


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_the_argument_s_decision(tmp_path: Path, dropout: bool):
    policy = str(
        export_model(
            tiny_llama(attention_dropout=0.5), load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), tmp_path / "m"
        )
    )
    data = pairs_data(tmp_path, validation=pairs_file(tmp_path, PAIRS[:4], "held_out"))
    # Validation between the epochs must put the mode back.
    steps = fit(dpo(policy, dropout=dropout), data, tmp_path, max_epochs=2)
    assert [step.in_training_mode for step in steps] == [dropout] * 6
    moved_at_first = abs(steps[0].logged["train/loss"] - math.log(2)) > 1e-4
    assert moved_at_first == dropout  # with dropout, policy and reference differ from the start


def test_half_precision_runs_on_a_cpu(policy: str, tmp_path: Path):
    module = dpo(policy)
    steps = fit(module, pairs_data(tmp_path), tmp_path, precision="bf16-mixed")
    assert steps[0].logged["train/loss"] == pytest.approx(math.log(2), abs=0.02)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_a_checkpoint_is_plain_and_holds_one_model(policy: str, tmp_path: Path):
    module, trainer = dpo(policy), trainer_for(tmp_path)
    trainer.fit(module, pairs_data(tmp_path))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == {f"model.{name}" for name in tiny_llama().state_dict()}
    # every pair twice its prompt and its sides once, over one epoch
    assert checkpoint["lit_pref"]["num_tokens"] == plain(tiny_llama(), policy).tokens
    assert checkpoint["lit_pref"]["policy"] == policy


# --- what a notebook does ---------------------------------------------------------------------------------------------


class Parity(Task):
    """Passes completions of an even number of characters."""

    name = "parity"

    def problems(self, split: Any, count: int, seed: int) -> list[Problem]:
        return [Problem(f"{split}-{i}", f"# {split} {i}\n", "") for i in range(count)]

    def grade(self, problems: Any, completions: Any) -> list[Verdict]:
        return [Verdict(Outcome.FAILED if len(text) % 2 else Outcome.PASSED) for text in completions]


@pytest.fixture(scope="module")
def brief_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Writes single letters and ends soon: one direction of the stream is constant, and only 15 tokens follow it."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 10.0
        model.lm_head.weight[:, 0] = -3.0
        model.lm_head.weight[[0, *range(66, 80)], 0] = 1.0
    folder = tmp_path_factory.mktemp("policy") / "brief"
    return str(export_model(model, load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), folder))


def test_a_notebook_needs_no_seed(brief_policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PL_GLOBAL_SEED")
    data = ExecutionPairsDataModule(Parity(), train_size=6, validation_size=3, batch_size=2)
    module = DPOModule(brief_policy, DPO(BETA), optimizer=adamw(1e-3))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, data)
    assert trainer.global_step == -(-data.counts["train"]["pairs"] // 2) > 0
    assert {"train/loss", "validation/loss", "validation/rewards/margins"} <= trainer.callback_metrics.keys()


def plain_loader(module: DPOModule, pairs: list[PreferencePair], **settings: Any) -> DataLoader[Any]:
    def collated(rows: list[Any]) -> RowBatch:
        return collate_rows("pair", [[tree] for _, tree in rows], [number for number, _ in rows], pad_id=1)

    rows: Any = list(enumerate(tokenize(pairs, module.tokenizer).trees))
    return DataLoader(rows, batch_size=4, collate_fn=collated, **settings)


def test_plain_loaders_train_as_a_data_module_does(policy: str, tmp_path: Path):
    module, of_data = dpo(policy), []
    keep = LambdaCallback(on_train_batch_start=lambda trainer, module, batch, index: of_data.append(batch))
    trainer_for(tmp_path, keep).fit(module, pairs_data(tmp_path))
    other, trainer = dpo(policy), trainer_for(tmp_path)
    trainer.fit(other, DataLoader(of_data, batch_size=None), plain_loader(other, PAIRS[:5]))
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], value, rtol=0, atol=1e-6)
    now, start = plain(other.model, policy, PAIRS[:5]).sums(), plain(tiny_llama(), policy, PAIRS[:5]).sums()
    chosen, rejected = log_ratios(now, start)
    expected = -logsigmoid(BETA * (chosen - rejected)).mean().item()
    assert trainer.callback_metrics["validation/loss"].item() == pytest.approx(expected, abs=1e-5)


def test_a_data_module_s_loader_trains_without_it(policy: str, tmp_path: Path):
    data = pairs_data(tmp_path, policy=policy)
    data.setup("fit")
    module, recorder = dpo(policy), Recorder()
    trainer_for(tmp_path, recorder).fit(module, data.train_dataloader())
    assert [step.rows for step in recorder.steps] == [step.rows for step in fit(dpo(policy), data, tmp_path)]
    assert recorder.steps[0].logged["train/loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_a_shuffled_loader_is_scored_once_and_draws_as_it_would(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scored, score = [], Reference._score

    def counted(self: Reference, batches: Any) -> Any:
        made = score(self, batches)
        scored.append(len(made.key_K))
        return made

    monkeypatch.setattr(Reference, "_score", counted)
    rows = []
    for objective in (DPO(BETA), SimPO()):  # the second needs no reference
        seed_everything(5, verbose=False)
        module = dpo(policy, objective=objective)
        recorder = Recorder()
        trainer_for(tmp_path, recorder, max_epochs=2).fit(module, plain_loader(module, PAIRS, shuffle=True))
        rows.append([step.rows for step in recorder.steps])
    assert scored == [24] and rows[0] == rows[1] and rows[0][:3] != rows[0][3:]


def test_a_completion_that_was_never_scored_is_named(policy: str, tmp_path: Path):
    module = dpo(policy)
    first, second = (next(iter(plain_loader(module, pairs))) for pairs in (PAIRS[:4], PAIRS[4:8]))
    trainer_for(tmp_path).fit(module, DataLoader([first], batch_size=None))
    with pytest.raises(UserError, match=r"rows \[0, 1, 2, 3\] holds a completion whose reference was not scored"):
        module.training_step(second, 0)


def test_loaders_of_other_things_are_refused_with_the_mend(policy: str, tmp_path: Path):
    loader: Any = DataLoader([{"prompt": "a", "chosen": "b", "rejected": "c"}], batch_size=2)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="DPOModule takes batches of the kind pair, and is given dict: give it"):
        trainer_for(tmp_path).fit(dpo(policy), loader)


@pytest.mark.parametrize("objective", [DPO(), SimPO()])
def test_demonstrations_are_refused_with_the_mend(policy: str, tmp_path: Path, objective: Any):
    path = tmp_path / "demonstrations.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(UserError, match="DPOModule takes batches of the kind pair, and is given demonstration"):
        trainer_for(tmp_path).fit(dpo(policy, objective=objective), DemonstrationsDataModule(train=str(path)))


def test_a_second_fit_goes_on_against_the_same_start(policy: str, tmp_path: Path):
    module = dpo(policy)
    fit(module, pairs_data(tmp_path, batch_size=12), tmp_path)
    (second,) = fit(module, pairs_data(tmp_path, PAIRS[:7], batch_size=12), tmp_path)
    # Other pairs now: their reference is scored anew, under the weights from before the first fit.
    now = plain(with_weights(second.weights), policy, PAIRS[:7]).sums()
    chosen, rejected = log_ratios(now, plain(tiny_llama(), policy, PAIRS[:7]).sums())
    assert chosen.abs().max() > 1e-3
    assert second.logged["train/rewards/chosen"] == pytest.approx(BETA * chosen.mean().item(), abs=1e-5)
    expected = -logsigmoid(BETA * (chosen - rejected)).mean().item()
    assert second.logged["train/loss"] == pytest.approx(expected, abs=1e-5)


def test_a_log_prob_that_is_no_number_is_named_before_the_step(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = dpo(policy)
    logps = Reference.logps

    def spoilt(self: Reference, batch: RowBatch, policy_K: Tensor) -> Tensor:
        is_rejected_5_K = (batch.row_R == 5).repeat_interleave(2) & (batch.sibling_K == 1)
        return torch.where(is_rejected_5_K, -math.inf, logps(self, batch, policy_K))

    monkeypatch.setattr(Reference, "logps", spoilt)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    with pytest.raises(UserError, match="because the reference's log-prob of rejected of pair 5 is -inf"):
        fit(module, pairs_data(tmp_path, batch_size=12), tmp_path)
    assert all(torch.equal(p, start[name]) for name, p in module.named_parameters())


def weighed(batch: RowBatch, weight: float) -> RowBatch:
    return batch._replace(weight=StepWeight(weight, math.nan))


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_batch_of_another_weight_counts_so_and_is_logged_plainly(
    policy: str, tmp_path: Path, weight: float, monkeypatch: pytest.MonkeyPatch
):
    (plainly,) = fit(dpo(policy), pairs_data(tmp_path, batch_size=12), tmp_path)
    weigh = lambda self, batch, _: weighed(batch, weight)  # noqa: E731
    monkeypatch.setattr(PairsDataModule, "on_after_batch_transfer", weigh)
    (weighted,) = fit(dpo(policy), pairs_data(tmp_path, batch_size=12), tmp_path)
    assert plainly.logged["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert weighted.logged["train/loss"] == plainly.logged["train/loss"]
    for name, gradient in plainly.gradients.items():
        torch.testing.assert_close(weighted.gradients[name], weight * gradient, rtol=1e-5, atol=1e-8)


# --- two processes ----------------------------------------------------------------------------------------------------

DISTRIBUTED = """
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lit_pref.datamodules import DemonstrationsDataModule, ExecutionPairsDataModule, PairsDataModule, Samples
from lit_pref.losses import DPO
from lit_pref.modules.pairs import pair_logps
from lit_pref.modules.reference import Reference
from lit_pref.modules import DPOModule, PMPretrainModule, RewardFinetuneModule, SFTModule
from lit_pref.types import Outcome, Problem, Task, Verdict


class Parity(Task):
    name = "parity"

    def __init__(self):
        self.graded = 0

    def problems(self, split, count, seed):
        return [Problem(f"{split}-{i}", f"# {split} {i}\\n", "") for i in range(count)]

    def grade(self, problems, completions):
        self.graded += len(completions)
        return [Verdict(Outcome.FAILED if len(text) % 2 else Outcome.PASSED) for text in completions]


class Recorder(Callback):
    def __init__(self):
        self.rows, self.losses = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.rows.append(batch.row_R.tolist())
        self.losses.append(float(outputs["loss"]))


class CountingDPO(DPOModule):
    scored = ()

    def measured(self, batches, measure):
        rows = 0
        for batch, value in super().measured(batches, measure):
            rows += len(batch.row_R)
            yield batch, value
        self.scored += (rows,)


def trainer_with(*callbacks, **settings):
    return Trainer(
        accelerator="cpu", strategy="ddp", devices=2, max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=list(callbacks), num_sanity_val_steps=0,
        **settings,
    )


def ended(trainer, module):
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"metrics": metrics, "weights": {name: p.detach() for name, p in module.named_parameters()}}


def fit_uneven(module, data):
    trainer = trainer_with(accumulate_grad_batches=2)
    trainer.fit(module, data)
    fitted = ended(trainer, module)
    predicted = trainer.predict(module, data) if isinstance(data, PairsDataModule) else []
    return fitted | {"predicted": [row for batch in predicted for row in batch["row"].tolist()]}


def fit(policy, data):
    recorder = Recorder()
    trainer = trainer_with(recorder)
    module = CountingDPO(policy, DPO(0.3), optimizer=lambda params: torch.optim.SGD(params, lr=0.01), scheduler=None)
    cache = module.reference.cache
    saved, save = [], cache.save
    cache.save = lambda key, values: saved.append(save(key, values).name)
    trainer.fit(module, data)
    reference = {stage: [each.clone() for each in found] for stage, found in module.reference.scored.items()}
    made = {"scored": list(module.scored), "saved": saved, "reference": reference}
    return trainer, {"rows": recorder.rows, "losses": recorder.losses, **made, **ended(trainer, module)}


if __name__ == "__main__":
    folder, policy, pairs, held_out, uneven, odd, demonstrations = sys.argv[1:]
    seed_everything(3)
    task = Parity()
    trainer, of_pairs = fit(policy, PairsDataModule(pairs, validation=held_out, batch_size=2))
    _, again = fit(policy, PairsDataModule(pairs, validation=held_out, batch_size=2))
    sizes = {"train_size": 8, "validation_size": 4}
    _, of_execution = fit(policy, ExecutionPairsDataModule(task, **sizes))
    _, in_memory = fit(policy, ExecutionPairsDataModule(task, **sizes, samples=Samples(cache_folder=Path(pairs))))
    results = {"pairs": of_pairs, "again": again, "execution": of_execution, "in memory": in_memory}
    results["graded"] = task.graded
    settings = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.01), "scheduler": None}
    of_pairs = lambda: PairsDataModule(uneven, validation=odd, batch_size=2)
    results["DPO"] = fit_uneven(DPOModule(policy, DPO(0.3), **settings), of_pairs())
    results["reward"] = fit_uneven(RewardFinetuneModule(policy, **settings), of_pairs())
    results["PMP"] = fit_uneven(PMPretrainModule(policy, **settings), of_pairs())
    results["SFT of pairs"] = fit_uneven(SFTModule(policy, **settings), of_pairs())
    data = DemonstrationsDataModule(train=demonstrations, validation=demonstrations, batch_size=2)
    results["SFT"] = fit_uneven(SFTModule(policy, **settings), data)
    torch.save(results, Path(folder) / f"rank{trainer.global_rank}.pt")
"""


def uneven_files(folder: Path) -> list[str]:
    """Nine pairs, of which two processes get unlike numbers; five to hold out; the nine chosen as demonstrations."""
    rows = [{"prompt": pair.prompt, "completion": pair.chosen} for pair in PAIRS[:9]]
    demonstrations = folder / "demonstrations.jsonl"
    demonstrations.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [pairs_file(folder, PAIRS[:9], "uneven"), pairs_file(folder, PAIRS[7:12], "odd"), str(demonstrations)]


@pytest.fixture(scope="module")
def ranks(brief_policy: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "train.py"
    script.write_text(DISTRIBUTED)
    held_out = pairs_file(folder, PAIRS[:4], "held_out")
    arguments = [str(folder), brief_policy, pairs_file(folder), held_out, *uneven_files(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"}
    environment |= {"OMP_NUM_THREADS": "1", "LIT_PREF_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_train_as_one(ranks: list[dict[str, Any]], brief_policy: str, tmp_path: Path):
    first, second = (rank["pairs"] for rank in ranks)
    # 12 pairs in batches of 2: three steps each, no pair twice.
    assert len(first["rows"]) == len(second["rows"]) == 3
    assert sorted(row for rows in (*first["rows"], *second["rows"]) for row in rows) == list(range(12))
    assert [part["losses"][0] for part in (first, second)] == pytest.approx([math.log(2)] * 2, abs=1e-6)
    for name, value in first["weights"].items():
        assert torch.equal(second["weights"][name], value)
    # One process that averages the gradients of the same batches, two by two.
    seed_everything(3, verbose=False)
    module, trainer = dpo(brief_policy), trainer_for(tmp_path, accumulate_grad_batches=2)
    trainer.fit(module, pairs_data(tmp_path, validation=pairs_file(tmp_path, PAIRS[:4], "held_out"), batch_size=2))
    for name, value in module.named_parameters():
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=1e-6)
    for name in (
        "validation/loss",
        "validation/logps/chosen",
        "validation/rewards/margins",
        "validation/entropy",
        "train/num_tokens",
    ):
        assert first["metrics"][name] == pytest.approx(float(trainer.callback_metrics[name]), rel=1e-4, abs=1e-5), name

    assert module.reference is not None
    for stage, found in module.reference.scored.items():
        for part in (first, second):
            assert torch.equal(part["reference"][stage][0], found.key_K)
            torch.testing.assert_close(part["reference"][stage][1], found.logp_K, rtol=0, atol=1e-6)


METHODS = {
    "DPO": (DPOModule, {"objective": DPO(0.3)}),
    "reward": (RewardFinetuneModule, {}),
    "PMP": (PMPretrainModule, {}),
    "SFT of pairs": (SFTModule, {}),
    "SFT": (SFTModule, {}),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_row_counts_once_on_any_number_of_processes(
    ranks: list[dict[str, Any]], brief_policy: str, tmp_path: Path, method: str
):
    # Batches of 2: of nine rows five, three a process with one to spare; of five held-out ones three, two a process.
    seed_everything(3, verbose=False)
    uneven, odd, demonstrations = uneven_files(tmp_path)
    of_pairs = method != "SFT"
    data: Any = PairsDataModule(uneven, validation=odd, batch_size=2)
    if not of_pairs:
        data = DemonstrationsDataModule(train=demonstrations, validation=demonstrations, batch_size=2)
    kind, settings = METHODS[method]
    module = kind(brief_policy, **settings, optimizer=sgd(0.01), scheduler=None)
    trainer = trainer_for(tmp_path, accumulate_grad_batches=4)  # as many batches a step as 2 on each of 2
    trainer.fit(module, data)
    expected = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"train/loss", "validation/loss"} < expected.keys()
    for rank in ranks:
        found = rank[method]
        assert found["metrics"].keys() == expected.keys()
        for name, value in expected.items():
            if name != "train/tokens_per_second":
                # Rewards are differences of sums of some 80 nats, whose last bit is 7.6e-6 in fp32: two of them.
                assert found["metrics"][name] == pytest.approx(value, rel=1e-6, abs=1.6e-5), name
        for name, value in module.named_parameters():
            torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-6)
    predicted = [row for rank in ranks for row in rank[method]["predicted"]]
    assert sorted(predicted) == (list(range(5)) if of_pairs else [])


def test_two_processes_score_half_of_the_reference_each(ranks: list[dict[str, Any]]):
    # 12 training pairs in six batches of 2, 4 held-out ones in two.
    assert [rank["pairs"]["scored"] for rank in ranks] == [[6, 2], [6, 2]]
    assert [len(rank["pairs"]["saved"]) for rank in ranks] == [2, 0]  # the first process writes
    for rank in ranks:
        assert rank["again"]["scored"] == [] and rank["again"]["losses"] == rank["pairs"]["losses"]
        for stage, values in rank["again"]["reference"].items():
            assert all(map(torch.equal, values, ranks[0]["pairs"]["reference"][stage]))


@pytest.mark.parametrize("data", ["execution", "in memory"])
def test_of_two_processes_one_samples(ranks: list[dict[str, Any]], data: str):
    assert ranks[0]["graded"] > 0 and ranks[1]["graded"] == 0
    first, second = (rank[data] for rank in ranks)
    assert first["losses"] == ranks[0]["execution"]["losses"]  # whether the samples can be kept on the disk or not
    assert len(first["losses"]) == len(second["losses"]) > 0
    for name, value in first["weights"].items():
        assert torch.equal(second["weights"][name], value)
