"""What code pairs cost: the rates of the stages that run on a processor, and a sheet for any number of pairs.

    python -m benchmarks.code_pairs_cost [--pairs 28000000] [--kept 1.0] [--runs 3] [--json FILE] [--sheet FILE]

Measured on the standard library of the Python that runs, on one core: cutting files into snippets, dropping duplicates,
reading answers and making pairs, and the bytes that each pair takes on the disk. Strong and weak answers are stood in
for by the snippets' own code and a mutant of it, in fences, so both sides parse: the dearest case of the filters.
What GPUs write is not measured here: `--describer_rate`, `--strong_rate` and `--weak_rate` are completions a second of
one GPU, as your server reports them; without them the sheet holds the formula.
"""

import itertools
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import command
from lit_pref.cli.synthesize_code_pairs import CodeSource
from lit_pref.storage.shards import write_parquet
from lit_pref.syntax import mutants
from lit_pref.synthesis.code_pairs.completions import written_code
from lit_pref.synthesis.code_pairs.constructions import Material, PairFilters, StrongWeak, code_pair
from lit_pref.synthesis.code_pairs.descriptions import repeated
from lit_pref.synthesis.code_pairs.steps import DESCRIBED_SCHEMA, MakePairs, WriteCode
from lit_pref.synthesis.mining.near_duplicates import SeenSnippets
from lit_pref.synthesis.mining.source_code import SnippetSettings, snippets_of_file, unique_snippets

