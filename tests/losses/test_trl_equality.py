"""Log-probs, losses, rewards, KTO's KL estimate and parameter gradients against TRL's trainers on the same rows."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.losses import DPO, IPO, KTO, Hinge, PairObjective, completion_logps, token_scores
from lit_pref.metrics import preference_statistics
from lit_pref.models import export_model, lm_head, predictor_hidden_states
from lit_pref.modules import Compute, KTOModule
from lit_pref.modules.reference import Scored
from lit_pref.types import PairLogps, TokenTree

# Warnings inside TRL and its trainer are not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BETA = 0.3
ROWS = [
    {"prompt": "w1 w2 w3", "chosen": " w4 w5 w6", "rejected": " w7 w8"},
    {"prompt": "w9 w3", "chosen": " w10", "rejected": " w11 w12 w13 w14 w15 w16"},
    {"prompt": "w20 w21 w22 w23 w24", "chosen": " w25 w26", "rejected": " w26 w25"},
]


class Figures(NamedTuple):
    """One training step: the loss and its gradients, of all pairs; what is logged, of each pair alone."""

    loss: float
    logged: dict[str, list[float]]
    gradients: dict[str, Tensor]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "</s>": 1} | {f"w{i}": i + 2 for i in range(60)}
    tokens = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>")


@pytest.fixture
def start() -> LlamaForCausalLM:
    torch.manual_seed(0)
    size = {"vocab_size": 62, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**size, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3))


@pytest.fixture
def policy(start: LlamaForCausalLM) -> LlamaForCausalLM:
    """The start model after a step in a random direction, so that log-ratios are not zero."""
    moved = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return moved


def pair_logps(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> PairLogps:
    trees = []
    for row in ROWS:
        prompt, chosen, rejected = (tokenizer(row[key])["input_ids"] for key in ("prompt", "chosen", "rejected"))
        sides = tuple((*ids, tokenizer.eos_token_id) for ids in (chosen, rejected))
        trees.append(TokenTree(tuple(prompt), sides))
    # Two trees share the first row, so that packing takes part.
    batch = collate_rows("pair", [trees[:2], trees[2:]], numbers=range(3), pad_id=tokenizer.pad_token_id).trees
    logps_N = token_scores(predictor_hidden_states(model, batch), lm_head(model), batch.target_N, 4).logps_N
    logps_K = completion_logps(logps_N, batch.completion_N, len(batch.length_K))
    return PairLogps(logps_K[0::2], logps_K[1::2], batch.length_K[0::2], batch.length_K[1::2])


def our_figures(
    policy: LlamaForCausalLM,
    start: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    objective: PairObjective,
) -> Figures:
    with torch.no_grad():
        reference = pair_logps(start, tokenizer)
    logps = pair_logps(policy, tokenizer)
    loss = objective(logps, reference).mean()
    loss.backward()
    logged = {name: x.tolist() for name, x in preference_statistics(logps, reference, objective.beta).items()}
    return Figures(loss.item(), logged, {name: p.grad for name, p in policy.named_parameters()})


def trl_figures(
    policy: LlamaForCausalLM,
    start: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    loss_type: str,
    folder: Path,
) -> Figures:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    arguments = trl.DPOConfig(
        output_dir=str(folder),
        beta=BETA,
        loss_type=[loss_type],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        max_length=None,
        report_to="none",
    )
    rows = datasets.Dataset.from_list(ROWS)
    trainer = trl.DPOTrainer(policy, start, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.model.train()
    tokenized = list(trainer.train_dataset)
    for row in tokenized:
        trainer.compute_loss(trainer.model, trainer.data_collator([row]))
    logged = {name: list(values) for name, values in trainer._metrics["train"].items()}
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(tokenized))
    loss.backward()
    return Figures(loss.item(), logged, {name: p.grad for name, p in policy.named_parameters()})


# Label smoothing is left out: TRL 1.16 has no loss that is cDPO's for more than one pair.
@pytest.mark.parametrize(
    ("objective", "loss_type"), [(DPO(beta=BETA), "sigmoid"), (IPO(beta=BETA), "ipo"), (Hinge(beta=BETA), "hinge")]
)
def test_a_step_is_trls_step(policy, start, tokenizer, tmp_path, objective, loss_type):
    trl = trl_figures(copy.deepcopy(policy), copy.deepcopy(start), tokenizer, loss_type, tmp_path)
    ours = our_figures(policy, start, tokenizer, objective)
    assert ours.loss == pytest.approx(trl.loss, rel=1e-5)
    shared = [name for name in ours.logged if not name.endswith("_fall")]
    assert len(shared) == 6
    for name in shared:
        assert ours.logged[name] == pytest.approx(trl.logged[name], rel=1e-5, abs=1e-5), name
    assert trl.gradients.keys() == ours.gradients.keys()
    for name, gradient in ours.gradients.items():
        torch.testing.assert_close(gradient, trl.gradients[name], rtol=1e-5, atol=1e-5, msg=name)


# --- KTO --------------------------------------------------------------------------------------------------------------

OBJECTIVE = KTO(beta=0.3, desirable_weight=1.25, undesirable_weight=0.75)
KTO_ROWS = [
    {"prompt": "w1 w2 w3", "completion": " w4 w5 w6", "label": True},
    {"prompt": "w9 w3", "completion": " w11 w12 w13 w14 w15 w16", "label": False},
    {"prompt": "w20 w21 w22 w23 w24", "completion": " w25 w26", "label": True},
    {"prompt": "w9 w3", "completion": " w10", "label": True},
]
KTO_NAMES = [
    "loss",
    "kl",
    "entropy",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
]


def trl_kto_step(policy: Any, start: Any, tokenizer: Any, loss_type: str, folder: Path) -> tuple[dict[str, float], Any]:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    arguments = trl.KTOConfig(
        output_dir=str(folder),
        beta=OBJECTIVE.beta,
        desirable_weight=OBJECTIVE.desirable_weight,
        undesirable_weight=OBJECTIVE.undesirable_weight,
        loss_type=loss_type,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=len(KTO_ROWS),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        max_length=None,
        report_to="none",
    )
    rows = datasets.Dataset.from_list(KTO_ROWS)
    trainer = trl.KTOTrainer(policy, start, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    loss.backward()
    logged = {name: float(values[-1]) for name, values in trainer._metrics["train"].items() if values}
    return logged | {"loss": loss.item()}, {name: p.grad for name, p in policy.named_parameters()}


def our_kto_step(policy: Any, start: Any, tokenizer: Any, objective: KTO, folder: Path) -> tuple[dict[str, float], Any]:
    def tokens(text: Any) -> tuple[int, ...]:
        return tuple(tokenizer(text)["input_ids"])

    completions = [(*tokens(row["completion"]), tokenizer.eos_token_id) for row in KTO_ROWS]
    # TRL puts the completion of the row before behind each prompt, and the last one behind the first.
    trees = [TokenTree(tokens(row["prompt"]), (completions[i], completions[i - 1])) for i, row in enumerate(KTO_ROWS)]
    labels = [float(bool(row["label"])) for row in KTO_ROWS]
    batch = collate_rows("labelled", lay_out(trees, "packed"), range(len(KTO_ROWS)), tokenizer.pad_token_id, labels)
    module = KTOModule(str(export_model(start, tokenizer, folder)), objective, compute=Compute(layout="packed"))
    assert module.reference is not None
    module.reference.at_start = False
    with torch.no_grad():
        key_K, order_K = batch.key_K.sort()
        module.reference.scored["train"] = Scored(key_K, module.score_completions(batch).logps_K[order_K])
        module.model.load_state_dict(policy.state_dict())
    module._trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = module._step(batch, "train")
    loss.backward()
    logged = module.logged_figures(module._counted("train").compute())
    gradients = {name: p.grad for name, p in module.model.named_parameters()}
    return {name: float(value) for name, value in logged.items()} | {"loss": loss.item()}, gradients


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("moved", [1.0, -1.0])  # one of the two ways has a divergence below 0, which counts as 0
def test_a_kto_step_is_trls_step(
    policy: LlamaForCausalLM,
    start: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    loss_type: str,
    moved: float,
    tmp_path: Path,
):
    with torch.no_grad():
        for ours, theirs in zip(policy.parameters(), start.parameters(), strict=True):
            ours.copy_(theirs + moved * (ours - theirs))
    objective = KTO(OBJECTIVE.beta, OBJECTIVE.desirable_weight, OBJECTIVE.undesirable_weight, loss_type == "kto")
    ours_logged, ours_gradients = our_kto_step(policy, start, tokenizer, objective, tmp_path / "model")
    trl_logged, trl_gradients = trl_kto_step(
        copy.deepcopy(policy), copy.deepcopy(start), tokenizer, loss_type, tmp_path / "trl"
    )
    for name in KTO_NAMES:
        assert ours_logged[name] == pytest.approx(trl_logged[name], rel=1e-5, abs=1e-5), name
    assert ours_gradients.keys() == trl_gradients.keys()
    for name, gradient in trl_gradients.items():
        torch.testing.assert_close(ours_gradients[name], gradient, rtol=1e-5, atol=1e-5, msg=name)
