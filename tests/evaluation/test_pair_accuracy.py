"""PairAccuracy: pairs of a file or a task, scored as the data module's own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from lit_pref.data.formats.pairs import PairKeys
from lit_pref.data.formats.write import write_pairs
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.errors import UserError
from lit_pref.evaluation import PairAccuracy
from lit_pref.modules import RewardFinetuneModule
from lit_pref.rewards.learned import Candidates, score
from lit_pref.types import PairTask, PreferencePair, Split

PAIRS = [PreferencePair(f"# {i}\n", "x = 1\n" * (i % 3 + 1), "y + " * (i % 2) + "1") for i in range(6)]


class Given(PairTask):
    name = "given"

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        return PAIRS[seed : None if count is None else seed + count]


@pytest.fixture(scope="module")
def module() -> RewardFinetuneModule:
    return RewardFinetuneModule("embedded:coder")


def written(path: Path, **keys: str) -> str:
    names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"} | keys
    rows = [{key: getattr(pair, name) for name, key in names.items()} for pair in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_figures_of_a_file_and_of_a_task(tmp_path: Path, module: RewardFinetuneModule) -> None:
    chosen, rejected = torch.stack(score(module, [Candidates(p.prompt, (p.chosen, p.rejected)) for p in PAIRS])).T
    for pairs in (written(tmp_path / "pairs.jsonl"), Given()):
        figures = PairAccuracy(pairs)(module)
        assert list(figures) == ["pair_accuracy", "nll", "margin", "score_chosen", "score_rejected"]
        assert figures["pair_accuracy"].tolist() == (chosen > rejected).float().tolist()
        assert torch.equal(figures["score_chosen"], chosen) and torch.equal(figures["score_rejected"], rejected)
        expected = [math.log1p(math.exp(-gap)) for gap in (chosen - rejected).tolist()]
        assert figures["nll"].tolist() == pytest.approx(expected, rel=1e-5)


def test_some_of_them_under_a_prefix_and_own_keys(tmp_path: Path, module: RewardFinetuneModule) -> None:
    source = written(tmp_path / "pairs.jsonl", chosen="good", rejected="bad")
    keys = PairKeys(chosen_key="good", rejected_key="bad")
    figures = PairAccuracy(source, count=4, keys=keys, prefix="own/")(module)
    assert figures["own/margin"].shape == (4,)
    assert torch.equal(figures["own/margin"], PairAccuracy(Given(), count=4)(module)["margin"])
    # Of batches with other pairs in them, whose last bits may differ.
    torch.testing.assert_close(
        PairAccuracy(Given(), count=2, seed=3)(module)["margin"], PairAccuracy(Given())(module)["margin"][3:5]
    )


def test_sampled_tokens_count_where_the_vocabulary_is_the_same(tmp_path: Path, module: RewardFinetuneModule) -> None:
    ids = tuple(token for letter in "x = 1" for token in module.tokenizer(letter).input_ids)
    pairs = [PreferencePair("# 1\n", "x = 1", "1", None, (*ids, 0), (*module.tokenizer("1").input_ids, 0))]
    own, foreign = tmp_path / "own.parquet", tmp_path / "foreign.parquet"
    write_pairs(own, pairs, vocabulary_fingerprint(module.tokenizer))
    write_pairs(foreign, pairs, "0" * 32)
    (as_text,), (as_tokens,) = (
        score(module, [Candidates("# 1\n", ["x = 1"], sampled)]) for sampled in (None, [(*ids, 0)])
    )
    assert (as_text - as_tokens).abs() > 1e-3
    for file, expected in ((own, as_tokens), (foreign, as_text)):
        found = PairAccuracy(str(file))(module)["score_chosen"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # beside another completion


def test_what_is_no_pairs(tmp_path: Path, module: RewardFinetuneModule) -> None:
    with pytest.raises(UserError, match=r"pairs.jsonl: holds 6 pairs, 7 asked for"):
        PairAccuracy(written(tmp_path / "pairs.jsonl"), count=7)(module)
    with pytest.raises(UserError, match="no such file or folder"):
        PairAccuracy(str(tmp_path / "absent.jsonl"))(module)
    with pytest.raises(ValueError, match="count must be >= 1, of given pairs, got 0"):
        PairAccuracy(Given(), count=0)
    with pytest.raises(TypeError, match="of given pairs needs a reward model's module, got LightningModule"):
        PairAccuracy(Given())(LightningModule())


def test_a_conversation_is_scored_as_one(tmp_path: Path, module: RewardFinetuneModule) -> None:
    turn: Any = {"prompt": [{"role": "user", "content": "q"}]}
    turn |= {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(turn) + "\n")
    with pytest.raises(UserError, match="a conversation needs a chat template"):
        PairAccuracy(str(tmp_path / "pairs.jsonl"))(module)
