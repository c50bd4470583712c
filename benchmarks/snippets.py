"""Source code to snippets, against bare tree-sitter parsing of the same files, on one core.

    python -m benchmarks.snippets [--json FILE] [--runs 5] [--source FOLDER] [--quick]

The standard library of the running Python, or another folder: every file that is source code, read from the disk by
both sides, which take turns every hundred files. Ours does all that `lit-pref synthesize` does with it: filters,
documentation, imports, MinHash and near-duplicates. Figures are of processor time, summed over threads, so that what
else the machine does counts little; the ratio is the median over runs of the ratio within a run. Also: whether counts
add up, and how much more memory five times as much takes at the peak. `--quick` takes every fourth file.
"""

import resource
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tree_sitter import Parser

from benchmarks import command
from lit_pref.data.source_code.files import SourceFile, source_files
from lit_pref.syntax.languages import language_of, load
from lit_pref.synthesis.mining.source_code import SnippetSettings, snippets

BLOCK = 100  # files in a turn: what else the machine does at a time falls on both sides


class Pair(NamedTuple):
    """Seconds of processor time that one run took on each side."""

    bare: float
    ours: float


def parse(files: Sequence[SourceFile]) -> float:
    """Seconds of processor time for parsing them and nothing else."""
    start = time.process_time()
    for file in files:
        assert isinstance(file.content, Path)
        source = file.content.read_bytes()
        Parser(load(language_of(file.suffix, source))).parse(source)
    return time.process_time() - start


def run(files: Sequence[SourceFile]) -> Pair:
    """Both sides over all files, block by block in turns."""
    bare = 0.0

    def feed() -> Iterator[SourceFile]:
        nonlocal bare
        for start in range(0, len(files), BLOCK):
            bare += parse(files[start : start + BLOCK])
            yield from files[start : start + BLOCK]

    start = time.process_time()
    for _ in snippets(feed()):
        pass
    return Pair(bare, time.process_time() - start - bare)


def counted(files: Sequence[SourceFile]) -> Counter[str]:
    """What became of them; raises AssertionError where that does not add up."""
    counts = Counter[str]()
    given = sum(1 for _ in snippets(files, SnippetSettings(), counts))
    dropped = Counter[str]()
    for name, count in counts.items():
        dropped[name.partition(":")[0]] += count
    assert counts["files"] == len(files) == counts["files used"] + dropped["dropped files"]
    assert given == counts["snippets"] == counts["definitions"] - dropped["dropped definitions"]
    return counts


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--source", default=sysconfig.get_paths()["stdlib"], help="a folder; the standard library")
    arguments = command.parse(parser)
    # What is installed beside the standard library is no part of it; a notebook is no source to parse.
    files = [
        file
        for file in source_files(arguments.source)
        if not file.reason and file.suffix != ".ipynb" and not file.origin.startswith("site-packages/")
    ][:: 4 if arguments.quick else 1]
    megabytes = sum(Path(str(file.content)).stat().st_size for file in files) / 1e6
    pairs = []
    for number in range(arguments.runs + 1):
        pair = run(files)
        if number:  # the first warms up
            pairs.append(pair)
    bare, ours = (megabytes / statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    before = peak_megabytes()
    counted(files * 5)
    counts = counted(files)
    figures = {
        "files": len(files),
        "megabytes": round(megabytes, 1),
        "runs": arguments.runs,
        "bare_megabytes_per_second": bare,
        "snippets_megabytes_per_second": ours,
        "ratio": statistics.median(pair.bare / pair.ours for pair in pairs),
        "ratios": [pair.bare / pair.ours for pair in pairs],
        "peak_growth_megabytes_of_five_times": peak_megabytes() - before,
        "counts": dict(counts),
        "machine": command.machine(),
    }
    print(f"{len(files):,} files, {megabytes:.1f} MB, {figures['machine']}, medians of {arguments.runs} runs")
    print(f"{'tree-sitter, parsing alone':28} {bare:>6.2f} MB/s of processor time")
    print(f"{'source code to snippets':28} {ours:>6.2f} MB/s  {figures['ratio']:.2f}")
    print(f"five times as much: {figures['peak_growth_megabytes_of_five_times']:.0f} MB more at the peak")
    for name, count in counts.items():
        print(f"{name:44} {count:>8,}")
    command.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
