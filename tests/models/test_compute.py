"""One step of DPO is the same however it is run: layouts, checkpointing, compiling, adapters, half precision."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    CTRLConfig,
    CTRLLMHeadModel,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.data.tokens.tokenize import tokenize, tokenize_prompt
from lit_pref.datamodules import PairsDataModule
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.losses import DPO
from lit_pref.models import LoRA, adapter_state, export_model, load_tokenizer, merged
from lit_pref.models.attention.tree_attention import tree_hidden_states
from lit_pref.models.compute import prepare_layers
from lit_pref.modules import Compute, DPOModule, SFTModule
from lit_pref.modules.pairs import score_pairs
from lit_pref.types import PairLogps, PreferencePair, RowBatch, Sampling, TokenTree

PAIRS = [
    PreferencePair("def add(a, b):\n", "    return a + b", "    return a - b"),
    PreferencePair("# the largest of two\n", "max(a, b)", "    return a\n"),
    PreferencePair("x = 1\nprint(", "x)", "y"),
    PreferencePair("def f(words):\n    return", " sorted(words)", " words[::-1]"),
]
BETA = 0.3
COMMON: dict[str, Any] = {"vocab_size": 884, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
SIZES: dict[str, Any] = COMMON | {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


def saved(model: PreTrainedModel, folder: Path) -> str:
    return str(export_model(model, load_tokenizer("embedded:coder"), folder / type(model).__name__))


def fresh(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = LlamaConfig(intermediate_size=32, initializer_range=0.3, **SIZES)
    return saved(fresh(lambda: LlamaForCausalLM(config)), tmp_path_factory.mktemp("policy"))


def dpo(policy: str, **settings: Any) -> DPOModule:
    return DPOModule(policy, objective=DPO(BETA), scheduler=None, **settings)


def pairs_batch(module: DPOModule, layout: Any) -> RowBatch:
    trees = tokenize(PAIRS, module.tokenizer).trees
    return collate_rows("pair", lay_out(trees, layout), range(len(PAIRS)), pad_id=1, shared=layout != "repeated")


class Step(NamedTuple):
    loss: Tensor
    logps: PairLogps
    gradients: dict[str, Tensor]


def step(module: DPOModule, layout: Any = "shared") -> Step:
    """One forward and backward pass in the mode of training; the reference lies off the start by up to 3 nats."""
    plain = dpo(module.policy)
    with torch.no_grad():
        start = score_pairs(plain, pairs_batch(plain, "repeated"))
    reference = start._replace(
        chosen=start.chosen + torch.linspace(-3, 3, len(PAIRS))
    )  # so that pairs weigh differently
    module.set_modes()
    module.zero_grad()
    logps = score_pairs(module, pairs_batch(module, layout))
    loss = module.objective(logps, reference).mean()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}
    return Step(loss.detach(), PairLogps(*(value.detach() for value in logps)), gradients)


def assert_same(got: Step, expected: Step) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert max(gradient.abs().max() for gradient in expected.gradients.values()) > 1e-2  # there is something to compare


# --- equal steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("layout", ["shared", "repeated", "packed"])
def test_layouts_and_checkpointing_change_no_step(policy: str, layout: Any, checkpointing: bool):
    module = dpo(policy, compute=Compute(layout=layout, gradient_checkpointing=checkpointing))
    assert module.row_layout == layout
    assert_same(step(module, layout), step(dpo(policy)))


@pytest.mark.parametrize("compute", [Compute(), Compute(gradient_checkpointing=True)], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("at_start", [True, False])
def test_an_adapter_s_gradients_are_those_of_merged_weights(policy: str, compute: Compute, at_start: bool):
    # W' = W + s·B·A with s = alpha / r, so dL/dB = s · dL/dW' · Aᵀ and dL/dA = s · Bᵀ · dL/dW', which is 0 at B = 0.
    scale = 6 / 4
    module = dpo(policy, adapter=LoRA(r=4, lora_alpha=6), compute=compute)
    weights = adapter_state(module.model)
    if not at_start:
        with torch.no_grad():
            for value in weights.values():
                value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    whole = dpo(policy)
    whole.model.load_state_dict(merged(module.model).state_dict())
    got, expected = step(module), step(whole)
    torch.testing.assert_close(got[:2], expected[:2], rtol=1e-5, atol=1e-5)
    if at_start:
        torch.testing.assert_close(got.logps, step(dpo(policy)).logps, rtol=0, atol=1e-5)
    assert got.gradients.keys() == weights.keys()
    for name in [name for name in weights if ".lora_A." in name]:
        a, b = weights[name], weights[name.replace("lora_A", "lora_B")]
        of_weight = expected.gradients[name.replace("lora_A.default.", "")]
        torch.testing.assert_close(got.gradients[name], scale * b.T @ of_weight, rtol=1e-4, atol=1e-5)
        of_b = got.gradients[name.replace("lora_A", "lora_B")]
        torch.testing.assert_close(of_b, scale * of_weight @ a.T, rtol=1e-4, atol=1e-5)
        assert of_b.abs().max() > 1e-4 and bool(got.gradients[name].any()) is not at_start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "checkpointing", "adapter"),
    [("packed", False, None), ("repeated", False, None), ("packed", True, LoRA(r=4))],
    ids=["packed", "repeated", "packed-checkpointing-lora"],
)
def test_compiled_layers_change_no_step(policy: str, layout: Any, checkpointing: bool, adapter: LoRA | None):
    compiled = Compute(layout=layout, gradient_checkpointing=checkpointing, compile=True)
    module, plain = dpo(policy, adapter=adapter, compute=compiled), dpo(policy, adapter=adapter)
    assert module.state_dict().keys() == plain.state_dict().keys()
    got = step(module, layout)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was compiled
    assert_same(got, step(plain, layout))
    with torch.no_grad(), module.adapter_off():
        off = score_pairs(module, pairs_batch(module, layout))
    torch.testing.assert_close(off, step(dpo(policy), layout).logps, rtol=0, atol=1e-5)


# --- models that cannot share prompts ---------------------------------------------------------------------------------


def gpt_neo() -> PreTrainedModel:
    """Cuts its local attention by column, so that a completion behind another one would see the wrong tokens."""
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
    return GPTNeoForCausalLM(GPTNeoConfig(**COMMON, **sizes, window_size=4, max_position_embeddings=64))


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_a_layout_that_the_model_cannot_have_is_refused(tmp_path: Path, layout: Any):
    with pytest.raises(
        UserError, match=r"compute.layout: GPTNeoForCausalLM cuts its local attention by column.*take repeated or auto"
    ):
        dpo(saved(gpt_neo(), tmp_path), compute=Compute(layout=layout))


def test_auto_repeats_prompts_where_they_cannot_be_shared_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    module = dpo(saved(gpt_neo(), tmp_path))
    assert module.row_layout == "repeated"
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first_step(module, PairsDataModule(str(tmp_path / "pairs.jsonl"), validation_size=0.0), "32-true", tmp_path)
    said = "GPTNeoForCausalLM cuts its local attention by column: prompts are repeated before each completion"
    assert said in capsys.readouterr().out


# --- checkpointing ----------------------------------------------------------------------------------------------------


def llama_with_dropout() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(intermediate_size=32, initializer_range=0.3, attention_dropout=0.5, **SIZES))


def gpt2_with_dropout() -> PreTrainedModel:
    drops = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    sizes = COMMON | {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(initializer_range=0.3, **sizes, **drops))


def opt_with_dropout() -> PreTrainedModel:
    """Drops in the layers' own code, by an attribute, and whole layers."""
    drops = {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5}
    return OPTForCausalLM(OPTConfig(ffn_dim=32, word_embed_proj_dim=16, init_std=0.3, **SIZES, **drops))


