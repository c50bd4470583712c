"""Token trees on disk: what is written is what is read, in order; whole or not there; damage is seen."""

import errno
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lit_pref.data.reading.rows import RowError, SkippedRows
from lit_pref.data.tokens.store import StoreWriteError, TokenStore, write_store
from lit_pref.data.tokens.tokenize import TokenizedChunk
from lit_pref.errors import UserError
from lit_pref.types import TokenTree

TREES = [
    TokenTree((1, 2, 3), ((4,), (5, 6))),
    TokenTree((65_535,), ((7, 8, 9, 10), (0,))),
    TokenTree((11, 12), ((13,),)),
]


def chunk(*trees: TokenTree, values: list[float | None] | None = None, dropped: int = 0) -> TokenizedChunk:
    counts = Counter(kept=len(trees)) + Counter(dropped_long_prompt=dropped)
    prompts = [sum(tree.prompt_ids) for tree in trees]
    return TokenizedChunk(list(trees), values or [None] * len(trees), prompts, counts, len(trees) + dropped)


def stored(folder: Path, *chunks: TokenizedChunk, vocabulary: int = 65_536) -> TokenStore:
    write_store(folder, iter(chunks), vocabulary, SkippedRows())
    return TokenStore(folder)


def test_rows_come_back_in_order_over_chunks(tmp_path: Path):
    store = stored(tmp_path / "store", chunk(*TREES[:2]), chunk(), chunk(TREES[2]))
    assert list(store.trees()) == TREES and len(store) == 3
    assert store.trees()[-1] == TREES[2] and store.trees()[1:] == TREES[1:]
    assert all(type(token) is int for token in store.tree(0).prompt_ids)
    # 3 + 1 + 2, 1 + 4 + 1 and 2 + 1 tokens
    assert store.lengths().tolist() == [tree.shared_length for tree in TREES] == [6, 6, 3]
    assert store.completion_lengths(1) == (4, 1) and store.completion_lengths(2) == (1,)
    with pytest.raises(IndexError):
        store.trees()[3]


def test_some_rows_in_the_order_given(tmp_path: Path):
    store = stored(tmp_path / "store", chunk(*TREES, values=[0.5, 1.5, 2.5]))
    some = store.trees(np.array([2, 0], np.int32))
    assert list(some) == [TREES[2], TREES[0]]
    assert some.lengths.tolist() == [3, 6] and some.lengths.dtype == np.int32
    assert some.values is not None and list(some.values) == [2.5, 0.5]


def test_two_bytes_a_token_where_the_vocabulary_fits(tmp_path: Path):
    # Two rows have a count and 3 lengths, one a count and 2, of 4 bytes each; 6 + 6 + 3 = 15 tokens.
    for name, vocabulary, size in (("small", 65_536, 2), ("large", 65_537, 4)):
        store = stored(tmp_path / name, chunk(*TREES), vocabulary=vocabulary)
        assert (store.folder / "tokens.bin").stat().st_size == 2 * 16 + 12 + 15 * size
        assert list(store.trees()) == TREES
    with pytest.raises(UserError, match="the token id 70000 of a sampled response"):
        stored(tmp_path / "beyond", chunk(TokenTree((70_000,), ((1,), (2,)))), vocabulary=65_536)
    assert not (tmp_path / "beyond").exists()


def test_prompts_longer_than_two_bytes_count(tmp_path: Path):
    tree = TokenTree(tuple(range(50_000)) + tuple(range(50_000)), ((1,), (2,)))
    assert stored(tmp_path / "store", chunk(tree)).tree(0) == tree


def test_values_only_where_every_row_has_one(tmp_path: Path):
    whole = stored(tmp_path / "whole", chunk(*TREES[:2], values=[1.0, -0.25]), chunk(TREES[2], values=[3.0]))
    assert whole.values is not None and list(whole.values) == [1.0, -0.25, 3.0] and "without_value" not in whole.counts
    mixed = stored(tmp_path / "mixed", chunk(*TREES[:2], values=[1.0, None]), chunk(TREES[2], values=[3.0]))
    assert mixed.values is None and mixed.counts["without_value"] == 1
    none = stored(tmp_path / "none", chunk(*TREES))
    assert none.values is None and none.counts == {"kept": 3}


def test_counts_and_skipped_rows_are_kept(tmp_path: Path):
    skipped = SkippedRows()

    def chunks() -> Iterator[TokenizedChunk]:
        yield chunk(*TREES[:2], dropped=1)
        skipped.add(RowError("missing key", "pairs.jsonl:9: no chosen"))  # rows are read while chunks are made
        yield chunk(TREES[2], dropped=3)

    write_store(tmp_path / "store", chunks(), 100, skipped)
    store = TokenStore(tmp_path / "store")
    assert store.counts == {"kept": 3, "dropped_long_prompt": 4} and store.records == 7
    expected = {"total": 1, "counts": {"missing key": 1}, "first_messages": ["pairs.jsonl:9: no chosen"]}
    expected |= {"unused_columns": {}}
    assert store.skipped == expected


