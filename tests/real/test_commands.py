"""Every command of the README on a pretrained chat model, and what is exported opened in transformers and TRL."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from lit_pref.callbacks.checkpoint_io import read_checkpoint
from lit_pref.cli.main import main
from lit_pref.machine.processors import multiplies_bf16
from lit_pref.models.checkpoints import checkpoint_model
from tests.tiny import rows_file

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]  # Lightning's advice on runs of one batch

ASKED = ["Say hello.", "What is 2 + 2?", "Name a colour.", "Which is the capital of France?"]
RIGHT, WRONG = ["Hello!", "4", "Blue.", "Paris."], ["Bye.", "5", "Seven.", "London, I think."]
PROGRAMS = [
    ("add(a, b)", "the sum of a and b", "a + b", "assert add(1, 2) == 3"),
    ("square(x)", "x times x", "x * x", "assert square(3) == 9"),
]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = list(zip(ASKED, RIGHT, WRONG, strict=True))
    rows_file(
        tmp_path / "chat.jsonl", [{"prompt": user(q), "chosen": answer(a), "rejected": answer(b)} for q, a, b in rows]
    )
    rows_file(tmp_path / "text.jsonl", [{"prompt": f"{q}\n", "chosen": a, "rejected": b} for q, a, b in rows])
    rows_file(tmp_path / "demonstrations.jsonl", [{"messages": user(q) + answer(a)} for q, a, _ in rows])
    labelled = [{"prompt": user(q), "completion": answer(x), "label": x in RIGHT} for q, *both in rows for x in both]
    rows_file(tmp_path / "labelled.jsonl", labelled)
    told = [(signature.partition("(")[0], f'def {signature}:\n    """Return {what}."""\n', code, test)
            for signature, what, code, test in PROGRAMS]  # fmt: skip
    problems = [{"prompt": prompt, "entry_point": name, "reference": f"    return {code}\n", "test": test}
                for name, prompt, code, test in told]  # fmt: skip
    rows_file(tmp_path / "problems.jsonl", problems)


PAIRS = ["--config", "data/pairs", "--data.train"]
RUNS = {
    "dpo": [*PAIRS, "chat.jsonl"],
    "dpo_budget": [*PAIRS, "text.jsonl"],
    "sft": ["--data.task", "null", "--data.train", "demonstrations.jsonl", "--trainer.callbacks", "null"],
    "kto": ["--data", "LabelledDataModule", "--data.train", "labelled.jsonl", "--trainer.callbacks", "null"],
    "reward": [*PAIRS, "chat.jsonl"],
    "pmp": [*PAIRS, "text.jsonl"],
}


def fit(config: str, model: str, *more: str) -> Path:
    """A run of one epoch with LoRA; its checkpoint."""
    small = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    lora = ["--config", "model/lora", "--model.adapter.r", "4", "--model.policy", model]
    main(["fit", "--config", config, *RUNS[config], *lora, *small, "--run_name", "first", *more])
    return Path("runs", config, "first", "checkpoints", "last.ckpt")


def exported(checkpoint: Path, *more: str) -> str:
    main(["export", "--checkpoint", str(checkpoint), "--output", "exported", *more])
    return "exported"


def chat_ids(folder: str) -> Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversation = user(ASKED[3]) + answer(RIGHT[3])
    return torch.tensor([tokenizer.apply_chat_template(conversation, return_dict=False)])


def assert_same_logits(checkpoint: Path, folder: str) -> Any:
    """The module's and those of the folder in transformers, to 1e-5 of the largest; gives the opened model."""
    ids, trained = chat_ids(folder), checkpoint_model(checkpoint, read_checkpoint(checkpoint)).float()
    opened = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        expected, found = trained(ids).logits, opened(ids).logits
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    return opened


@pytest.mark.parametrize("config", ["dpo", "dpo_budget", "sft", "kto"])
def test_a_policy_is_fitted_and_its_export_opens_in_transformers(smollm2: str, config: str):
    checkpoint = fit(config, smollm2)
    opened = assert_same_logits(checkpoint, exported(checkpoint))
    assert opened.config.tie_word_embeddings and opened.lm_head.weight is opened.model.embed_tokens.weight
    assert opened.generation_config.eos_token_id == AutoTokenizer.from_pretrained("exported").eos_token_id


