"""PMPretrainModule on a tiny random Llama, against plain transformers forward passes of single sequences."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM

from lit_pref.cli.export import export
from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules import DemonstrationsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import BradleyTerry
from lit_pref.models import EMBEDDED_FOLDER, LoRA, load_tokenizer
from lit_pref.modules import Compute, PMPretrainModule, RewardFinetuneModule, adamw
from lit_pref.types import PreferencePair, RowBatch
from tests.tiny import saved, tiny_llama, trainer_for

EOS = 0
PROMPTS = ["# the sum\ndef solve(a, b):\n", "# the largest of two numbers\n", "# x twice\ndef solve(x):\n", "# words"]
CHOSEN = ["    return a + b", "max(a, b)", "    return 2 * x", " sorted(words)", "    c = a + b\n    return c"]
REJECTED = ["    return a - b", "    return a", "x", " words[::-1]", "    pass"]
PAIRS = [
    PreferencePair(PROMPTS[i % 4], CHOSEN[i % 5] + " " * (i % 3), REJECTED[(i + i // 5) % 5] + ")" * (i % 4))
    for i in range(10)
]


@pytest.fixture(scope="module")
def tied_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("tied") / "model", tiny_llama(tie_word_embeddings=True))


def pairs_data(folder: Path, **settings: Any) -> PairsDataModule:
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in PAIRS]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PairsDataModule(str(path), **{"validation_size": 0.0, "batch_size": len(PAIRS), "seed": 1, **settings})


def sgd(lr: float) -> Any:
    return lambda params: torch.optim.SGD(params, lr=lr)


def pmp(policy: str, **settings: Any) -> PMPretrainModule:
    return PMPretrainModule(policy, **{"head_std": 1.0, "optimizer": sgd(0.01), "scheduler": None, **settings})


class Recorder(Callback):
    """Gradients by parameter, and what each step logged."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.logged: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.logged.append({name: float(value) for name, value in trainer.logged_metrics.items()})


def fit(module: LightningModule, data: Any, folder: Path, **settings: Any) -> Recorder:
    recorder = Recorder()
    trainer_for(folder, recorder, **settings).fit(module, data)
    return recorder


def batch_of(module: Any, layout: Any = "shared") -> RowBatch:
    trees = tokenize(PAIRS, module.tokenizer, append_eos=module.append_eos).trees
    return collate_rows("pair", lay_out(trees, layout), range(len(PAIRS)), pad_id=1, shared=layout != "repeated")


def scores_of(module: Any) -> Tensor:
    """Of chosen and of rejected, [2, P]."""
    return torch.stack(module.reward_pairs(batch_of(module))).detach()


# --- the same by hand -------------------------------------------------------------------------------------------------


class Plain(NamedTuple):
    """Scores of both sides, [P] each, and the LM loss of chosen, a scalar."""

    chosen: Tensor
    rejected: Tensor
    lm_loss: Tensor

    @property
    def rm_loss(self) -> Tensor:
        return -logsigmoid(self.chosen - self.rejected).mean()


