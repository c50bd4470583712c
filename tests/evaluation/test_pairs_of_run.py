"""PairAccuracy of a run's own pairs: one figure a pair, in the order of the rows, equal to plain forward passes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from transformers import PreTrainedModel

from lit_pref.callbacks import BeforeAfter
from lit_pref.datamodules import DemonstrationsDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.evaluation import PairAccuracy
from lit_pref.losses import DPO, LikelihoodBudget
from lit_pref.models import load_causal_lm, load_tokenizer
from lit_pref.modules import DPOModule, RewardFinetuneModule, SFTModule, adamw
from lit_pref.types import RowBatch
from tests.tiny import rows_file, trainer_for

# Not sorted by length, so that the order of the rows is not that of the batches.
ROWS = [
    {"prompt": f"# {i}\n", "chosen": "x = 1\n" * (7 * i % 5 + 1), "rejected": "y + " * (3 * i % 4) + "1"}
    for i in range(7)
]


def data_of(folder: Path, **settings: Any) -> PairsDataModule:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return PairsDataModule(str(path), **{"validation": str(path), "batch_size": 3, "seed": 0, **settings})


def plain(model: PreTrainedModel, policy: str, side: str) -> Tensor:
    """Summed log-probs of a side of every row, EOS included, [P]; one unpadded forward pass each."""
    tokenizer, sums = load_tokenizer(policy), []
    for row in ROWS:
        prompt, target = tokenizer(row["prompt"]).input_ids, [*tokenizer(row[side]).input_ids, 0]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        sums.append(logits.log_softmax(-1).gather(-1, torch.tensor(target)[:, None]).sum())
    return torch.stack(sums)


def check(figures: dict[str, Tensor], model: PreTrainedModel, policy: str) -> None:
    chosen, rejected = plain(model, policy, "chosen"), plain(model, policy, "rejected")
    torch.testing.assert_close(figures["logps/chosen"], chosen, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(figures["logps/rejected"], rejected, rtol=1e-6, atol=1e-5)
    assert figures["pair_accuracy"].tolist() == (chosen > rejected).float().tolist()


def test_figures_before_and_after_equal_plain_forwards(policy: str, tmp_path: Path):
    regularizer = LikelihoodBudget(budget=0.5)
    module = DPOModule(policy, DPO(0.3), regularizer, optimizer=adamw(1e-2), cache_folder=tmp_path)
    table = BeforeAfter([PairAccuracy()])
    trainer_for(tmp_path, table).fit(module, data_of(tmp_path))
    start = load_causal_lm(policy)
    names = {"pair_accuracy", "logps/chosen", "logps/rejected", "budget/over"}
    for figures, model in ((table.before, start), (table.after, module.model)):
        assert figures.keys() == names and all(x.shape == (7,) and x.device.type == "cpu" for x in figures.values())
        check(figures, model, policy)
    assert table.before["budget/over"].tolist() == [0.0] * 7
    fall = plain(start, policy, "chosen") - plain(module.model, policy, "chosen")
    assert table.after["budget/over"].tolist() == (fall > 0.5).float().tolist()
    assert not torch.equal(table.before["logps/chosen"], table.after["logps/chosen"])


def test_a_likelihood_baseline_has_them_too_but_no_budget(policy: str, tmp_path: Path):
    module, table = SFTModule(policy, optimizer=adamw(1e-2)), BeforeAfter([PairAccuracy()])
    trainer_for(tmp_path, table).fit(module, data_of(tmp_path))
    assert table.after.keys() == {"pair_accuracy", "logps/chosen", "logps/rejected"}
    check(table.after, module.model, policy)
    # it imitates the chosen sides of these very pairs
    assert table.after["logps/chosen"].mean() > table.before["logps/chosen"].mean()


def test_a_tie_is_no_hit(policy: str, tmp_path: Path):
    class Level(SFTModule):
        def row_figures(self, batch: RowBatch) -> Any:
            figures = super().row_figures(batch)
            return figures | {"logps/rejected": figures["logps/chosen"]}

    table = BeforeAfter([PairAccuracy()])
    trainer_for(tmp_path, table).fit(Level(policy), data_of(tmp_path))
    assert table.before["pair_accuracy"].tolist() == [0.0] * 7


def test_of_a_reward_model_scores_decide(policy: str, tmp_path: Path):
    class Given(RewardFinetuneModule):
        def row_figures(self, batch: RowBatch) -> dict[str, Tensor]:
            rejected = torch.tensor([1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0])
            return {"score_chosen": batch.row_R.float(), "score_rejected": rejected[batch.row_R]}

    table = BeforeAfter([PairAccuracy()])
    trainer_for(tmp_path, table).fit(Given(policy), data_of(tmp_path))
    assert {name: values.tolist() for name, values in table.before.items()} == {
        "pair_accuracy": [0, 0, 1, 1, 0, 0, 1],  # the second and the sixth are ties
        "nll": pytest.approx([math.log(1 + math.exp(-margin)) for margin in (-1, 0, 1, 2, -1, 0, 1)]),
        "margin": [-1, 0, 1, 2, -1, 0, 1],
        "score_chosen": [0, 1, 2, 3, 4, 5, 6],
        "score_rejected": [1, 1, 1, 1, 5, 5, 5],
    }


def test_without_validation_pairs_it_says_so_once_and_the_run_trains(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data, table = data_of(tmp_path, validation=None, validation_size=0.0), BeforeAfter([PairAccuracy()])
    trainer = trainer_for(tmp_path, table, max_epochs=3)
    trainer.fit(SFTModule(policy), data)
    assert trainer.global_step == 9 and table.before == table.after == {}
    assert capsys.readouterr().out.count("validation pairs: none, so nothing is measured of them") == 1


def test_a_value_that_is_no_number_is_named(policy: str, tmp_path: Path):
    module = RewardFinetuneModule(policy)
    with torch.no_grad():
        module.score_head.weight[0, 0] = math.nan
    with pytest.raises(UserError, match="score_chosen of pair 0 is nan under the weights of"):
        trainer_for(tmp_path, BeforeAfter([PairAccuracy()])).fit(module, data_of(tmp_path))


def test_demonstrations_are_no_pairs(policy: str, tmp_path: Path):
    data = DemonstrationsDataModule(train_size=4, validation_size=4, seed=0)
    with pytest.raises(UserError, match="SFTModule measures batches of the kind pair, and is given demonstration"):
        trainer_for(tmp_path, BeforeAfter([PairAccuracy()])).fit(SFTModule(policy), data)


def test_a_module_that_scores_no_pairs_is_refused():
    with pytest.raises(TypeError, match="needs a module that scores pairs, got LightningModule"):
        PairAccuracy()(LightningModule())


def test_the_split_is_that_of_what_runs_unless_it_is_named(policy: str, tmp_path: Path):
    rows = [{"prompt": f"# {i}\n", "chosen": "x", "rejected": "y"} for i in range(5)]
    test = rows_file(tmp_path / "test.jsonl", rows)
    data, module = data_of(tmp_path, test=test), DPOModule(policy, DPO(0.3), optimizer=adamw(1e-2))
    table = BeforeAfter([PairAccuracy(), PairAccuracy(split="test", prefix="told/")])
    trainer = trainer_for(tmp_path, table)
    trainer.fit(module, data)
    assert table.splits["pair_accuracy"] == "validation" and table.splits["told/pair_accuracy"] == "test"
    assert len(table.before["pair_accuracy"]) == 7 and len(table.before["told/pair_accuracy"]) == 5
    trainer.test(module, data, verbose=False)
    assert set(table.splits.values()) == {"test"} and len(table.after["pair_accuracy"]) == 5
    # The fit measured the told ones too, after its last step.
    assert table.before.keys() == {f"told/{name}" for name in ("pair_accuracy", "logps/chosen", "logps/rejected")}
    torch.testing.assert_close(table.after["logps/chosen"], table.after["told/logps/chosen"])
