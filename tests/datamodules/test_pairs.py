"""PairsDataModule: rows to batches, what is held out, in which order, and what is counted; resumed within an epoch."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from lit_pref.data.batches.packing import collate_rows
from lit_pref.data.formats.pairs import PairKeys
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules import Loading, PairsDataModule, SplitNames
from lit_pref.errors import UserError
from lit_pref.losses import SimPO
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.modules import Compute, DPOModule, WarmupCosine
from lit_pref.modules.pairs import score_pairs
from lit_pref.types import RowBatch
from tests.tiny import saved, tiny_llama, trainer_for

ROWS = [{"prompt": f"# {i}\n", "chosen": "x" * (i % 7 + 1), "rejected": "y" * (i % 5 + 1)} for i in range(40)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights near 0, whose gradients are small enough to be compared to 1e-6."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "initializer_range": 0.02}
    return saved(tmp_path_factory.mktemp("policy") / "model", tiny_llama(**sizes))


@pytest.fixture(autouse=True)
def _own_seed_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that what seed_everything sets is put back
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def module_of(policy: str, **settings: Any) -> DPOModule:
    optimizer = lambda params: torch.optim.SGD(params, lr=0.0)  # noqa: E731
    return DPOModule(policy, SimPO(), **{"optimizer": optimizer, "scheduler": None, **settings})


def made(data: PairsDataModule, policy: str, folder: Path) -> PairsDataModule:
    """Set up through a Trainer, without a step."""
    trainer_for(folder, limit_train_batches=0, limit_val_batches=0).fit(module_of(policy), data)
    return data


def texts(data: PairsDataModule, stage: Any = "train") -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of every tree, EOS left out."""
    tokenizer = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    return [(decode(tree.prompt_ids), *map(decode, tree.completion_ids)) for tree in data.data[stage].trees]


# --- rows to trees ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_file_formats_give_the_same_pairs(policy: str, tmp_path: Path, suffix: str):
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "jsonl":
        written(path, ROWS)
    elif suffix == "json":
        path.write_text(json.dumps(ROWS))
    elif suffix == "csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)
    data = made(PairsDataModule(str(path), validation_size=0.0), policy, tmp_path)
    assert sorted(texts(data)) == sorted((row["prompt"], row["chosen"], row["rejected"]) for row in ROWS)
    assert all(ids[-1] == 0 and 0 not in ids[:-1] for tree in data.data["train"].trees for ids in tree.completion_ids)


def test_key_names_of_the_user_and_margins_reach_the_batch(policy: str, tmp_path: Path):
    rows = [{"question": r["prompt"], "good": r["chosen"], "bad": r["rejected"], "gap": i} for i, r in enumerate(ROWS)]
    data = PairsDataModule(
        written(tmp_path / "pairs.jsonl", rows),
        validation_size=0.0,
        keys=PairKeys("question", "good", "bad", "gap"),
        seed=3,
    )
    made(data, policy, tmp_path)
    batch = next(iter(data.train_dataloader()))
    prompts = [texts(data)[row][0] for row in batch.row_R.tolist()]
    assert batch.value_R.tolist() == [float(prompt.strip("# \n")) for prompt in prompts]


