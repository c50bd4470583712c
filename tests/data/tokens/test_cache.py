"""Token stores of a source: found again by content, made again where anything differs, never in the way of a run."""

import gc
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.formats.pairs import PairKeys, read_pairs
from lit_pref.data.tokens import cache as token_cache
from lit_pref.data.tokens.cache import PairSource, token_store
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.store import TokenStore
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.errors import UserError
from lit_pref.models import load_tokenizer

ROWS = [{"prompt": f"# {i}\n", "chosen": f"x = {i}", "rejected": "y", "margin": i} for i in range(40)]


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer("embedded:coder")


def written(path: Path, rows: list[Any]) -> PairSource:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return PairSource(str(path), "train", None, LengthLimits(), "error")


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "tokens").iterdir())


def test_a_store_holds_what_reading_and_tokenizing_give(tokenizer: Any, tmp_path: Path):
    source = written(tmp_path / "pairs.jsonl", ROWS)
    store = token_store(source, tokenizer, tmp_path / "cache")
    expected = tokenize(read_pairs(source.source).records, tokenizer)
    assert list(store.trees()) == expected.trees
    assert store.values is not None and list(store.values) == expected.values
    assert store.counts == expected.counts == {"kept": 40}
    assert names(tmp_path / "cache") == [store.folder.name]