def plain(model: LlamaForCausalLM, weight: Tensor, append_eos: bool = False) -> Plain:
    """One unpadded sequence at a time: the score at its last token, the cross-entropy of what follows the prompt."""
    tokenizer = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))
    end = [EOS] if append_eos else []
    scores, nlls = ([], []), []
    for pair in PAIRS:
        prompt = tokenizer(pair.prompt).input_ids
        for side, response in enumerate((pair.chosen, pair.rejected)):
            ids = torch.tensor([[*prompt, *tokenizer(response).input_ids, *end]])
            hidden = model.model(ids).last_hidden_state[0]
            scores[side].append(hidden[-1] @ weight[0])
            if side == 0:  # the token at place t is predicted at t - 1
                logits = model.lm_head(hidden[len(prompt) - 1 : -1])
                nlls.append(cross_entropy(logits, ids[0, len(prompt) :], reduction="none"))
    return Plain(torch.stack(scores[0]), torch.stack(scores[1]), torch.cat(nlls).mean())


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "shared", "repeated"])
@pytest.mark.parametrize("append_eos", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_steps_equal_plain_forwards(request: Any, tmp_path: Path, layout: Any, append_eos: bool, tied: bool):
    start = request.getfixturevalue("tied_policy" if tied else "policy")
    # Weights that are no power of 2, so that one in the wrong place shows
    coefs = {"rm_coef": 0.7, "lm_coef": 0.3}
    module = pmp(start, **coefs, append_eos=append_eos, compute=Compute(layout=layout), optimizer=sgd(1e-3))
    model, weight = tiny_llama(tie_word_embeddings=tied), module.score_head.weight.detach().clone().requires_grad_()
    steps = fit(module, pairs_data(tmp_path), tmp_path, max_epochs=2)
    assert len(steps.logged) == 2
    for logged, gradients in zip(steps.logged, steps.gradients, strict=True):
        model.zero_grad()
        weight.grad = None
        by_hand = plain(model, weight, append_eos)
        expected = 0.7 * by_hand.rm_loss + 0.3 * by_hand.lm_loss
        expected.backward()
        assert logged["train/loss"] == pytest.approx(expected.item(), abs=1e-5)
        assert logged["train/rm_loss"] == pytest.approx(by_hand.rm_loss.item(), abs=1e-5)
        assert logged["train/lm_loss"] == pytest.approx(by_hand.lm_loss.item(), abs=1e-5)
        parameters = {f"model.{name}": p for name, p in model.named_parameters()} | {"score_head.weight": weight}
        assert gradients.keys() == parameters.keys()
        for name, parameter in parameters.items():
            off = (gradients[name] - parameter.grad).abs().max() / parameter.grad.abs().max()
            assert off < 1e-4, f"{name}: off by {off} of its largest"
            with torch.no_grad():
                parameter -= 1e-3 * parameter.grad


def test_the_lm_loss_is_a_mean_over_tokens_in_nats(policy: str, tmp_path: Path):
    # An LM head of zeros gives each of the 884 tokens the same probability.
    module = pmp(policy)
    with torch.no_grad():
        module.model.lm_head.weight.zero_()
    steps = fit(module, pairs_data(tmp_path), tmp_path)
    assert steps.logged[0]["train/lm_loss"] == pytest.approx(math.log(884), rel=1e-6)


def test_without_lm_coef_it_is_reward_finetuning(policy: str, tmp_path: Path):
    settings = {"append_eos": False, "head_std": 1.0, "optimizer": sgd(0.01), "scheduler": None}
    ours = fit(PMPretrainModule(policy, lm_coef=0.0, **settings), pairs_data(tmp_path), tmp_path, max_epochs=2)
    theirs = fit(RewardFinetuneModule(policy, **settings), pairs_data(tmp_path), tmp_path, max_epochs=2)
    for one, other in zip(ours.logged, theirs.logged, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], abs=1e-6)
        assert "train/lm_loss" not in one and one["train/rm_loss"] == one["train/loss"]
    assert ours.gradients[0].keys() == theirs.gradients[0].keys()
    assert "model.lm_head.weight" not in ours.gradients[0] and "score_head.weight" in ours.gradients[0]
    for name, gradient in ours.gradients[0].items():
        torch.testing.assert_close(gradient, theirs.gradients[0][name], rtol=1e-5, atol=1e-7)


def test_without_lm_coef_embeddings_that_are_tied_to_the_lm_head_still_train(tied_policy: str, tmp_path: Path):
    steps = fit(pmp(tied_policy, lm_coef=0.0), pairs_data(tmp_path), tmp_path)
    assert steps.gradients[0]["model.model.embed_tokens.weight"].any()


def test_without_rm_coef_only_the_language_model_trains(policy: str, tmp_path: Path):
    module = pmp(policy, rm_coef=0.0)
    start = module.score_head.weight.detach().clone()
    by_hand = plain(tiny_llama(), start)
    steps = fit(module, pairs_data(tmp_path), tmp_path)
    assert steps.logged[0]["train/loss"] == pytest.approx(by_hand.lm_loss.item(), abs=1e-5)
    assert steps.logged[0]["train/rm_loss"] == pytest.approx(by_hand.rm_loss.item(), abs=1e-5)  # shown all the same
    assert torch.equal(module.score_head.weight, start)
    assert steps.gradients[0]["model.lm_head.weight"].any()