def test_a_store_without_rows(tmp_path: Path):
    store = stored(tmp_path / "store", chunk(dropped=2))
    assert len(store) == 0 and list(store.trees()) == [] and store.counts == {"kept": 0, "dropped_long_prompt": 2}


def test_fingerprints_tell_tokens_order_and_rows_apart(tmp_path: Path):
    first = stored(tmp_path / "first", chunk(*TREES))
    other_chunks = stored(tmp_path / "chunks", chunk(TREES[0]), chunk(*TREES[1:]))
    turned = stored(tmp_path / "turned", chunk(*reversed(TREES)))
    moved_end = stored(tmp_path / "end", chunk(TokenTree((1, 2), ((3, 4), (5, 6))), *TREES[1:]))
    assert first.trees().fingerprint == other_chunks.trees().fingerprint
    views = [first.trees(np.array(rows, np.int32)) for rows in ([0, 1], [1, 0], [0, 1, 2])]
    marks = [each.fingerprint for each in (first.trees(), turned.trees(), moved_end.trees(), *views)]
    assert len(set(marks)) == 6


def test_a_chunk_is_on_the_disk_before_the_next_is_made(tmp_path: Path):
    sizes = []

    def chunks() -> Iterator[TokenizedChunk]:
        for tree in TREES:
            sizes.extend(path.stat().st_size for path in tmp_path.glob(".store.*.tmp/tokens.bin"))
            yield chunk(tree)

    write_store(tmp_path / "store", chunks(), 100_000, SkippedRows())
    # 16 bytes of lengths and 4 a token: 6 tokens, then 6 more.
    assert sizes == [0, 40, 80]


def test_rows_are_not_mapped_into_memory_and_reach_other_processes(tmp_path: Path):
    store = stored(tmp_path / "store", chunk(*TREES))
    trees = store.trees(np.array([1, 2], np.int32))
    assert list(pickle.loads(pickle.dumps(trees))) == TREES[1:]
    assert str(store.folder) not in Path("/proc/self/maps").read_text()


# --- whole or not there -----------------------------------------------------------------------------------------------


def test_an_interrupted_build_leaves_nothing(tmp_path: Path):
    def chunks() -> Iterator[TokenizedChunk]:
        yield chunk(*TREES)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", chunks(), 100, SkippedRows())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StoreWriteError, match="store: tokens cannot be kept there: No space left on device"):
        stored(tmp_path / "store", chunk(*TREES))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_source_stays_what_it_is(tmp_path: Path):
    def chunks() -> Iterator[TokenizedChunk]:
        raise OSError("the source is gone")
        yield chunk()

    with pytest.raises(OSError, match="the source is gone"):
        write_store(tmp_path / "store", chunks(), 100, SkippedRows())


def test_a_store_that_another_process_made_meanwhile_stays(tmp_path: Path):
    def chunks() -> Iterator[TokenizedChunk]:
        yield chunk(*TREES)
        stored(tmp_path / "store", chunk(TREES[0]))

    write_store(tmp_path / "store", chunks(), 100, SkippedRows())
    assert list(TokenStore(tmp_path / "store").trees()) == TREES[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_prompts_and_the_largest_token_are_kept(tmp_path: Path):
    store = stored(tmp_path / "store", chunk(*TREES[:2]), chunk(TREES[2]))
    assert store.prompts().tolist() == [1 + 2 + 3, 65_535, 11 + 12] and store.largest_id == 65_535
    assert stored(tmp_path / "none", chunk()).largest_id == -1


def test_a_store_under_the_name_of_another_is_refused(tmp_path: Path):
    stored(tmp_path / "store", chunk(*TREES)).folder.rename(tmp_path / "other")
    with pytest.raises(UserError, match=r"store.json has changed since it was written, or is another folder's"):
        TokenStore(tmp_path / "other")


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "lengths.npy", "values.npy", "prompts.npy"])
def test_damage_is_seen(tmp_path: Path, name: str):
    store = stored(tmp_path / "store", chunk(*TREES, values=[1.0, 2.0, 3.0]))
    file = store.folder / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=f"is no whole token store: {name} has changed since it was written"):
        TokenStore(store.folder, check=True)
    file.write_bytes(data[:-2])
    with pytest.raises(
        UserError, match=f"is no whole token store: {name} has {len(data) - 2} bytes, expected {len(data)}"
    ):
        TokenStore(store.folder)
    file.unlink()
    with pytest.raises(UserError, match="is no whole token store"):
        TokenStore(store.folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, json.dumps({"files": {}})])
def test_a_broken_description_is_refused(tmp_path: Path, text: str):
    folder = stored(tmp_path / "store", chunk(*TREES)).folder
    (folder / "store.json").write_text(text)  # "[" * 100_000 is nested too deeply
    with pytest.raises(UserError, match="is no whole token store"):
        TokenStore(folder)


def test_a_file_that_is_cut_while_open_is_named(tmp_path: Path):
    store = stored(tmp_path / "store", chunk(*TREES))
    os.truncate(store.folder / "tokens.bin", 60)
    with pytest.raises(UserError, match=r"tokens.bin was cut short at row 2; delete the folder"):
        store.tree(2)
