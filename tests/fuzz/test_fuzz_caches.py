"""Damaged files of every cache: found so, made again with a line that names them; never a traceback, never taken.

A cache's answer must be what was kept, or what making it again gives; where its files are not byte for byte what was
written, a line must say so.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_pref.data.tokens.cache import PairSource, token_store
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.errors import UserError
from lit_pref.sampling.drawing import Draw
from lit_pref.sampling.graded_samples import SamplingJob, cached_samples
from lit_pref.storage.arrays import ArrayCache, _say_once
from lit_pref.storage.shards import ShardWriter
from lit_pref.types import Completion, Generator, Outcome, Problem, Sampling, Split, Task, Text, Verdict

ROUNDS = int(os.environ.get("LIT_PREF_FUZZ", "1"))


class Cache(NamedTuple):
    """A folder, and what asks for what it keeps: an answer that compares, made where it is not kept."""

    folder: Path
    ask: Callable[[], Any]


def tokens(folder: Path) -> Cache:
    vocabulary = {token: index for index, token in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    rows = [{"prompt": f"# {i}", "chosen": "x" * (i + 1), "rejected": "y", "margin": i} for i in range(12)]
    path = folder.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "no sides"}]))
    source = PairSource(str(path), "train", None, LengthLimits(max_length=12), "skip")

    def ask() -> Any:
        store = token_store(source, tokenizer, folder)
        assert store.folder.is_relative_to(folder)
        margins, prompts = list(store.values or ()), store.prompts().tolist()
        described = store.digest, store.records, store.counts, store.skipped, store.largest_id
        return list(store.trees()), store.lengths().tolist(), margins, prompts, described

    return Cache(folder, ask)


def arrays(folder: Path) -> Cache:
    cache, values, key = ArrayCache(folder, "reference"), torch.linspace(-3, 0, 8).reshape(4, 2), ("weights", "data")

    def ask() -> Any:
        found = cache.load(key, (4, 2))
        if found is None:
            cache.save(key, values)
            found = values
        return found.tolist()

    return Cache(folder, ask)


class Digits(Task):
    name = "digits"

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        return [Problem(f"{split}/{i}", f"{i} plus 1 is ", str(i + 1)) for i in range(count)]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        right = [problem.reference == text for problem, text in zip(problems, completions, strict=True)]
        return [Verdict(Outcome.PASSED if each else Outcome.FAILED) for each in right]


@dataclass(frozen=True)
class Same(Generator):
    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        return [[Completion(str(n), (n, 0), (-0.5, -1.0), True) for n in range(samples)] for _ in prompts]


def samples(folder: Path) -> Cache:
    settings = Draw(3, Sampling(), 0)
    job = SamplingJob(Digits(), Digits().problems("train", 4, 0), Same(), settings, "policy", None)
    return Cache(folder, lambda: cached_samples(folder, job, "digits").samples)


def shards(folder: Path) -> Cache:
    schema = pa.schema([("text", pa.string())])

    def ask() -> Any:
        writer = ShardWriter(folder / "shards", {"seed": 1}, schema, cache=True)
        for index in writer.missing(2):
            writer.write(index, [{"text": f"row {index}"}])
        return [writer.path(index).read_bytes() for index in range(2)]

    return Cache(folder, ask)


# --- damage -----------------------------------------------------------------------------------------------------------


def damage(path: Path, others: list[Path], chance: random.Random) -> str:
    """Do something to a file, or to its folder; what it was, for the message."""
    data, way = path.read_bytes(), chance.randrange(14)
    place = chance.randrange(len(data))
    match way:
        case 0:
            path.write_bytes(data[:place])
        case 1 | 2:
            path.write_bytes(data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :])
        case 3:
            path.write_bytes(data[:place] + bytes(len(data) - place))
        case 4:
            path.write_bytes(b"")
        case 5:
            path.write_bytes(bytes(len(data)))
        case 6:
            path.write_bytes(data + chance.randbytes(chance.randrange(1, 100)))
        case 7:
            path.unlink()
            path.mkdir()
            (path / "in it").write_text("x")
        case 8:
            path.unlink()
            path.symlink_to(path.with_name("nowhere"))
        case 9:
            path.write_bytes(chance.choice(others).read_bytes())
        case 10:
            path.write_bytes(b"9" * 4000 + data if chance.random() < 0.5 else b"[" * 100_000)
        case 11:
            digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()] or [place]
            at = chance.choice(digits)
            path.write_bytes(data[:at] + chance.choice([b"-1", b"99999999999999999999", b"0", b"1e9"]) + data[at + 1 :])
        case 12:
            parent = path.parent
            shutil.rmtree(parent)
            parent.write_bytes(b"a file in the folder's place")
        case 13:
            text = data.decode("latin-1")
            lies = [('"<u2"', '"O"'), ('"records"', '"record"'), ("<i8", "|O8"), ("<f4", "<f8"), ("true", "null")]
            for old, new in lies:
                text = text.replace(old, new)
            path.write_bytes(text.encode("latin-1") if text.encode("latin-1") != data else data[::-1])
    return f"way {way} at {place} of {path.name}"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize("make", [tokens, arrays, samples, shards])
def test_a_damaged_cache_is_made_again_with_a_line(
    make: Callable[[Path], Cache], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    cache = make(tmp_path / "cache")
    cache.ask()
    capsys.readouterr()
    expected, written = cache.ask(), contents(cache.folder)
    assert "again" not in capsys.readouterr().out
    shutil.copytree(cache.folder, tmp_path / "whole")
    for number in range(ROUNDS * 25):
        chance = random.Random(f"{make.__name__} {number}")
        shutil.rmtree(cache.folder)
        shutil.copytree(tmp_path / "whole", cache.folder)
        files = sorted(path for path in cache.folder.rglob("*") if path.is_file())
        told = damage(chance.choice(files), files, chance)
        same = contents(cache.folder) == written
        capsys.readouterr()
        _say_once.cache_clear()
        try:
            answer = cache.ask()
        except UserError as error:
            # Who asks for the shards themselves is told where a file stands in the place of their folder.
            assert make is shards and "File exists" in str(error)
            continue
        finally:
            out = capsys.readouterr().out
            print(f"random.Random('{make.__name__} {number}'): {told}\n{out}")
        assert answer == expected
        lines = [line for line in out.splitlines() if "made again" in line or "cannot be written" in line]
        assert lines or same, "silently taken"
        assert cache.ask() == expected