def test_margins_are_the_loss_s_decision(policy: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"model.loss.use_margin: .*the data gives none"):
        fit(pmp(policy, loss=BradleyTerry(use_margin=True)), pairs_data(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("coefs", "message"),
    [
        ({"rm_coef": -1.0}, r"rm_coef must be >= 0, got -1\.0"),
        ({"lm_coef": -0.5}, r"lm_coef must be >= 0, got -0\.5"),
        ({"lm_coef": float("nan")}, "lm_coef must be >= 0, got nan"),
        ({"rm_coef": 0.0, "lm_coef": 0.0}, "both 0: there is nothing to train"),
    ],
)
def test_impossible_weights_are_refused(policy: str, coefs: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        pmp(policy, **coefs)


def test_demonstrations_are_refused_with_the_mend(policy: str, tmp_path: Path):
    path = tmp_path / "demonstrations.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(UserError, match="PMPretrainModule takes batches of the kind pair, and is given demonstration"):
        trainer_for(tmp_path).fit(pmp(policy), DemonstrationsDataModule(train=str(path)))


# --- where the score is read ------------------------------------------------------------------------------------------


def test_append_eos_changes_the_place_of_reading_and_nothing_before_it(policy: str):
    with_eos, without = (batch_of(pmp(policy, append_eos=append_eos), "repeated").trees for append_eos in (True, False))
    for trees, end in ((with_eos, [EOS]), (without, [])):
        ids_M = trees.input_ids_BT.flatten()
        for number, pair in enumerate(PAIRS):
            for side, response in enumerate((pair.chosen, pair.rejected)):
                own = load_tokenizer(policy)(response).input_ids
                last = int(trees.last_K[2 * number + side])
                read = [*own, *end]
                assert ids_M[last + 1 - len(read) : last + 1].tolist() == read
    assert torch.equal(with_eos.length_K, without.length_K + 1)


def test_scores_are_read_at_the_token_that_append_eos_says(policy: str):
    found = {}
    for append_eos in (False, True):
        module = pmp(policy, append_eos=append_eos)
        found[append_eos] = scores_of(module)
        by_hand = plain(tiny_llama(), module.score_head.weight, append_eos)
        torch.testing.assert_close(found[append_eos][0], by_hand.chosen.detach(), rtol=2e-5, atol=1e-5)
        torch.testing.assert_close(found[append_eos][1], by_hand.rejected.detach(), rtol=2e-5, atol=1e-5)
    assert (found[False] - found[True]).abs().min() > 1e-3  # so that the other place would show


def test_sampled_tokens_lose_their_eos_alone(policy: str):
    tokenizer = load_tokenizer(policy)
    # EOS within stays, a cut side has none to lose, a side of EOS alone has nothing left
    sampled = PreferencePair("a", "b", "c", chosen_ids=(5, EOS, 6, EOS), rejected_ids=(7, 8))
    nothing = PreferencePair("a", "b", "", chosen_ids=(5, EOS), rejected_ids=(EOS,))
    made = tokenize([sampled, nothing], tokenizer, append_eos=False)
    assert [tree.completion_ids for tree in made.trees] == [((5, EOS, 6), (7, 8))]
    assert made.counts == {"kept": 1, "dropped_empty_completion": 1}
    kept = tokenize([sampled, nothing], tokenizer, append_eos=True)
    assert [tree.completion_ids for tree in kept.trees] == [((5, EOS, 6, EOS), (7, 8)), ((5, EOS), (EOS,))]


# --- what is logged ---------------------------------------------------------------------------------------------------


def test_a_training_step_logs_what_plain_forwards_give(policy: str, tmp_path: Path):
    module = pmp(policy, optimizer=sgd(0.02))
    by_hand = plain(tiny_llama(), module.score_head.weight.detach().clone())
    steps = fit(module, pairs_data(tmp_path), tmp_path, max_epochs=2)
    logged = {name.removeprefix("train/"): value for name, value in steps.logged[0].items()}
    both, margin = torch.cat([by_hand.chosen, by_hand.rejected]), by_hand.chosen - by_hand.rejected
    texts = [text for pair in PAIRS for text in (pair.prompt, pair.chosen, pair.prompt, pair.rejected)]
    norm = torch.cat([gradient.flatten() for gradient in steps.gradients[0].values()]).norm()
    tensors = {
        "loss": by_hand.rm_loss + by_hand.lm_loss,
        "rm_loss": by_hand.rm_loss,
        "lm_loss": by_hand.lm_loss,
        "accuracy": (margin > 0).float().mean(),
        "margin": margin.mean(),
        "min_reward": both.min(),
        "mean_reward": both.mean(),
        "max_reward": both.max(),
        "grad_norm": norm,
    }
    expected = {name: tensor.item() for name, tensor in tensors.items()} | {
        "learning_rate": 0.02,
        "num_tokens": sum(len(module.tokenizer(text).input_ids) for text in texts),
    }
    assert logged.keys() == expected.keys()
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert 0 < logged["accuracy"] < 1


def test_validation_logs_both_losses(policy: str, tmp_path: Path):
    module, trainer = pmp(policy), trainer_for(tmp_path)
    trainer.fit(module, pairs_data(tmp_path, validation=str(tmp_path / "pairs.jsonl")))
    by_hand = plain(module.model, module.score_head.weight)
    logged = trainer.callback_metrics
    assert logged["validation/rm_loss"].item() == pytest.approx(by_hand.rm_loss.item(), abs=1e-5)
    assert logged["validation/lm_loss"].item() == pytest.approx(by_hand.lm_loss.item(), abs=1e-5)
    assert logged["validation/loss"].item() == pytest.approx((by_hand.rm_loss + by_hand.lm_loss).item(), abs=1e-5)


def test_training_lowers_both_losses(policy: str, tmp_path: Path):
    steps = fit(pmp(policy, optimizer=adamw(1e-2)), pairs_data(tmp_path), tmp_path, max_epochs=15)
    first, last = steps.logged[0], steps.logged[-1]
    assert last["train/rm_loss"] < 0.1 < first["train/rm_loss"]
    assert last["train/lm_loss"] < 0.7 * first["train/lm_loss"]
    assert last["train/accuracy"] == 1.0


# --- what is kept -----------------------------------------------------------------------------------------------------


def classified(folder: Path, append_eos: bool) -> Tensor:
    """Scores of both sides by transformers' own classifier, [2, P], one sequence at a time."""
    opened, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), load_tokenizer(str(folder))
    end = [EOS] if append_eos else []
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in PAIRS:
        for side, response in zip(sides, (pair.chosen, pair.rejected), strict=True):
            ids = [*tokenizer(pair.prompt).input_ids, *tokenizer(response).input_ids, *end]
            side.append(opened(torch.tensor([ids])).logits[0, 0].detach())
    return torch.stack([torch.stack(side) for side in sides])


@pytest.mark.parametrize("adapter", [None, LoRA(r=2)], ids=["all weights", "adapter"])
@pytest.mark.parametrize("append_eos", [False, True])
def test_an_exported_checkpoint_scores_alike_and_is_carried_over(
    policy: str, tmp_path: Path, append_eos: bool, adapter: LoRA | None
):
    if adapter is not None:
        pytest.importorskip("peft")
    module = pmp(policy, append_eos=append_eos, adapter=adapter, optimizer=adamw(1e-2))
    fit(module, pairs_data(tmp_path), tmp_path, max_epochs=2)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    export(tmp_path / "last.ckpt", tmp_path / "reward")
    trained = scores_of(module)
    torch.testing.assert_close(classified(tmp_path / "reward", append_eos), trained, rtol=1e-5, atol=1e-5)

    # Finetuning starts from the trained head, and reads it at the same token, unless it is told otherwise.
    finetuned = RewardFinetuneModule(str(tmp_path / "reward"))
    assert finetuned.append_eos == append_eos
    torch.testing.assert_close(finetuned.score_head.weight, module.score_head.weight)
    torch.testing.assert_close(scores_of(finetuned), trained, rtol=1e-5, atol=1e-5)
    assert RewardFinetuneModule(str(tmp_path / "reward"), append_eos=not append_eos).append_eos != append_eos
    fresh = RewardFinetuneModule(str(tmp_path / "reward"), fresh_head=True)
    assert not torch.equal(fresh.score_head.weight, finetuned.score_head.weight)


def test_an_exported_reward_model_pretrains_further(tied_policy: str, tmp_path: Path):
    # The tied LM head comes with the embeddings, the score head with its own weight.
    module = pmp(tied_policy, optimizer=adamw(1e-2))
    fit(module, pairs_data(tmp_path), tmp_path, max_epochs=2)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    export(tmp_path / "last.ckpt", tmp_path / "reward")
    again = pmp(str(tmp_path / "reward"))
    by_hand = plain(module.model, module.score_head.weight)
    steps = fit(again, pairs_data(tmp_path), tmp_path)
    assert steps.logged[0]["train/lm_loss"] == pytest.approx(by_hand.lm_loss.item(), abs=1e-5)
    assert steps.logged[0]["train/rm_loss"] == pytest.approx(by_hand.rm_loss.item(), abs=1e-5)


def test_a_checkpoint_resumes_with_head_and_adapter(policy: str, tmp_path: Path):
    pytest.importorskip("peft")
    settings = {"adapter": LoRA(r=2), "optimizer": adamw(1e-2)}
    whole = pmp(policy, **settings)
    fit(whole, pairs_data(tmp_path), tmp_path, max_epochs=4)
    half = pmp(policy, **settings)
    fit(half, pairs_data(tmp_path), tmp_path, max_epochs=2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    state = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert all("lora" in name for name in state["state_dict"].keys() - {"score_head.weight"})
    assert state["lit_pref"]["append_eos"] is False
    seed_everything(5, verbose=False)
    resumed = pmp(policy, **settings)
    trainer = trainer_for(tmp_path, max_epochs=4)
    trainer.fit(resumed, pairs_data(tmp_path), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert trainer.global_step == 4
    torch.testing.assert_close(scores_of(resumed), scores_of(whole), rtol=0, atol=0)
