"""Scores, losses, what is logged and parameter gradients against TRL's RewardTrainer on the same weights and pairs.

Both reward modules: preference-model pretraining without its language-model loss is reward finetuning.
"""

from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, Qwen2Config

from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.losses import BradleyTerry
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.modules import Compute, PMPretrainModule, RewardFinetuneModule
from lit_pref.types import PreferencePair

# Warnings inside TRL and its trainer are not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# Sides that begin a word of their own: TRL tokenizes them together with the prompt.
ROWS = [
    {"prompt": "def add(a, b):\n", "chosen": "    return a + b", "rejected": "    return a - b + 1", "margin": 0.5},
    {"prompt": "# the largest\ndef f(words):\n    return", "chosen": " max(words)", "rejected": " 0", "margin": 0.0},
    {"prompt": "x = 1\n", "chosen": "y = x", "rejected": "    z = (x, 2, 3, 4)", "margin": 2.0},
]
PAIRS = [PreferencePair(**row) for row in ROWS]
LOGGED = ("accuracy", "margin", "mean_reward", "min_reward", "max_reward")


class Figures(NamedTuple):
    """The tokens of both sides of each pair; one training step's loss, gradients and logged figures of all pairs."""

    ids: list[list[int]]
    loss: float
    logged: dict[str, float]
    gradients: dict[str, Tensor]


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    """A saved sequence classifier of one label, as TRL trains it."""
    config = Qwen2Config(
        vocab_size=885,  # a Qwen2 tokenizer adds a token to the embedded one's
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
        num_labels=1,
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "classifier")
    load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")).save_pretrained(tmp_path / "classifier")
    return str(tmp_path / "classifier")


def finetuning(classifier: str, loss: BradleyTerry, layout: Any) -> RewardFinetuneModule:
    return RewardFinetuneModule(classifier, loss, compute=Compute(layout=layout))


def pretraining(classifier: str, loss: BradleyTerry, layout: Any) -> PMPretrainModule:
    # The LM head that the classifier lacks is not used: the embeddings, tied to it, stand in.
    return PMPretrainModule(classifier, lm_coef=0.0, loss=loss, append_eos=True, compute=Compute(layout=layout))


MODULES = {"finetuning": finetuning, "pretraining": pretraining}


def our_figures(module: RewardFinetuneModule | PMPretrainModule, layout: Any) -> Figures:
    trees = tokenize(PAIRS, module.tokenizer).trees
    margins = [row["margin"] for row in ROWS]
    batch = collate_rows("pair", lay_out(trees, layout), range(len(ROWS)), 1, margins, shared=layout != "repeated")
    logged: dict[str, float] = {}
    with patch.object(module, "log", lambda name, value, **_: logged.update({name: float(value)})):
        loss = module.training_step(batch, 0)
        module._log_figures("train")
    loss.backward()
    logged = {name: logged[f"train/{name}"] for name in LOGGED}
    theirs = {"score_head.": "score.", "model.model.": "model."}
    gradients = {}
    for name, parameter in module.named_parameters():
        prefix = next(prefix for prefix in theirs if name.startswith(prefix))
        gradients[theirs[prefix] + name.removeprefix(prefix)] = parameter.grad
    ids = [[*tree.prompt_ids, *tree.completion_ids[side]] for side in (0, 1) for tree in trees]
    return Figures(ids, loss.item(), logged, gradients)


def trl_figures(classifier: str, centering: float | None, use_margin: bool, folder: Path) -> Figures:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    arguments = trl.RewardConfig(
        output_dir=str(folder),
        center_rewards_coefficient=centering,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
    )
    rows = datasets.Dataset.from_list(ROWS)
    rows = rows if use_margin else rows.remove_columns("margin")
    trainer = trl.RewardTrainer(classifier, arguments, train_dataset=rows)
    trainer.model.train()
    tokenized = list(trainer.train_dataset)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(tokenized))
    loss.backward()
    logged = {name: values[0] for name, values in trainer._metrics["train"].items() if name != "num_tokens"}
    ids = [row[side] for side in ("chosen_ids", "rejected_ids") for row in tokenized]
    return Figures(ids, loss.item(), logged, {name: p.grad for name, p in trainer.model.named_parameters()})


@pytest.mark.parametrize("layout", ["packed", "shared", "repeated"])
@pytest.mark.parametrize(("centering", "use_margin"), [(None, False), (0.05, True)])
@pytest.mark.parametrize("name", MODULES)
def test_a_step_is_trls_step(
    classifier: str, tmp_path: Path, name: str, layout: Any, centering: float | None, use_margin: bool
):
    trl = trl_figures(classifier, centering, use_margin, tmp_path / "trl")
    module = MODULES[name](classifier, BradleyTerry(centering or 0.0, use_margin), layout)
    ours = our_figures(module, layout)
    assert ours.ids == trl.ids
    assert ours.loss == pytest.approx(trl.loss, rel=1e-5)
    assert ours.logged.keys() == trl.logged.keys()
    for name, value in ours.logged.items():
        assert value == pytest.approx(trl.logged[name], rel=1e-5, abs=1e-5), name
    assert ours.gradients.keys() == trl.gradients.keys()
    for name, gradient in ours.gradients.items():
        torch.testing.assert_close(gradient, trl.gradients[name], rtol=1e-5, atol=1e-5, msg=name)
