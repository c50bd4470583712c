"""Files to shards of distinct snippets: the same ones however the work is split, counts that add up, going on."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.source_code.files import SourceFile, source_files
from lit_pref.storage.shards import read_manifest
from lit_pref.synthesis.mining import snippet_shards
from lit_pref.synthesis.mining.snippet_shards import Source, cut_snippets, snippet_of
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.synthesis.mining.source_code import SnippetSettings, snippets
from lit_pref.synthesis.stages.local import LocalRunner, rows_of

SETTINGS = SnippetSettings()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twelve files with three functions each, of which the last is the same everywhere; one file is no source."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(12):
        own = "".join(
            f'def f{number}_{letter}(x):\n    """Number {number} {letter}."""\n    y = x * {number}\n    return y\n\n\n'
            for letter in "ab"
        )
        shared = "def shared(a, b):\n    total = a + b\n    print(total)\n    return total\n"
        (folder / f"m{number:02}.py").write_text(own + shared)
    (folder / "notes.txt").write_text("no source")
    return folder


def source(tree: Path) -> Source:
    return Source(lambda: source_files(tree), {"path": str(tree)})


def cut(tree: Path, output: Path, limit: int | None = None) -> list[Snippet]:
    cut_snippets(output, source(tree), SETTINGS, limit, LocalRunner())
    manifest: Any = read_manifest(output / "snippets")
    return [snippet_of(row) for index in range(manifest["shards"]) for row in rows_of(output / "snippets", index)]


def counts(output: Path) -> Counter[str]:
    return Counter(json.loads((output / "snippets" / "manifest.json").read_text())["counts"])


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snippet_shards, "_SHARD_FILES", 2)
    monkeypatch.setattr(snippet_shards, "_LAST_WAVE", 4)
    monkeypatch.setattr(snippet_shards, "SHARD_ROWS", 5)


def test_shards_hold_what_the_stream_of_all_files_holds(tree: Path, tmp_path: Path, small_shards: None) -> None:
    expected = list(snippets(source_files(tree), SETTINGS))
    assert len(expected) > 20
    assert cut(tree, tmp_path / "out") == expected
    found = counts(tmp_path / "out")
    assert (found["files"], found["files used"], found["definitions"]) == (13, 12, 36)
    dropped = sum(count for name, count in found.items() if name.startswith("dropped definitions"))
    assert found["snippets"] == len(expected) == 36 - dropped
    assert found["dropped definitions: duplicate"] >= 11  # `shared`, after the first time
    assert found["snippets beyond the limit"] == 0
    assert not (tmp_path / "out" / "extracted").exists()


def test_a_limit_takes_the_first_and_needs_only_their_files(tree: Path, tmp_path: Path, small_shards: None) -> None:
    every = cut(tree, tmp_path / "all")
    listed: list[str] = []

    def listing() -> Iterator[SourceFile]:
        for file in source_files(tree):
            listed.append(file.origin)
            yield file

    folder = tmp_path / "few"
    monkey = Source(listing, {"path": str(tree)})
    cut_snippets(folder, monkey, SETTINGS, 5, LocalRunner())
    assert [snippet_of(row) for row in rows_of(folder / "snippets", 0)] == every[:5]
    found = counts(folder)
    assert found["snippets"] == 5 + found["snippets beyond the limit"]
    assert found["files"] <= len(listed)


def test_an_interrupted_run_goes_on_with_the_files_that_are_missing(
    tree: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, whole = cut(tree, tmp_path / "whole"), counts(tmp_path / "whole")
    write, written = snippet_shards.ExtractSnippets.write, list[int]()

    def stopped(self: Any, index: int) -> None:
        if index == 4:
            raise KeyboardInterrupt
        written.append(index)
        write(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(snippet_shards.ExtractSnippets, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            cut(tree, tmp_path / "out")
    assert written == [0, 1, 2, 3]
    shard = tmp_path / "out" / "extracted" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:100])  # and one was damaged
    again: list[int] = []

    def noted(self: Any, index: int) -> None:
        again.append(index)
        write(self, index)

    monkeypatch.setattr(snippet_shards.ExtractSnippets, "write", noted)
    assert cut(tree, tmp_path / "out") == expected and counts(tmp_path / "out") == whole
    assert again == [1, 4, 5, 6]  # 13 files by two


def test_waves_grow_and_bytes_close_a_shard(monkeypatch: pytest.MonkeyPatch, small_shards: None) -> None:
    files = [SourceFile(str(i), ".py", b"x" * 10) for i in range(30)]
    waves = list(snippet_shards._waves(iter(files)))
    # shards of two: 15; waves of 1, 2, 4, 4 and the 4 that are left
    assert [list(wave) for wave in waves] == [[0], [1, 2], [3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 14]]
    assert [file for wave in waves for shard in wave.values() for file in shard] == files
    monkeypatch.setattr(snippet_shards, "_SHARD_BYTES", 10)
    assert {len(shard) for wave in snippet_shards._waves(iter(files)) for shard in wave.values()} == {1}