def falcon_with_dropout() -> PreTrainedModel:
    """Reads its probabilities from the config at each call."""
    drops = {"hidden_dropout": 0.5, "attention_dropout": 0.5}
    return FalconForCausalLM(FalconConfig(initializer_range=0.3, **SIZES, **drops))


DROPPING = pytest.mark.parametrize(
    "make", [llama_with_dropout, gpt2_with_dropout, opt_with_dropout, falcon_with_dropout], ids=lambda f: f.__name__[:4]
)


@DROPPING
def test_checkpointing_keeps_dropout_off(make: Any, tmp_path: Path):
    folder = saved(fresh(make), tmp_path)
    got, expected = (
        step(dpo(folder, compute=Compute(layout="repeated", gradient_checkpointing=checkpointing)), "repeated")
        for checkpointing in (True, False)
    )
    assert_same(got, expected)
    torch.manual_seed(3)
    dropped = step(dpo(folder, dropout=True), "repeated")
    assert (dropped.loss - expected.loss).abs() > 1e-3  # there was something to keep off


@DROPPING
def test_with_dropout_the_backward_pass_draws_the_same_again(make: Any, tmp_path: Path):
    folder, steps = saved(fresh(make), tmp_path), []
    for checkpointing in (True, False):
        module = dpo(folder, dropout=True, compute=Compute(layout="repeated", gradient_checkpointing=checkpointing))
        torch.manual_seed(3)
        steps.append(step(module, "repeated"))
    assert_same(*steps)


