"""The reference of DPOModule: scored once under the start policy, kept on disk, and never that of a trained policy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tokenizers.normalizers import Replace
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lit_pref.datamodules import PairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import DPO, LikelihoodBudget, SimPO
from lit_pref.models import EMBEDDED_FOLDER, LoRA, load_causal_lm, load_tokenizer
from lit_pref.modules import Compute, DPOModule, adamw
from lit_pref.modules.reference import Reference
from lit_pref.storage.arrays import ArrayCache
from tests.tiny import saved, tiny_llama

ROWS = [
    {"prompt": f"def f{i}(x):\n", "chosen": f"    return x + {i}" + " " * (i % 3), "rejected": f"    pass  # {i * i}"}
    for i in range(8)
]
HELD_OUT = [{"prompt": f"y = {i}\n", "chosen": "print(y)", "rejected": f"y = y + {i}\nprint"} for i in range(3)]


def embedded_tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each scoring took."""
    calls: list[int] = []
    kept = Reference._kept

    def counted(self: Reference, key: Any, loader: Any) -> Any:
        calls.append(len(loader.dataset))
        return kept(self, key, loader)

    monkeypatch.setattr(Reference, "_kept", counted)
    return calls


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def data_of(folder: Path, rows: list[Any] = ROWS, held_out_rows: list[Any] = HELD_OUT) -> PairsDataModule:
    held_out = written(folder / "held_out.jsonl", held_out_rows)
    return PairsDataModule(written(folder / "pairs.jsonl", rows), validation=held_out, batch_size=2)


def module_of(policy: str, folder: Path, **settings: Any) -> DPOModule:
    defaults = {"objective": DPO(0.3), "optimizer": adamw(5e-3), "scheduler": None, "cache_folder": folder / "cache"}
    return DPOModule(policy, **(defaults | settings))