PARTS = ("describer", "strong", "weak")
MOST_TOKENS = {"describer": 1024, "strong": 512, "weak": 512}  # as configs/synthesize/code_pairs_deepseek.yaml has it
SHARD = 256
_LOOKED_UP = 1024  # snippets at once, as in `unique_snippets`


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one core, as a shared machine gives them out in pieces, and what the work found."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def measured(files: int) -> dict[str, float]:
    """Rates a second of one core, and bytes a row on the disk."""
    listed = list(itertools.islice(CodeSource(languages=["python"]).files(), files))
    size = sum(file.content.stat().st_size for file in listed if isinstance(file.content, Path))
    seconds, cut = timed(lambda: [snippets_of_file(file, SnippetSettings()) for file in listed])
    number = sum(len(found.snippets) for found in cut)
    unique_seconds, snippets = timed(lambda: list(unique_snippets(cut, Counter())))
    said = [snippet.doc for snippet in snippets if snippet.doc]
    batches = [said[start : start + SHARD] for start in range(0, len(said), SHARD)]
    seen = SeenSnippets()
    said_seconds, _ = timed(lambda: [repeated(batch, seen, near=True) for batch in batches])
    mutated = [(s, mutants(s.code)) for s in snippets if s.doc and s.kind == "function"]
    given = [(s, f"```python\n{s.code}```", f"```python\n{made[0].source}```") for s, made in mutated if made]
    pair_seconds, pairs = timed(
        lambda: [
            code_pair(
                Material(
                    snippet,
                    snippet.doc,
                    written_code(snippet, strong, True, "instruct"),
                    written_code(snippet, weak, True, "instruct"),
                ),
                StrongWeak(),
                PairFilters(),
                0,
            )
            for snippet, strong, weak in given
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = [{**snippet._asdict(), "description": snippet.doc, "generated": True} for snippet, *_ in given]
        texts = [{"text": text, "finished": True} for _, *both in given for text in both]
        on_disk = {
            "described_bytes": _bytes(Path(folder), rows, DESCRIBED_SCHEMA),
            "completion_bytes": _bytes(Path(folder), texts, WriteCode.schema),
            "pair_bytes": _bytes(Path(folder), [pair._asdict() for pair in pairs], MakePairs.schema),
        }
    return {
        "files_per_second": len(listed) / seconds,
        "megabytes_per_second": size / 1e6 / seconds,
        "snippets_per_second": number / seconds,
        "snippets_compared_per_second": number / unique_seconds,
        "descriptions_compared_per_second": len(said) / said_seconds,
        "pairs_per_second": len(pairs) / pair_seconds,
        **on_disk,
    }


def compared_at(seen: int) -> float:
    """Snippets compared a second once so many were seen: random keys, as near-duplicates' bands are."""
    table, random = SeenSnippets(), np.random.default_rng(0)
    keys = 1 + SnippetSettings().bands
    for _ in range(0, seen, _LOOKED_UP):
        table.add(random.integers(-(2**63), 2**63 - 1, (_LOOKED_UP, keys)))
    batches = [random.integers(-(2**63), 2**63 - 1, (_LOOKED_UP, keys)) for _ in range(40)]
    seconds, _ = timed(lambda: [table.add(batch) for batch in batches])
    return 40 * _LOOKED_UP / seconds


def _bytes(folder: Path, rows: list[dict[str, Any]], schema: Any) -> float:
    """A row's bytes on the disk, in shards of the size that the stages write."""
    size = 0
    for start in range(0, len(rows), SHARD):
        write_parquet(folder / "part.parquet", rows[start : start + SHARD], schema)
        size += (folder / "part.parquet").stat().st_size
    return size / len(rows)


SHEET = """\
# What {pairs:,} code pairs cost

Made by `python -m benchmarks.code_pairs_cost --pairs {pairs} --kept {kept:g}` ({machine}, one core, medians of {runs}
runs). Rates are of the standard library's functions and classes; other code has other sizes. About 28 million pairs is
the paper's number as third parties give it [S].

`kept` = {kept:g} is the share of descriptions that become a pair. It depends on the models and is not measured; 1 is
the cheapest. It takes {described:,.0f} described snippets.

| on processors, measured | items a second | core hours, at least | runs in |
|---|---|---|---|
{core}

Dropping duplicates looks snippets up in a file that outgrows its cache: {snippets_compared_per_second:,.0f} a second
in the first thousands, {compared_later_per_second:,.0f} after {seen:,}, which the table takes; with more it falls
further, and waits for the disk are not counted.

| on GPUs, not measured | completions | new tokens at most | GPU hours |
|---|---|---|---|
{gpu}

`r_describer`, `r_strong` and `r_weak` are completions a second of one GPU, as a server reports them under load for
these prompts; give them as `--describer_rate`, `--strong_rate` and `--weak_rate`. Describer and weak model are one
model in the released code and may share a server.

On the disk (Parquet, zstd), with answers as long as the snippets:
{written_gb:,.0f} GB of descriptions and completions, {pairs_gb:,.0f} GB of pairs.
"""


def sheet(figures: dict[str, Any], pairs: int, kept: float, rates: dict[str, float | None]) -> str:
    number = pairs / kept
    stages = [
        ("cutting files into snippets", "snippets_per_second", "any number of processes"),
        ("dropping duplicate snippets", "compared_later_per_second", "one process"),
        ("dropping duplicate descriptions", "compared_later_per_second", "one process"),
        ("reading answers, making pairs", "pairs_per_second", "any number of processes"),
    ]
    core = [
        f"| {what} | {figures[name]:,.0f} | {number / figures[name] / 3600:,.1f} | {where} |"
        for what, name, where in stages
    ]
    gpu = []
    for part, rate in rates.items():
        hours = (
            f"{number:,.0f} / (3600 · r_{part})"
            if rate is None
            else f"{number / rate / 3600:,.0f} at {rate:g} a second"
        )
        gpu.append(f"| {part} | {number:,.0f} | {number * MOST_TOKENS[part] / 1e9:,.1f} billion | {hours} |")
    return SHEET.format(
        pairs=pairs,
        kept=kept,
        described=number,
        core="\n".join(core),
        gpu="\n".join(gpu),
        written_gb=number * (figures["described_bytes"] + 2 * figures["completion_bytes"]) / 1e9,
        pairs_gb=pairs * figures["pair_bytes"] / 1e9,
        **figures,
    )


def main() -> None:
    parser = command.parser(__doc__, runs=3)
    parser.add_argument("--pairs", type=int, default=28_000_000)
    parser.add_argument("--kept", type=float, default=1.0, help="share of descriptions that become a pair")
    parser.add_argument("--files", type=int, default=400, help="of the standard library, to measure with")
    parser.add_argument("--seen", type=int, default=1_000_000, help="snippets before duplicates are timed again")
    parser.add_argument("--sheet", type=Path)
    for part in PARTS:
        parser.add_argument(f"--{part}_rate", type=float, help="completions a second of one GPU")
    given = command.parse(parser)
    torch.set_num_threads(1)
    runs = [measured(given.files) for _ in range(given.runs)]
    figures: dict[str, Any] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    figures |= {"compared_later_per_second": compared_at(given.seen), "seen": given.seen, "runs": given.runs}
    figures["machine"] = command.machine()
    command.write_json(given.json, figures)
    text = sheet(figures, given.pairs, given.kept, {part: getattr(given, f"{part}_rate") for part in PARTS})
    if given.sheet:
        given.sheet.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