def test_a_later_run_finds_it(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = written(tmp_path / "pairs.jsonl", [*ROWS, {"prompt": "a"}])
    source = replace(source, on_bad_row="skip")
    first = token_store(source, tokenizer, tmp_path / "cache")

    def again(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(token_cache, "tokenized_chunks", again)
    found = token_store(source, load_tokenizer("embedded:coder"), tmp_path / "cache")
    assert found.folder == first.folder and list(found.trees()) == list(first.trees())
    assert found.skipped == first.skipped and found.skipped["counts"] == {"missing key": 1}
    # The same bytes under another name, or as another split, are the same pairs.
    plain = written(tmp_path / "plain.jsonl", ROWS)
    with pytest.raises(AssertionError, match="tokenized again"):
        token_store(plain, tokenizer, tmp_path / "cache")
    monkeypatch.undo()
    kept = token_store(plain, tokenizer, tmp_path / "cache")
    copied = replace(plain, source=str(shutil.copy(plain.source, tmp_path / "copy.jsonl")), split="validation")
    assert token_store(copied, tokenizer, tmp_path / "cache").folder == kept.folder


def test_whatever_changes_the_tokens_misses(tokenizer: Any, tmp_path: Path):
    source = written(tmp_path / "pairs.jsonl", ROWS)
    changed = written(tmp_path / "changed.jsonl", [{**ROWS[0], "rejected": "z"}, *ROWS[1:]])
    turned = written(tmp_path / "turned.jsonl", ROWS[::-1])
    (tmp_path / "part-1.jsonl").write_text(Path(source.source).read_text())
    (tmp_path / "part-2.jsonl").write_text(Path(changed.source).read_text())
    other = load_tokenizer("embedded:coder")
    other.add_tokens(["chosen"])
    template = load_tokenizer("embedded:coder")
    template.chat_template = "{{ messages }}"
    without_eos = load_tokenizer("embedded:coder")
    without_eos.eos_token = "<pad>"
    cases = [
        (source, tokenizer),
        (changed, tokenizer),
        (turned, tokenizer),
        (replace(source, source=str(tmp_path / "part-*.jsonl")), tokenizer),
        (replace(source, limits=LengthLimits(max_length=30)), tokenizer),
        (replace(source, keys=PairKeys(margin_key="margin")), tokenizer),
        (replace(source, on_bad_row="skip"), tokenizer),
        (source, other),
        (source, template),
        (source, without_eos),
    ]
    folders = [token_store(*case, tmp_path / "cache").folder for case in cases]
    assert len(set(folders)) == len(cases)


@pytest.mark.parametrize("damage", ["cut", "altered", "described otherwise", "a file", "a link", "another's"])
def test_a_damaged_store_is_made_again(tokenizer: Any, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]):
    source = written(tmp_path / "pairs.jsonl", ROWS)
    first = token_store(source, tokenizer, tmp_path / "cache")
    trees, file = list(first.trees()), first.folder / "tokens.bin"
    if damage == "cut":
        os.truncate(file, 100)
    elif damage == "altered":
        file.write_bytes(file.read_bytes()[::-1])
    elif damage == "described otherwise":
        (first.folder / "store.json").write_text("{")
    else:
        other = token_store(written(tmp_path / "other.jsonl", ROWS[:3]), tokenizer, tmp_path / "cache")
        shutil.rmtree(first.folder)
        if damage == "a file":
            first.folder.write_text("a file in the folder's place")
        elif damage == "a link":
            first.folder.symlink_to(tmp_path / "nowhere")
        else:
            other.folder.rename(first.folder)
    capsys.readouterr()
    again = token_store(source, tokenizer, tmp_path / "cache")
    assert list(again.trees()) == trees and again.folder == first.folder
    assert f"{first.folder}: made again, " in capsys.readouterr().out


def test_bad_rows_leave_no_store(tokenizer: Any, tmp_path: Path):
    with pytest.raises(UserError, match=r"pairs.jsonl:41: expected the key"):
        token_store(written(tmp_path / "pairs.jsonl", [*ROWS, {"prompt": "a"}]), tokenizer, tmp_path / "cache")
    assert names(tmp_path / "cache") == []


# --- where it cannot be kept ------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_cache_that_cannot_be_written_is_told_and_done_without(
    tokenizer: Any, tmp_path: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = written(tmp_path / "pairs.jsonl", ROWS)
    store = token_store(source, tokenizer, tmp_path / "cache")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1 and "tokens cannot be kept there: Not a directory; this run keeps them in a temp" in told[0]
    assert len(store.trees()) == 40 and store.folder.is_relative_to(temporary)
    trees = store.trees()
    del store
    gc.collect()
    assert trees[0].prompt_ids  # as long as anything reads it
    del trees
    gc.collect()
    assert list(temporary.iterdir()) == []
    token_store(source, tokenizer, tmp_path / "cache", quiet=True)
    assert capsys.readouterr().out == ""


def test_a_damaged_store_that_cannot_be_removed_is_left_alone(
    tokenizer: Any, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    source = written(tmp_path / "pairs.jsonl", ROWS)
    first = token_store(source, tokenizer, tmp_path / "cache")
    os.truncate(first.folder / "tokens.bin", 0)
    remove = shutil.rmtree

    def read_only(path: Path, *arguments: Any, **settings: Any) -> None:
        if Path(path) == first.folder:
            raise PermissionError(13, "Permission denied")
        remove(path, *arguments, **settings)

    monkeypatch.setattr(shutil, "rmtree", read_only)
    store = token_store(source, tokenizer, tmp_path / "cache")
    assert len(store) == 40 and store.folder.is_relative_to(temporary)
    assert "is damaged and cannot be removed (Permission denied)" in capsys.readouterr().out


def test_nowhere_to_write_is_an_error(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"no temporary folder can be made for tokens.*set TMPDIR or LIT_PREF_CACHE"):
        token_store(written(tmp_path / "pairs.jsonl", ROWS), tokenizer, tmp_path / "cache")


def test_folders_that_datasets_reads_are_not_kept(tokenizer: Any, tmp_path: Path, temporary: Path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    source = PairSource(str(tmp_path / "saved"), "train", None, LengthLimits(), "error")
    store = token_store(source, tokenizer, tmp_path / "cache")
    assert len(store) == 40 and store.folder.is_relative_to(temporary) and not (tmp_path / "cache").exists()


def test_a_tokenizer_that_does_not_state_what_it_does_is_not_trusted(
    tokenizer: Any, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    store = token_store(written(tmp_path / "pairs.jsonl", ROWS), tokenizer, tmp_path / "cache")
    assert len(store) == 40 and store.folder.is_relative_to(temporary)


def test_a_long_build_shows_its_progress(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(token_cache, "_LONG", 40)
    source = written(tmp_path / "pairs.jsonl", ROWS)
    store = token_store(source, tokenizer, tmp_path / "cache")
    assert f"Tokenizing {source.source} (40) ..." in capsys.readouterr().out
    shutil.rmtree(store.folder)
    token_store(source, tokenizer, tmp_path / "cache", quiet=True)
    assert capsys.readouterr().out == ""
    assert isinstance(token_store(source, tokenizer, tmp_path / "cache"), TokenStore)
    assert capsys.readouterr().out == ""  # found