def trainer_of(folder: Path, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    return Trainer(**(defaults | settings))


def fitted(policy: str, folder: Path, rows: list[dict[str, str]] = ROWS, **settings: Any) -> DPOModule:
    module = module_of(policy, folder)
    trainer_of(folder, **settings).fit(module, data_of(folder, rows))
    return module


def reference_of(module: DPOModule, stage: Any) -> Tensor:
    """[P, 2], in the order of the rows."""
    values = {}
    for batch in module.trainer.datamodule.ordered_loader(stage):  # type: ignore[attr-defined]
        assert module.reference is not None and not module.reference.at_start
        values |= dict(
            zip(batch.row_R.tolist(), module.reference.logps(batch, torch.zeros(())).view(-1, 2).tolist(), strict=True)
        )
    return torch.tensor([values[row] for row in sorted(values)])


def start_logps(policy: str, rows: list[dict[str, str]]) -> Tensor:
    """[P, 2] from plain forward passes of the saved policy."""
    model, tokenizer, values = load_causal_lm(policy), load_tokenizer(policy), []
    for row in rows:
        prompt = tokenizer(row["prompt"]).input_ids
        for side in ("chosen", "rejected"):
            target = torch.tensor([*tokenizer(row[side]).input_ids, 0])
            with torch.no_grad():
                logits = model(torch.tensor([prompt + target.tolist()])).logits[0, len(prompt) - 1 : -1]
            values.append(logits.log_softmax(-1).gather(-1, target[:, None]).sum())
    return torch.stack(values).view(-1, 2)


def test_it_is_scored_once_and_is_that_of_the_start(policy: str, tmp_path: Path, scored: list[int]):
    module = fitted(policy, tmp_path, max_epochs=2)
    assert scored == [
        3,
        8,
    ]  # held-out pairs before the sanity check; nothing again in the second epoch
    torch.testing.assert_close(reference_of(module, "train"), start_logps(policy, ROWS), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(reference_of(module, "validation"), start_logps(policy, HELD_OUT), rtol=1e-6, atol=1e-5)
    # and the policy has moved away from it
    batch = next(iter(data_batches(module)))
    logps_K = module.score_completions(batch).logps_K
    moved = logps_K - module.reference.logps(batch, logps_K)  # type: ignore[union-attr]
    assert moved.abs().max() > 0.01


def data_batches(module: DPOModule) -> Any:
    return module.trainer.datamodule.ordered_loader("train")  # type: ignore[attr-defined]


def test_a_later_run_finds_it(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = reference_of(fitted(policy, tmp_path), "train")

    def refuse(*_: Any) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(Reference, "_score", refuse)
    assert torch.equal(reference_of(fitted(policy, tmp_path), "train"), first)


def changed_weight(folder: Path) -> tuple[str, list[dict[str, str]], str]:
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight[5, 5] += 0.01
    return saved(folder / "other", model), ROWS, "32-true"


def changed_row(folder: Path) -> tuple[str, list[dict[str, str]], str]:
    return saved(folder / "same", tiny_llama()), [*ROWS[:-1], {**ROWS[-1], "rejected": "    return 0"}], "32-true"


def changed_precision(folder: Path) -> tuple[str, list[dict[str, str]], str]:
    return saved(folder / "same", tiny_llama()), ROWS, "bf16-mixed"


@pytest.mark.parametrize(
    ("change", "expected"),
    [(changed_weight, [3, 8]), (changed_row, [8]), (changed_precision, [3, 8])],  # held-out rows stay the same
)
def test_a_change_is_a_miss(policy: str, tmp_path: Path, scored: list[int], change: Callable[..., Any], expected: Any):
    fitted(policy, tmp_path)
    scored.clear()
    other, rows, precision = change(tmp_path)
    fitted(other, tmp_path, rows, precision=precision)
    assert scored == expected


def test_tokens_of_another_tokenizer_are_a_miss(policy: str, tmp_path: Path, scored: list[int]):
    fitted(policy, tmp_path)
    scored.clear()
    other = embedded_tokenizer()
    other.backend_tokenizer.normalizer = Replace("return", "yield")
    fitted(saved(tmp_path / "other", tiny_llama(), other), tmp_path)
    assert scored == [8]  # no held-out row says return: their tokens stay the same


def test_another_chat_template_is_a_miss(tmp_path: Path, scored: list[int]):
    def conversations(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        return [{key: [{"role": roles[key], "content": text}] for key, text in row.items()} for row in rows]

    def fit_with(question: str, name: str) -> None:
        tokenizer = embedded_tokenizer()
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m.role == 'user' %}" + question + "{{ m.content }}# answer\n"
            "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
        )
        module = module_of(saved(tmp_path / name, tiny_llama(), tokenizer), tmp_path)
        trainer_of(tmp_path).fit(module, data_of(tmp_path, conversations(ROWS), conversations(HELD_OUT)))

    fit_with("# question\n", "policy")
    assert scored == [3, 8]
    fit_with("# question\n", "same")
    assert scored == [3, 8]
    fit_with("# task\n", "other")
    assert scored == [3, 8, 3, 8]


@pytest.mark.parametrize(
    "compute",
    [
        Compute(layout="packed"),
        Compute(layout="shared"),
        Compute(layout="repeated"),
        Compute(gradient_checkpointing=True),
    ],
    ids=lambda compute: f"{compute.layout}, checkpointing {compute.gradient_checkpointing}",
)
def test_how_the_policy_is_run_does_not_matter(policy: str, tmp_path: Path, scored: list[int], compute: Compute):
    first = reference_of(fitted(policy, tmp_path), "train")
    scored.clear()
    found = module_of(policy, tmp_path, compute=compute)
    trainer_of(tmp_path).fit(found, data_of(tmp_path))  # the check before the first step compares with the policy
    assert scored == [] and torch.equal(reference_of(found, "train"), first)
    made = module_of(policy, tmp_path / "new", compute=compute)
    trainer_of(tmp_path).fit(made, data_of(tmp_path))
    assert scored == [3, 8]
    torch.testing.assert_close(reference_of(made, "train"), first, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_policy_has_the_same_reference(policy: str, tmp_path: Path):
    compute = Compute(compile=True, gradient_checkpointing=True)
    module = module_of(policy, tmp_path, compute=compute)
    trainer_of(tmp_path).fit(module, data_of(tmp_path))
    torch.testing.assert_close(reference_of(module, "train"), start_logps(policy, ROWS), rtol=1e-6, atol=1e-5)


def test_the_same_weights_elsewhere_are_a_hit(policy: str, tmp_path: Path, scored: list[int]):
    fitted(policy, tmp_path)
    scored.clear()
    fitted(saved(tmp_path / "copy", tiny_llama()), tmp_path)
    assert scored == []


def cut_short(content: bytes) -> bytes:
    return content[:-4]


def altered(content: bytes) -> bytes:
    return content[:130] + bytes([content[130] ^ 64]) + content[131:]  # within the first value, behind numpy's header


@pytest.mark.parametrize("damage", [cut_short, altered])
def test_a_damaged_file_is_made_again(policy: str, tmp_path: Path, scored: list[int], damage: Callable[[bytes], bytes]):
    first = reference_of(fitted(policy, tmp_path), "train")
    scored.clear()
    for path in (tmp_path / "cache" / "reference").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(reference_of(fitted(policy, tmp_path), "train"), first)
    assert scored == [3, 8]


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_line(
    policy: str, tmp_path: Path, scored: list[int], capsys: pytest.CaptureFixture[str]
):
    first = fitted(policy, tmp_path)
    scored.clear()
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    second = module_of(policy, tmp_path, cache_folder=no_folder)
    trainer_of(tmp_path, max_epochs=2).fit(second, data_of(tmp_path))
    assert scored == [3, 8]  # not again in the second epoch
    assert torch.equal(reference_of(second, "train"), reference_of(first, "train"))
    assert second.trainer.global_step == 8
    lines = [line for line in capsys.readouterr().out.splitlines() if "cannot be written" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{no_folder}: ") and "cache_folder" in lines[0]


def test_values_of_other_weights_are_refused_at_the_first_step(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = load_causal_lm(policy).state_dict()
    fitted(policy, tmp_path)
    load = ArrayCache.load

    def of_other_weights(self: ArrayCache, key: Any, shape: Any = None) -> Tensor | None:
        values = load(self, key, shape)
        assert values is not None
        values[2, 0] -= 0.5  # nats a sequence of at most about 20 tokens
        return values

    monkeypatch.setattr(ArrayCache, "load", of_other_weights)
    module = module_of(policy, tmp_path)
    with pytest.raises(RuntimeError, match=r"nats a token away from its cached reference: the cache at .*delete it"):
        trainer_of(tmp_path).fit(module, data_of(tmp_path))
    for name, value in before.items():
        assert torch.equal(module.model.state_dict()[name], value)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def first_epoch(policy: str, folder: Path) -> tuple[Path, DPOModule]:
    """The checkpoint after the first of two epochs, and the module after both."""
    seed_everything(1, verbose=False)
    keep = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1)
    module = fitted(policy, folder, max_epochs=2, callbacks=[keep], enable_checkpointing=True)
    return folder / "checkpoints" / "epoch=0.ckpt", module


def delete_cache(folder: Path) -> None:
    for path in (folder / "cache" / "reference").iterdir():
        path.unlink()


def test_a_resumed_run_scores_the_start_policy_again(policy: str, tmp_path: Path, scored: list[int]):
    checkpoint, whole = first_epoch(policy, tmp_path)
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]["model.lm_head.weight"]
    assert not torch.equal(trained, tiny_llama().lm_head.weight)
    delete_cache(tmp_path)
    scored.clear()
    resumed = module_of(policy, tmp_path)
    trainer_of(tmp_path, max_epochs=2).fit(resumed, data_of(tmp_path), ckpt_path=checkpoint)
    assert scored == [3, 8]
    for stage in ("train", "validation"):
        assert torch.equal(reference_of(resumed, stage), reference_of(whole, stage))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)  # the very run that was not interrupted
    assert resumed.num_tokens == whole.num_tokens


def test_a_module_that_has_trained_resumes_against_the_start(policy: str, tmp_path: Path):
    # As in a notebook: the same object again.
    checkpoint, module = first_epoch(policy, tmp_path)
    whole, end = reference_of(module, "train"), module.model.lm_head.weight.detach().clone()
    delete_cache(tmp_path)
    trainer_of(tmp_path, max_epochs=2).fit(module, data_of(tmp_path), ckpt_path=checkpoint)
    assert torch.equal(reference_of(module, "train"), whole)
    assert torch.equal(module.model.lm_head.weight, end)


@pytest.mark.parametrize("load_first", [False, True])
def test_validating_a_checkpoint_compares_with_the_start(policy: str, tmp_path: Path, load_first: bool):
    checkpoint, _ = first_epoch(policy, tmp_path)
    settings: dict[str, Any] = {"objective": DPO(0.3), "regularizer": LikelihoodBudget(0.0)}
    if load_first:
        cache = tmp_path / "new"
        module = DPOModule.load_from_checkpoint(checkpoint, policy=policy, cache_folder=cache, **settings)
        trainer = trainer_of(tmp_path)
        (figures,) = trainer.validate(module, data_of(tmp_path), verbose=False)
    else:
        module, trainer = module_of(policy, tmp_path / "new", **settings), trainer_of(tmp_path)
        (figures,) = trainer.validate(module, data_of(tmp_path), ckpt_path=checkpoint, verbose=False)
    torch.testing.assert_close(reference_of(module, "validation"), start_logps(policy, HELD_OUT), rtol=1e-6, atol=1e-5)
    moved = LlamaForCausalLM(tiny_llama().config)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    moved.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    now = start_logps(saved(tmp_path / "moved", moved), HELD_OUT)
    rewards = 0.3 * (now - start_logps(policy, HELD_OUT)).mean(0)
    assert rewards.abs().max() > 1e-3
    assert figures["validation/rewards/chosen"] == pytest.approx(rewards[0].item(), abs=1e-5)
    assert figures["validation/rewards/rejected"] == pytest.approx(rewards[1].item(), abs=1e-5)


def test_a_checkpoint_of_a_method_without_reference_can_be_measured_against_one(policy: str, tmp_path: Path):
    module, trainer = module_of(policy, tmp_path, objective=SimPO()), trainer_of(tmp_path)
    trainer.fit(module, data_of(tmp_path))
    trainer.save_checkpoint(tmp_path / "simpo.ckpt")
    loaded = DPOModule.load_from_checkpoint(
        tmp_path / "simpo.ckpt", policy=policy, objective=DPO(0.3), cache_folder=tmp_path / "new"
    )
    trainer_of(tmp_path).validate(loaded, data_of(tmp_path), verbose=False)
    torch.testing.assert_close(reference_of(loaded, "validation"), start_logps(policy, HELD_OUT), rtol=1e-6, atol=1e-5)


def test_a_checkpoint_of_another_start_is_refused(policy: str, tmp_path: Path):
    checkpoint, _ = first_epoch(policy, tmp_path)
    other = saved(tmp_path / "other", tiny_llama(1))
    with pytest.raises(UserError, match="trained from other weights than those of"):
        trainer_of(tmp_path).fit(module_of(other, tmp_path), data_of(tmp_path), ckpt_path=checkpoint)


def test_a_start_policy_that_has_changed_on_disk_is_no_reference(tmp_path: Path):
    policy = saved(tmp_path / "policy", tiny_llama())
    checkpoint, _ = first_epoch(policy, tmp_path)
    delete_cache(tmp_path)
    loaded = DPOModule.load_from_checkpoint(checkpoint, policy=policy, objective=DPO(0.3), cache_folder=tmp_path / "x")
    tiny_llama(1).save_pretrained(policy)
    with pytest.raises(UserError, match="are not those that this policy was trained from"):
        trainer_of(tmp_path).validate(loaded, data_of(tmp_path), verbose=False)


@pytest.mark.filterwarnings("ignore:.*bf16-true.*")
def test_half_precision_weights_are_their_own_reference(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = module_of(policy, tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a second model was loaded")

    monkeypatch.setattr("lit_pref.modules.reference.load_causal_lm", refuse)
    trainer_of(tmp_path, precision="bf16-true", max_steps=1).fit(module, data_of(tmp_path))
    assert module.model.dtype == torch.bfloat16
    # bf16 has 8 bits: logits of a few nats are off by about 2^-8 of themselves, over up to 20 tokens
    torch.testing.assert_close(reference_of(module, "train"), start_logps(policy, ROWS), rtol=0.02, atol=0.5)


# --- with an adapter, whose base is the reference ---------------------------------------------------------------------


def adapted(policy: str, folder: Path, **settings: Any) -> DPOModule:
    # Its own dropout is in nobody's reference.
    return module_of(policy, folder, adapter=LoRA(r=4, lora_dropout=0.5), optimizer=adamw(5e-2), **settings)


def test_a_full_run_and_one_with_an_adapter_share_their_reference(policy: str, tmp_path: Path, scored: list[int]):
    pytest.importorskip("peft")
    full = fitted(policy, tmp_path)
    scored.clear()
    found = adapted(policy, tmp_path)
    trainer_of(tmp_path).fit(found, data_of(tmp_path))
    assert scored == []
    made = adapted(policy, tmp_path, cache_folder=tmp_path / "new")
    trainer_of(tmp_path).fit(made, data_of(tmp_path))
    assert scored == [3, 8]
    for stage in ("train", "validation"):
        assert torch.equal(reference_of(made, stage), reference_of(full, stage))
    names = [{path.name for path in (tmp_path / folder / "reference").iterdir()} for folder in ("cache", "new")]
    assert names[0] == names[1] and len(names[0]) == 2


def test_after_training_an_adapter_its_reference_needs_no_start_weights(
    policy: str, tmp_path: Path, scored: list[int], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("peft")
    keep = ModelCheckpoint(tmp_path / "checkpoints", filename="last")
    module = adapted(policy, tmp_path)
    trainer_of(tmp_path, callbacks=[keep], enable_checkpointing=True).fit(module, data_of(tmp_path))
    expected = start_logps(policy, HELD_OUT)
    delete_cache(tmp_path)
    scored.clear()
    resumed = adapted(policy, tmp_path)
    monkeypatch.setattr("lit_pref.modules.reference.load_causal_lm", lambda *_, **__: pytest.fail("loaded again"))
    for each, checkpoint in ((module, None), (resumed, tmp_path / "checkpoints" / "last.ckpt")):
        each.reference.scored.clear()  # type: ignore[union-attr]
        each.reference._made_of.clear()  # type: ignore[union-attr]
        trainer = trainer_of(tmp_path)
        (figures,) = trainer.validate(each, data_of(tmp_path), ckpt_path=checkpoint, verbose=False)
        torch.testing.assert_close(reference_of(each, "validation"), expected, rtol=1e-6, atol=1e-5)
        assert abs(figures["validation/rewards/margins"]) > 1e-3  # the adapter is on again
        delete_cache(tmp_path)
    assert scored == [3, 3]