def test_long_pairs_are_dropped_and_told(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # Prompts "# i\n" are shorter than 8 tokens; a long one takes at least its 60 digits.
    rows = [*ROWS[:5], {"prompt": "#" + " 1" * 30, "chosen": "a", "rejected": "b"}]
    limits = LengthLimits(max_prompt_length=8)
    data = PairsDataModule(written(tmp_path / "pairs.jsonl", rows), validation_size=0.0, limits=limits)
    made(data, policy, tmp_path)
    assert len(data.data["train"]) == 5
    assert "5 pairs, {'kept': 5, 'dropped_long_prompt': 1}" in capsys.readouterr().out


def test_no_pair_within_the_limits_is_an_error(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(UserError, match=r"no pair of .*pairs.jsonl is left .*'dropped_long_prompt': 40"):
        made(PairsDataModule(path, validation_size=0, limits=LengthLimits(max_prompt_length=1)), policy, tmp_path)


def test_bad_rows_are_skipped_on_demand_and_counted_in_the_run_folder(policy: str, tmp_path: Path):
    bad = [{"prompt": "a", "chosen": "b"}, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    path = written(tmp_path / "pairs.jsonl", [*ROWS, *bad])
    with pytest.raises(UserError, match=r"pairs.jsonl:41: expected the key \"rejected\""):
        made(PairsDataModule(path), policy, tmp_path)
    data = made(PairsDataModule(path, on_bad_row="skip", validation_size=0.0), policy, tmp_path)
    assert len(data.data["train"]) == 40
    skipped = json.loads((tmp_path / "skipped_rows_train.json").read_text())
    assert skipped["total"] == 2 and skipped["counts"] == {"missing key": 1, "equal sides": 1}


# --- what is held out, and the order ----------------------------------------------------------------------------------


def test_a_share_is_held_out(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", ROWS)
    splits = []
    for seed in (1, 1, 2):
        data = made(PairsDataModule(path, validation_size=0.25, seed=seed), policy, tmp_path)
        train, held_out = texts(data), texts(data, "validation")
        assert (len(train), len(held_out)) == (30, 10)
        assert sorted(train + held_out) == sorted((row["prompt"], row["chosen"], row["rejected"]) for row in ROWS)
        splits.append(held_out)
    assert splits[0] == splits[1] != splits[2]


def test_pairs_of_one_prompt_are_on_one_side(policy: str, tmp_path: Path):
    # 10 prompts of four pairs, two of which write theirs otherwise: 10 of 40 are wanted, 8 or 12 come nearest.
    rows = [
        {**row, "prompt": ["# {}\n", "# {} \n\n", "#\t{}\n", "# {}\n"][i % 4].format(i // 4)}
        for i, row in enumerate(ROWS)
    ]
    data = made(PairsDataModule(written(tmp_path / "a.jsonl", rows), validation_size=0.25), policy, tmp_path)
    train, held_out = ({prompt.split()[1] for prompt, _, _ in texts(data, stage)} for stage in ("train", "validation"))
    assert not train & held_out and len(train | held_out) == 10 and len(data.data["validation"]) in (8, 12)


def test_of_four_pairs_one_is_held_out_and_of_one_prompt_none(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = made(PairsDataModule(written(tmp_path / "a.jsonl", ROWS[:4])), policy, tmp_path)
    assert (len(data.data["train"]), len(data.data["validation"])) == (3, 1)
    rows = [{**row, "prompt": "# 1\n", "rejected": f"z{i}"} for i, row in enumerate(ROWS[:4])]
    data = made(PairsDataModule(written(tmp_path / "b.jsonl", rows)), policy, tmp_path)
    assert len(data.data["train"]) == 4 and "validation" not in data.data
    told = "the pairs have one prompt, so none is held out and nothing is measured"
    data.setup("fit")
    assert capsys.readouterr().out.count(told) == 1


def test_tokens_beyond_the_embedding_are_refused_before_training(policy: str, tmp_path: Path):
    module = module_of(policy)
    module.tokenizer.add_tokens(["<new>"])  # 885 tokens, the model embeds 884
    rows = [*ROWS, {"prompt": "# 1", "chosen": "<new>", "rejected": "x"}]
    with pytest.raises(UserError, match=r"token 884 of the data is beyond the 884 that.* tokenizer has 885"):
        trainer_for(tmp_path).fit(module, PairsDataModule(written(tmp_path / "a.jsonl", rows)))


def test_splits_of_a_saved_data_set_and_slices_of_a_file(policy: str, tmp_path: Path):
    import datasets

    saved = {"train_prefs": datasets.Dataset.from_list(ROWS[:30]), "test_prefs": datasets.Dataset.from_list(ROWS[30:])}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    splits = SplitNames("train_prefs", "test_prefs")
    data = made(PairsDataModule(str(tmp_path / "saved"), splits=splits), policy, tmp_path)
    assert [len(data.data[stage]) for stage in ("train", "validation")] == [30, 10]
    with pytest.raises(UserError, match=r'has no split "train": expected one of train_prefs, test_prefs.*splits.train'):
        made(PairsDataModule(str(tmp_path / "saved")), policy, tmp_path)
    splits = SplitNames("train[:20%]", "train[-3:]")
    data = made(PairsDataModule(written(tmp_path / "a.jsonl", ROWS), splits=splits), policy, tmp_path)
    assert [prompt for prompt, _, _ in texts(data, "validation")] == ["# 37\n", "# 38\n", "# 39\n"]
    assert len(data.data["train"]) == 8


def test_columns_that_are_not_used_are_named_by_every_run(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = written(tmp_path / "a.jsonl", [*ROWS, {**ROWS[0], "context": "c"}, {**ROWS[0], "context": "d"}])
    for _ in range(2):
        made(PairsDataModule(path), policy, tmp_path)
        assert capsys.readouterr().err.count(f'{path}:41: column "context" is not used') == 1


def test_validation_pairs_of_their_own_leave_training_whole(policy: str, tmp_path: Path):
    train, held_out = written(tmp_path / "a.jsonl", ROWS[:30]), written(tmp_path / "b.jsonl", ROWS[30:])
    data = made(PairsDataModule(train, validation=held_out), policy, tmp_path)
    assert (len(data.data["train"]), len(data.data["validation"])) == (30, 10)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_impossible_share_is_refused(share: float):
    with pytest.raises(ValueError, match=rf"validation_size must be a share in \[0, 1\) or a count >= 0, got {share}"):
        PairsDataModule("pairs.jsonl", validation_size=share)


class Rows(Callback):
    """The rows of each training batch; stops the run in the middle of batch `fail_at`."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.rows: list[list[int]] = []
        self.fail_at = fail_at

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: RowBatch, index: int) -> None:
        if len(self.rows) == self.fail_at:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "stopped.ckpt")
            raise RuntimeError("on purpose")

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: RowBatch, index: int
    ) -> None:
        self.rows.append(batch.row_R.tolist())


def order(policy: str, folder: Path, data: PairsDataModule, **settings: Any) -> list[list[int]]:
    rows = Rows()
    trainer_for(folder, rows, **settings).fit(module_of(policy), data)
    return rows.rows


def test_the_order_is_a_function_of_the_seed(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", ROWS)

    def with_seed(seed: int | None) -> list[list[int]]:
        data = PairsDataModule(path, validation_size=0.0, batch_size=8, seed=seed)
        return order(policy, tmp_path, data, max_epochs=2)

    first = with_seed(1)
    assert len(first) == 10 and sorted(chain(*first[:5])) == sorted(chain(*first[5:])) == list(range(40))
    assert first[:5] != first[5:]  # another order in the second epoch
    assert with_seed(1) == first != with_seed(2)
    seed_everything(1, verbose=False)
    assert with_seed(None) == first


# --- tokens on the disk -----------------------------------------------------------------------------------------------


def stores(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "tokens").iterdir())


def test_a_later_run_finds_the_tokens_and_tells_what_was_left_out(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rows = [*ROWS, {"prompt": "#" + " 1" * 30, "chosen": "a", "rejected": "b"}, {"prompt": "a", "chosen": "b"}]
    path = written(tmp_path / "pairs.jsonl", rows)

    def run() -> tuple[PairsDataModule, str, Any]:
        data = PairsDataModule(path, limits=LengthLimits(max_prompt_length=8), on_bad_row="skip", seed=1)
        made(data, policy, tmp_path)
        told = [line for line in capsys.readouterr().out.splitlines() if "pairs" in line]
        skipped = tmp_path / "skipped_rows_train.json"
        read = json.loads(skipped.read_text())
        skipped.unlink()
        return data, "\n".join(told), read

    first, told, skipped = run()
    assert f"{path}: 41 rows; skipped rows: 1 missing key" in told  # the long one is a pair, though not kept
    assert "train: 40 pairs, {'kept': 40, 'dropped_long_prompt': 1}" in told
    assert len(stores(tmp_path)) == 1 and skipped["counts"] == {"missing key": 1}

    def again(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("lit_pref.data.tokens.cache.iterate_records", again)
    second, told_again, skipped_again = run()
    assert (told_again, skipped_again) == (told, skipped)
    for stage in ("train", "validation"):
        assert texts(second, stage) == texts(first, stage)
    assert second.fingerprints == first.fingerprints and set(first.fingerprints) == {"train", "validation"}


def test_train_and_held_out_pairs_are_rows_of_one_store(policy: str, tmp_path: Path):
    rows = [{**row, "margin": i} for i, row in enumerate(ROWS)]
    path = written(tmp_path / "pairs.jsonl", rows)
    prints = []
    for seed in (1, 2):
        data = made(PairsDataModule(path, validation_size=0.25, seed=seed), policy, tmp_path)
        for stage in ("train", "validation"):
            # Row i of the file has prompt "# i" and margin i: rows, margins and lengths must have moved together.
            numbers = [float(prompt.strip("# \n")) for prompt, _, _ in texts(data, stage)]
            assert numbers == sorted(numbers)
            assert list(data.data[stage].values) == numbers  # type: ignore[attr-defined]
            assert data.data[stage].lengths.tolist() == [tree.shared_length for tree in data.data[stage].trees]
        prints.append(data.fingerprints)
    assert len(stores(tmp_path)) == 1
    assert len({fingerprint for each in prints for fingerprint in each.values()}) == 4


def test_setup_makes_what_nobody_prepared(policy: str, tmp_path: Path):
    data = PairsDataModule(written(tmp_path / "pairs.jsonl", ROWS), validation_size=0.0)
    data.trainer = trainer_for(tmp_path)
    data.trainer.strategy._lightning_module = module_of(policy)
    data.setup("fit")
    assert len(data.data["train"]) == 40


def test_other_processes_open_what_the_first_has_made(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = written(tmp_path / "pairs.jsonl", [*ROWS, "{"])
    settings: dict[str, Any] = {"on_bad_row": "skip", "validation_size": 0.25, "seed": 1}
    first = made(PairsDataModule(path, **settings), policy, tmp_path)
    (tmp_path / "skipped_rows_train.json").unlink()
    capsys.readouterr()
    folder = first.data["train"].trees.store.folder  # type: ignore[attr-defined]
    for there, made_anew in ((folder, False), (tmp_path / "on another machine", True)):
        trainer = trainer_for(tmp_path, limit_train_batches=0)
        monkeypatch.setattr(type(trainer), "world_size", 2)
        monkeypatch.setattr(type(trainer), "is_global_zero", False)
        monkeypatch.setattr(trainer.strategy, "broadcast", lambda own, there=there: there)
        trainer.strategy._lightning_module = module_of(policy)
        monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "own"))
        second = PairsDataModule(path, **settings)
        second.trainer = trainer
        second.setup("fit")
        assert second.fingerprints == first.fingerprints and texts(second) == texts(first)
        assert (tmp_path / "own").exists() == made_anew
    assert capsys.readouterr().out == "" and not (tmp_path / "skipped_rows_train.json").exists()


def test_a_cache_that_cannot_be_written_stops_no_run(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "cache").write_text("a file where the folder should be")
    data = made(PairsDataModule(written(tmp_path / "pairs.jsonl", ROWS), validation_size=0.0), policy, tmp_path)
    assert len(data.data["train"]) == 40
    assert capsys.readouterr().out.count("this run keeps them in a temporary folder") == 1


def test_fingerprints_tell_data_apart(policy: str, tmp_path: Path):
    changed = [{**ROWS[0], "rejected": "zz"}, *ROWS[1:]]
    prints = [
        made(PairsDataModule(written(tmp_path / f"{i}.jsonl", rows), validation_size=0.0), policy, tmp_path)
        for i, rows in enumerate((ROWS, ROWS, changed, ROWS[:-1]))
    ]
    same, again, other, shorter = (data.fingerprints["train"] for data in prints)
    assert same == again
    assert len({same, other, shorter}) == 3


def test_another_module_gets_data_of_its_own(policy: str, tmp_path: Path):
    data = PairsDataModule(written(tmp_path / "pairs.jsonl", ROWS), validation_size=0.0, batch_size=4)
    for layout, rows_a_pair in (("shared", 1), ("repeated", 2)):
        trainer_for(tmp_path, limit_train_batches=0, limit_val_batches=0).fit(
            module_of(policy, compute=Compute(layout=layout)), data
        )
        assert len(next(iter(data.train_dataloader())).trees.input_ids_BT) == 4 * rows_a_pair


def test_without_a_trainer_it_says_what_it_needs(tmp_path: Path):
    with pytest.raises(UserError, match=r'run it through a Trainer, or name one, as in .*policy="embedded:coder"'):
        PairsDataModule(written(tmp_path / "pairs.jsonl", ROWS)).setup("fit")


# --- resumed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 3, 5, 8, 10])
@pytest.mark.parametrize("scheduled", [False, True])
def test_an_interrupted_run_goes_on_with_the_very_next_batch(policy: str, tmp_path: Path, stop: int, scheduled: bool):
    # 40 pairs in batches of 8: 5 a epoch, 3 epochs. A schedule makes Lightning ask for the loader before it restores.
    path = written(tmp_path / "pairs.jsonl", ROWS)
    scheduler = (lambda optimizer: WarmupCosine(optimizer)) if scheduled else None

    def data() -> PairsDataModule:
        return PairsDataModule(path, validation_size=0.0, batch_size=8, seed=1)

    whole = order(policy, tmp_path, data(), max_epochs=3)
    stopped = Rows(fail_at=stop)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer_for(tmp_path, stopped, max_epochs=3).fit(module_of(policy, scheduler=scheduler), data())
    assert stopped.rows == whole[:stop]
    resumed, trainer = Rows(), trainer_for(tmp_path, max_epochs=3)
    trainer.callbacks.append(resumed)  # type: ignore[attr-defined]
    trainer.fit(module_of(policy, scheduler=scheduler), data(), ckpt_path=tmp_path / "stopped.ckpt")
    assert resumed.rows == whole[stop:]
    assert trainer.global_step == 15 and trainer.current_epoch == 3


def test_workers_keep_the_order_of_a_resumed_run(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", ROWS)

    def data() -> PairsDataModule:
        return PairsDataModule(path, validation_size=0.0, batch_size=8, seed=1, loading=Loading(num_workers=1))

    whole = order(policy, tmp_path, data(), max_epochs=2)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer_for(tmp_path, Rows(fail_at=6), max_epochs=2).fit(module_of(policy), data())
    resumed = Rows()
    trainer_for(tmp_path, resumed, max_epochs=2).fit(module_of(policy), data(), ckpt_path=tmp_path / "stopped.ckpt")
    assert resumed.rows == whole[6:]


def test_a_validated_checkpoint_leaves_the_next_fit_alone(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", ROWS)
    data = PairsDataModule(path, validation=path, batch_size=8, seed=1)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer_for(tmp_path, Rows(fail_at=2)).fit(module_of(policy), data)
    module = module_of(policy)
    trainer_for(tmp_path).validate(module, data, ckpt_path=tmp_path / "stopped.ckpt", verbose=False)
    rows = Rows()
    trainer_for(tmp_path, rows).fit(module, data)
    assert sorted(chain(*rows.rows)) == list(range(40))


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"loading": Loading(48)}], ids=["rows", "budget"])
def test_a_finished_run_goes_on_for_more_epochs(policy: str, tmp_path: Path, settings: dict[str, int]):
    path = written(tmp_path / "pairs.jsonl", ROWS)

    def data() -> PairsDataModule:
        return PairsDataModule(path, validation_size=0.0, seed=1, **settings)

    whole = order(policy, tmp_path, data(), max_epochs=3)
    trainer = trainer_for(tmp_path, max_epochs=1)
    trainer.fit(module_of(policy), data())
    trainer.save_checkpoint(tmp_path / "finished.ckpt")
    resumed = Rows()
    trainer_for(tmp_path, resumed, max_epochs=3).fit(module_of(policy), data(), ckpt_path=tmp_path / "finished.ckpt")
    assert resumed.rows == whole[len(whole) // 3 :]


# --- a budget of tokens -----------------------------------------------------------------------------------------------


class Gradients(Callback):
    """What each optimizer step goes along."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self.steps.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("layout", ["packed", "shared", "repeated"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_budgets_gradient_is_that_of_its_pairs_one_by_one(policy: str, tmp_path: Path, layout: Any, accumulate: int):
    path = written(tmp_path / "pairs.jsonl", ROWS)
    rows, gradients = Rows(), Gradients()
    data = PairsDataModule(path, validation_size=0.0, loading=Loading(60), seed=1)
    trainer = trainer_for(tmp_path, rows, gradients, accumulate_grad_batches=accumulate)
    trainer.fit(module_of(policy, compute=Compute(layout=layout)), data)
    assert sorted(chain(*rows.rows)) == list(range(40)) and len({len(batch) for batch in rows.rows}) > 1

    module = module_of(policy)
    trees, pad_id = data.data["train"].trees, module.tokenizer.pad_token_id
    for step, gradient in enumerate(gradients.steps):
        module.zero_grad()
        pairs = list(chain(*rows.rows[step * accumulate : (step + 1) * accumulate]))
        for row in pairs:
            batch = collate_rows("pair", [[trees[row]]], [row], pad_id, shared=False)
            (module.objective(score_pairs(module, batch), None).sum() / len(pairs)).backward()
        for name, parameter in module.named_parameters():
            off = (gradient[name] - parameter.grad).abs().max()
            assert off <= 1e-6 * max(1.0, parameter.grad.abs().max()), f"step {step}, {name}: off by {off}"


def test_an_interrupted_budget_goes_on_with_the_very_next_batch(policy: str, tmp_path: Path):
    path = written(tmp_path / "pairs.jsonl", ROWS)

    def data() -> PairsDataModule:
        return PairsDataModule(path, validation_size=0.0, loading=Loading(60), seed=1)

    whole = order(policy, tmp_path, data(), max_epochs=2)
    stop = len(whole) // 2 + 2
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer_for(tmp_path, Rows(fail_at=stop), max_epochs=2).fit(module_of(policy), data())
    resumed = Rows()
    trainer_for(tmp_path, resumed, max_epochs=2).fit(module_of(policy), data(), ckpt_path=tmp_path / "stopped.ckpt")
    assert resumed.rows == whole[stop:]


def test_a_pair_longer_than_the_budget_is_a_batch_of_its_own(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    long = {"prompt": "# long\n", "chosen": "x + y * z\n" * 30, "rejected": "y\n" * 20}
    path = written(tmp_path / "pairs.jsonl", [*ROWS, long])
    data = PairsDataModule(path, validation_size=0.0, loading=Loading(60), seed=1)
    rows = order(policy, tmp_path, data)
    assert [40] in rows and sorted(chain(*rows)) == list(range(41))
    length = data.data["train"].lengths.max()
    assert (
        f"train: 1 of 41 rows are longer than max_tokens_per_batch 60, the longest {length} tokens: each is a batch of "
        "its own; raise the budget"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["batch_size", "max_tokens_per_batch"])
def test_a_batch_needs_a_row(name: str):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        PairsDataModule("pairs.jsonl", batch_size=0) if name == "batch_size" else Loading(**{name: 0})