@pytest.mark.parametrize("config", ["reward", "pmp"])
def test_a_reward_model_is_fitted_and_its_export_scores_in_transformers(smollm2: str, config: str):
    checkpoint = fit(config, smollm2)
    folder = exported(checkpoint)
    ids, content = chat_ids(folder), read_checkpoint(checkpoint)
    opened = AutoModelForSequenceClassification.from_pretrained(folder)
    trained = checkpoint_model(checkpoint, content)
    with torch.no_grad():
        hidden_D = trained.base_model(ids).last_hidden_state[0, -1]
        expected, found = content["state_dict"]["score_head.weight"] @ hidden_D, opened(ids).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_output_matrix_apart_from_the_embedding_stays_as_it_was(qwen: str):
    checkpoint = fit("dpo", qwen)
    opened, start = assert_same_logits(checkpoint, exported(checkpoint)), AutoModelForCausalLM.from_pretrained(qwen)
    assert not opened.config.tie_word_embeddings
    for layer in ("lm_head", "model.embed_tokens"):
        assert torch.equal(opened.get_submodule(layer).weight, start.get_submodule(layer).weight.float())


@pytest.mark.skipif(not multiplies_bf16(), reason="this processor has no bf16 instructions")
def test_a_run_over_a_base_of_half_precision_is_exported_whole_and_rounded(smollm2: str):
    checkpoint = fit("dpo", smollm2, "--model.dtype", "bfloat16")
    assert_same_logits(checkpoint, exported(checkpoint))
    main(["export", "--checkpoint", str(checkpoint), "--output", "rounded", "--dtype", "bfloat16"])
    assert AutoModelForCausalLM.from_pretrained("rounded", dtype="auto").dtype == torch.bfloat16


def test_a_run_of_a_gguf_file_is_exported_as_a_folder(gguf_file: str):
    checkpoint = fit("sft", gguf_file)
    opened = assert_same_logits(checkpoint, exported(checkpoint))
    assert not hasattr(opened.config, "quantization_config")


def test_trl_trains_the_exported_folder_for_a_step(smollm2: str):
    trl = pytest.importorskip("trl", reason="needs the extra bench: pip install 'lit-pref[bench]'")
    from datasets import load_dataset

    folder = exported(fit("dpo", smollm2))
    limits = {
        "bf16": False,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "max_length": 64,
        "report_to": "none",
        "use_cpu": True,
    }
    trainer = trl.DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=trl.DPOConfig("trl", lr_scheduler_type="constant", learning_rate=1e-5, save_strategy="no", **limits),
        train_dataset=load_dataset("json", data_files="chat.jsonl", split="train"),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    before = trainer.model.model.layers[0].mlp.down_proj.weight.detach().clone()
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy is its reference
    assert not torch.equal(trainer.model.model.layers[0].mlp.down_proj.weight, before)


TASK = ["--task", "CustomCodeTask", "--task.source", "problems.jsonl", "--split", "train"]


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_a_policy_is_evaluated(smollm2: str, style: str):
    length = 64 if style == "chat" else 24
    limits = ["--sampling.max_new_tokens", str(length), "--output", "evaluated"]
    main(["evaluate", *TASK, "--task.style", style, "--policy", smollm2, *limits])
    results = json.loads(Path("evaluated/results.json").read_text())
    samples = [json.loads(line) for line in Path("evaluated/samples.jsonl").read_text().splitlines()]
    assert len(samples) == len(PROGRAMS) and results["policy"] == smollm2
    assert not any("<|" in sample["completion"] for sample in samples)  # ends of turns are no text


def test_a_model_that_does_not_stop_is_counted_and_told(smollm2: str, capsys: pytest.CaptureFixture[str]):
    limits = ["--sampling.max_new_tokens", "3", "--output", "evaluated"]
    main(["evaluate", *TASK, "--task.style", "chat", "--policy", smollm2, *limits])
    assert json.loads(Path("evaluated/results.json").read_text())["truncated"] == len(PROGRAMS)
    told = capsys.readouterr()
    assert "2 of 2 completions were cut at 3 tokens: a larger sampling.max_new_tokens" in told.out + told.err


def test_a_checkpoint_is_evaluated(smollm2: str):
    checkpoint = str(fit("sft", smollm2))
    limits = ["--sampling.max_new_tokens", "16", "--output", "evaluated"]
    main(["evaluate", *TASK, "--task.style", "chat", "--checkpoint", checkpoint, *limits])
    assert json.loads(Path("evaluated/results.json").read_text())["policy"] == smollm2


def test_pairs_are_made_of_its_samples(smollm2: str, capsys: pytest.CaptureFixture[str]):
    limits = ["--samples", "4", "--sampling.max_new_tokens", "48", "--output", "pairs"]
    main(["synthesize", *TASK, "--task.style", "chat", "--policy", smollm2, *limits])
    assert "samples" in capsys.readouterr().out
    assert json.loads(Path("pairs/summary.json").read_text())