def test_checkpointing_keeps_little_for_the_backward_pass(policy: str):
    def kept(compute: Compute, adapter: LoRA | None) -> int:
        module, numbers = dpo(policy, compute=compute, adapter=adapter), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        module.set_modes()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            tree_hidden_states(module.model, pairs_batch(module, "shared").trees)
        return numbers

    for adapter in (None, LoRA(r=4)):
        assert kept(Compute(gradient_checkpointing=True), adapter) < 0.2 * kept(Compute(), adapter)


@pytest.mark.parametrize("field", ["gradient_checkpointing", "compile"])
def test_a_model_without_known_layers_is_named(field: Any):
    config = CTRLConfig(vocab_size=20, n_positions=16, n_embd=8, dff=16, n_layer=1, n_head=2)
    with pytest.raises(UserError, match=rf"compute\.{field}: CTRLLMHeadModel does not support it"):
        prepare_layers(CTRLLMHeadModel(config), Compute(**{field: True}))


def test_no_compiler_is_said_at_once(policy: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compute\.compile: .* there is no 'no-such-compiler': install one"):
        dpo(policy, compute=Compute(compile=True))


def test_prepared_layers_sample_with_a_cache(policy: str):
    prompts, sampling = ["def f(x):\n    return", "x = "], Sampling(temperature=1.0, max_new_tokens=8)
    plain, prepared = (dpo(policy, compute=Compute(gradient_checkpointing=on)) for on in (False, True))
    samples = [
        LocalGenerator(module.model, module.tokenizer, tokenize_prompt).generate(prompts, 3, sampling, seed=0)
        for module in (plain, prepared)
    ]
    assert samples[0] == samples[1]
    # Also where a gradient could be asked for, the cache is filled once.
    outputs = prepared.model(torch.tensor([[5, 6, 7]]), use_cache=True)
    outputs.logits.sum().backward()
    assert outputs.past_key_values.get_seq_length() == 3


def test_a_copied_model_runs_on_its_own_weights(policy: str):
    module = dpo(policy, compute=Compute(gradient_checkpointing=True))
    other, batch = copy.deepcopy(module), pairs_batch(module, "shared")
    before = score_pairs(module, batch).chosen.detach()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.zero_()
    torch.testing.assert_close(score_pairs(module, batch).chosen, before)
    # all logits are 0: each of the 884 tokens is as likely as the others
    logps = score_pairs(other, batch)
    torch.testing.assert_close(logps.chosen, -math.log(884) * logps.chosen_length)


# --- half precision ---------------------------------------------------------------------------------------------------


class FirstStep(Callback):
    """What the first step logged."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.logged = {name: float(value) for name, value in trainer.logged_metrics.items()}


def first_step(
    module: LightningModule, data: Any, precision: Any, folder: Path, gradient_clip_val: float | None = None
) -> dict[str, float]:
    recorder = FirstStep()
    Trainer(
        accelerator="cpu",
        precision=precision,
        gradient_clip_val=gradient_clip_val,
        max_steps=1,
        logger=False,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[recorder],
    ).fit(module, data)
    return recorder.logged


def largest_logit(module: DPOModule) -> float:
    """Of all logits that completions' log-probs are made of, in fp32."""
    trees = tokenize(PAIRS, module.tokenizer).trees
    rows = [tree.prompt_ids + ids for tree in trees for ids in tree.completion_ids]
    with torch.no_grad():
        return max(module.model(torch.tensor([row])).logits.abs().max().item() for row in rows)


# A number in bf16 is off by up to 2^-8 of itself, and a log-prob is a logit less a logsumexp, which is off by at most
# what the worst logit is: together 2 · 2^-8 of the largest logit for each token.
def bf16_tolerance(policy: str) -> float:
    return 2 * 2**-8 * largest_logit(dpo(policy))


@pytest.mark.parametrize("adapter", [None, LoRA(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_dpo_in_half_precision(policy: str, precision: str, adapter: LoRA | None, tmp_path: Path):
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = lambda: PairsDataModule(str(tmp_path / "pairs.jsonl"), validation_size=0.0, batch_size=4)  # noqa: E731
    half = first_step(dpo(policy, adapter=adapter), data(), precision, tmp_path)
    full = first_step(dpo(policy, adapter=adapter), data(), "32-true", tmp_path)
    logps = step(dpo(policy)).logps
    assert full["train/logps/chosen"] == pytest.approx(logps.chosen.mean().item(), abs=1e-4)
    tolerance = bf16_tolerance(policy)
    for side, lengths in (("chosen", logps.chosen_length), ("rejected", logps.rejected_length)):
        per_pair = tolerance * lengths.mean().item()
        assert half[f"train/logps/{side}"] == pytest.approx(full[f"train/logps/{side}"], abs=per_pair)
        assert half[f"train/logps/{side}"] != full[f"train/logps/{side}"]  # it was not fp32
        # The cached reference was scored in the same precision: at the start the policy is it.
        assert half[f"train/rewards/{side}"] == pytest.approx(0, abs=BETA * per_pair)
    assert half["train/loss"] == pytest.approx(math.log(2), abs=BETA * tolerance * logps.chosen_length.max().item())


def test_a_fused_optimizer_goes_with_clipping_in_half_precision(policy: str, tmp_path: Path):
    rows = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    module = dpo(policy)
    module.make_optimizer = lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True)
    before = {name: p.clone() for name, p in module.model.named_parameters()}
    data = PairsDataModule(str(tmp_path / "pairs.jsonl"), validation_size=0.0, batch_size=4)
    first_step(module, data, "bf16-mixed", tmp_path, gradient_clip_val=1e-3)
    assert any(not torch.equal(p, before[name]) for name, p in module.model.named_parameters())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_sft_in_half_precision(policy: str, precision: str, tmp_path: Path):
    rows = [pairs_batch(dpo(policy), "shared")]
    half, full = (
        first_step(SFTModule(policy, scheduler=None), DataLoader(rows, batch_size=None), kind, tmp_path)
        for kind in (precision, "32-true")
    )
    assert half["train/loss"] == pytest.approx(full["train/loss"], abs=bf16_tolerance(policy))
    assert half["train/loss"] != full["train/loss"]


@pytest.mark.parametrize("mixed", [True, False])
def test_log_probs_are_summed_in_fp32(policy: str, mixed: bool):
    # 300 tokens of about −7 nats: a sum in bf16 could only be a multiple of 8, and each addition would be rounded.
    module = dpo(policy)
    if not mixed:
        module.model.bfloat16()
    ids = torch.randint(2, 884, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    batch = collate_rows("pair", [[TokenTree((5, 6), (tuple(ids), tuple(ids[:1])))]], [0], pad_id=1)
    trees = batch.trees
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        scores = module.score(trees)
        logps = score_pairs(module, batch)
    assert scores.logps_N.dtype == logps.chosen.dtype == torch.float32
    exact = scores.logps_N.double()[trees.completion_N == 0].sum()
    assert logps.chosen.item() == pytest.approx(exact.item(), rel=1e-6)
    assert abs(exact.item() - exact.bfloat16().item()) > 0.1  # which a sum in bf16 could not have met
