"""Pairs of code: rows of a file in a template, or of two models, made once and found by later runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules import CodePairsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.modules import PMPretrainModule, RewardFinetuneModule
from lit_pref.synthesis import OriginalChosen
from lit_pref.synthesis.code_pairs.strong_weak import StrongWeakPairs
from lit_pref.tasks import CodeTask
from tests.tiny import trainer_for

EOS = 0
# As `lit-pref synthesize --recipe code_pairs` writes them
ROWS = [
    {"query": f"Add {i}.", "better": f"x + {i}\n", "worse": f"x - {i}\n", "query_type": "function", "confidence": None}
    for i in range(20)
]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompts of every call of the generator."""
    calls: list[int] = []
    each = LocalGenerator.each

    def counted(self: LocalGenerator, prompts: Any, *arguments: Any) -> Any:
        calls.append(len(prompts))
        return each(self, prompts, *arguments)

    monkeypatch.setattr(LocalGenerator, "each", counted)
    return calls


def rows_file(folder: Path, name: str = "pairs", rows: list[dict[str, Any]] = ROWS) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def made(data: Any, module: LightningModule, folder: Path) -> Any:
    """Set up through a Trainer, without a step."""
    trainer_for(folder, limit_train_batches=0, limit_val_batches=0).fit(module, data)
    return data


def texts(data: Any, stage: Any = "train", end: tuple[int, ...] = ()) -> list[tuple[str, ...]]:
    """(prompt, chosen, rejected) of every tree; each side must end with `end` and hold no EOS before."""
    tokenizer, found = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), []
    for prompt, sides in data.data[stage].trees:
        own = [ids[: len(ids) - len(end)] for ids in sides]
        assert all(ids[len(ids) - len(end) :] == end for ids in sides) and not any(EOS in ids for ids in own)
        found.append(tuple(tokenizer.decode(ids) for ids in (prompt, *own)))
    return found


# --- rows of a file ---------------------------------------------------------------------------------------------------


def test_rows_stand_in_the_template_and_end_as_the_module_says(policy: str, tmp_path: Path):
    template = "Code.\n\n### Code Description:\n{query}\n\n### Response:\n"
    expected = [
        (f"Code.\n\n### Code Description:\nAdd {i}.\n\n### Response:\n", f"x + {i}\n", f"x - {i}\n") for i in range(20)
    ]
    for module, end in (
        (PMPretrainModule(policy), ()),
        (PMPretrainModule(policy, append_eos=True), (EOS,)),
        (RewardFinetuneModule(policy), (EOS,)),
    ):
        data = PairsDataModule(rows_file(tmp_path), validation_size=0.0, template=template)
        assert texts(made(data, module, tmp_path), end=end) == expected
        assert "validation" not in data.data


def test_without_a_template_a_description_is_the_prompt(policy: str, tmp_path: Path):
    data = PairsDataModule(rows_file(tmp_path), validation_size=0.0)
    assert texts(made(data, PMPretrainModule(policy), tmp_path))[3] == ("Add 3.", "x + 3\n", "x - 3\n")


def test_a_template_is_filled_as_it_stands(policy: str, tmp_path: Path):
    # Braces of either side mean nothing else.
    path = rows_file(tmp_path, rows=[{"query": "of {x}: {query}", "better": "a", "worse": "b"}])
    data = PairsDataModule(path, validation_size=0.0, template="{0} {query} {")
    assert texts(made(data, PMPretrainModule(policy), tmp_path)) == [("{0} of {x}: {query} {", "a", "b")]


def test_a_prompt_that_fills_the_length_is_dropped_and_counted(policy: str, tmp_path: Path, capsys: Any):
    rows = [*ROWS, {"query": "word " * 50, "better": "a", "worse": "b"}]
    limits = LengthLimits(max_length=40)
    data = PairsDataModule(rows_file(tmp_path, rows=rows), validation_size=0.0, limits=limits)
    assert len(texts(made(data, PMPretrainModule(policy), tmp_path))) == 20
    assert "'dropped_prompt_fills_limit': 1" in capsys.readouterr().out


def test_a_template_is_for_text_alone(policy: str, tmp_path: Path):
    turns = [[{"role": "user", "content": "q"}], *([{"role": "assistant", "content": x}] for x in "ab")]
    path = rows_file(tmp_path, rows=[dict(zip(("prompt", "chosen", "rejected"), turns, strict=True))])
    with pytest.raises(UserError, match=r"pairs\.jsonl:1: a template is for prompts of text, and this is"):
        made(PairsDataModule(path, template="{query}"), PMPretrainModule(policy), tmp_path)


# --- pairs of a task --------------------------------------------------------------------------------------------------


def small(descriptions: int = 24, seed: int = 3, batch_size: int = 4, **making: Any) -> CodePairsDataModule:
    # Not the strongest model, so that some of its answers fail too
    made_by = StrongWeakPairs(strong="embedded:coder", **making)
    return CodePairsDataModule(
        train_size=descriptions, answers=made_by, validation_size=0.25, batch_size=batch_size, seed=seed
    )


def test_two_models_answer_once_and_what_they_wrote_is_found_again(
    policy: str, tmp_path: Path, sampled: list[int], capsys: Any
):
    task, module = CodeTask(), PMPretrainModule(policy)
    problems = {problem.prompt: problem for problem in task.problems("train", 24, 3)}
    data = made(small(), module, tmp_path)
    rows = [*texts(data), *texts(data, "validation")]
    told = capsys.readouterr().out
    assert sampled == [24, 24] and f"{len(rows)} pairs, 24 problems" in told
    assert len({prompt for prompt, *_ in rows}) == len(rows) and {prompt for prompt, *_ in rows} <= problems.keys()
    assert len(data.data["validation"]) == round(0.25 * len(rows))
    assert all(chosen != rejected for _, chosen, rejected in rows)

    again = made(small(), module, tmp_path)
    assert again.fingerprints == data.fingerprints and again.fingerprints.keys() == {"train", "validation"}
    # The same samples, of which fewer are kept: those whose better side alone passes.
    verified = made(small(verified=True), module, tmp_path)
    kept = [*texts(verified), *texts(verified, "validation")]
    assert 0 < len(kept) < len(rows) and set(kept) < set(rows)
    graded = [problems[prompt] for prompt, *_ in rows]
    better, worse = (task.grade(graded, [row[side] for row in rows]) for side in (1, 2))
    for row, one, other in zip(rows, better, worse, strict=True):
        assert (row in kept) == (one.passed and not other.passed)
    assert sampled == [24, 24]

    original = made(small(construction=OriginalChosen()), module, tmp_path)
    assert all(chosen == problems[prompt].reference for prompt, chosen, _ in texts(original))
    assert sampled == [24, 24]


def test_a_fit_trains_on_pairs_of_a_task(policy: str, tmp_path: Path):
    module = PMPretrainModule(policy, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    trainer, data = trainer_for(tmp_path), small(descriptions=12)
    trainer.fit(module, data)
    assert trainer.global_step == -(-len(data.data["train"]) // 4) > 0
    assert {"train/rm_loss", "train/lm_loss", "validation/accuracy"} <= trainer.callback_metrics.keys()


# --- wrong settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": 0}, "train_size must be >= 1, got 0"),
        ({"validation_size": 1.0}, r"validation_size must be a share in \[0, 1\) or a count >= 0, got 1\.0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        CodePairsDataModule(**settings)


def test_a_template_without_a_place_for_the_prompt_is_refused():
    with pytest.raises(ValueError, match=r"template must hold \{query\}, got '### Response:'"):
        PairsDataModule("pairs.jsonl", template="### Response:")
