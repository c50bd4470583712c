"""`lit-pref synthesize --recipe code_pairs`: source code to preference pairs, in a folder that can be resumed.

The folder holds a folder of shards for each stage, of which `pairs/` is what trains, and `summary.json`: counts, and
all that they depend on. Not covered: a model that needs more than one device (a server or vLLM holds it).
"""

import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from rich import get_console

from lit_pref.cli.functions import Recipe, writable_folder
from lit_pref.data.source_code.files import SourceFile, source_files
from lit_pref.errors import UserError
from lit_pref.generation.local import MAX_TOKENS
from lit_pref.generation.policy import PolicyGenerator
from lit_pref.reports.record import circumstances, counted, table
from lit_pref.sampling.graded_samples import generator_identity
from lit_pref.storage.files import JsonValue, write_json
from lit_pref.storage.shards import read_manifest
from lit_pref.syntax.languages import GRAMMARS, LanguageName
from lit_pref.synthesis.code_pairs.completions import Completions
from lit_pref.synthesis.code_pairs.constructions import Construction, PairFilters, StrongWeak
from lit_pref.synthesis.code_pairs.descriptions import Describer
from lit_pref.synthesis.code_pairs.pipeline import CodePairsJob, CodePairsMade, Writer, make_code_pairs
from lit_pref.synthesis.mining.snippet_shards import Source
from lit_pref.synthesis.mining.source_code import SnippetSettings
from lit_pref.synthesis.stages.local import LocalRunner, Runner
from lit_pref.synthesis.stages.ray import RayRunner
from lit_pref.types import Dtype, Generator

_DESCRIPTION = (
    "Recipe code_pairs: cut source code into snippets, describe them, have a strong and a weak model write code from "
    "the descriptions, and make pairs of what they wrote. The same command goes on where it was interrupted. The "
    "arguments of a class: --construction.help ClippedDescription."
)
_EXAMPLE = "lit-pref synthesize --recipe code_pairs --output my-pairs --source my-code"
_STANDARD_LIBRARY = "the standard library"


@dataclass(frozen=True)
class CodeSource:
    """Where source code comes from.

    Args:
        path: a folder, a .tar(.gz, .bz2, .xz) or .zip archive, a file; with a column also Parquet files, globs and data
            sets of the hub. null is the standard library of the Python that runs.
        languages: those that are taken, as [python, go]; null is all that have a grammar.
        limit: snippets at most, the first ones that are left; null is all.
        column: of a table that holds source text.
        path_column: of a table that holds the file's name, which tells the language.
        language: of all rows where there is no such column.
        split: of a data set.
    """

    path: str | None = None
    languages: list[LanguageName] | None = None
    limit: int | None = None
    column: str | None = None
    path_column: str | None = None
    language: LanguageName = "python"
    split: str = "train"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be >= 1, got {self.limit}")

    def files(self) -> Iterator[SourceFile]:
        """All files from the first, those in other languages as refused."""
        suffixes = {suffix for name in self.languages or GRAMMARS for suffix in GRAMMARS[name].suffixes}
        suffixes |= {".h"} if suffixes & {".c", ".cpp"} else set()
        suffixes |= {".ipynb"} if ".py" in suffixes else set()
        for file in self._all_files():
            if file.content is None or file.suffix in suffixes:
                yield file
            else:
                yield SourceFile(file.origin, file.suffix, None, "other language")

    def _all_files(self) -> Iterator[SourceFile]:
        if self.path is not None:
            yield from source_files(
                self.path,
                column=self.column,
                path_column=self.path_column,
                language=self.language,
                split=self.split,
            )
            return
        for file in source_files(sysconfig.get_paths()["stdlib"]):
            if not isinstance(file.content, Path) or "site-packages" not in file.content.parts:
                yield file


def code_pairs(
    output: Path,
    source: CodeSource | str = CodeSource(),
    snippets: SnippetSettings = SnippetSettings(),  # noqa: B008
    describer: Describer = Describer(),  # noqa: B008
    strong: Generator | str = "embedded:coder-strong",
    weak: Generator | str = "embedded:coder-weak",
    completions: Completions = Completions(),  # noqa: B008
    construction: Construction = StrongWeak(),  # noqa: B008
    filters: PairFilters = PairFilters(),  # noqa: B008
    runner: Literal["local", "ray"] | Runner = "local",
    dtype: Dtype = "float32",
    max_tokens_per_batch: int = MAX_TOKENS,
    seed: int = 0,
) -> None:
    """Make code preference pairs after the released code of arXiv 2410.02229 (CodePMP).

    Args:
        output: the folder to make, or to go on with.
        source: where source code comes from: a path, or more by --source.path, --source.limit and so on.
        snippets: which functions, methods and classes are taken.
        describer: docstrings as descriptions, or a model that reads the snippets and writes them.
        strong: whose code is chosen: an embedded model, a folder, a .gguf file, a hub id, or a Generator by its class:
            OpenAIGenerator for a server, VLLMGenerator, or a dataclass of your own.
        weak: whose code is rejected.
        completions: how strong and weak are asked, and how they draw.
        construction: StrongWeak, OriginalChosen (the snippet itself over the weak model's code), ClippedDescription
            (the strong model's code over that from a part of the description), MutatedRejected (code over a mutant of
            it), or a class of your own.
        filters: which pairs are left out.
        runner: local is this process; ray is Ray Data on this machine; LocalRunner and RayRunner take workers, and the
            latter a cluster's address. The pairs are the same.
        dtype: of the weights of models that are opened here; bfloat16 halves memory, and time where hardware has it.
        max_tokens_per_batch: tokens that such a model holds side by side; a completion counts with its prompt and the
            most that it may take.
        seed: of descriptions, completions and mutants.
    """
    if not is_dataclass(construction):
        raise UserError(
            f"--construction: {type(construction).__name__} must be a dataclass, so that pairs tell how they were made"
        )
    given = CodeSource(source) if isinstance(source, str) else source
    named = {**asdict(given), "path": given.path or _STANDARD_LIBRARY, "limit": None}
    identity = {name: value for name, value in named.items() if value is not None}
    job = CodePairsJob(
        Source(given.files, identity), snippets, given.limit, describer, completions, construction, filters, seed
    )
    parts = {"describer": describer.generator, "strong": strong, "weak": weak}
    used: dict[str, JsonValue] = {}

    @cache
    def opened(part: str) -> Writer:
        generator = parts[part]
        assert generator is not None  # Describer has refused to go without
        if isinstance(generator, str):
            policy = PolicyGenerator(generator, max_tokens_per_batch, dtype)
            writer = Writer(policy, {"policy": policy.weights})
        else:
            writer = Writer(generator, generator_identity(generator))
        name = generator if isinstance(generator, str) else type(generator).__name__
        used[part] = {"name": name, "identity": writer.identity}
        return writer

    runners: dict[str, Runner] = {"local": LocalRunner(), "ray": RayRunner()}
    output = writable_folder("--output", output)
    made = make_code_pairs(output, job, opened, runners[runner] if isinstance(runner, str) else runner)
    _write_summary(output, made, used)
    get_console().print(table("code pairs", counted(made.counts)))
    print(f"to train on them: lit-pref fit --config pmp --config data/pairs --data.train {made.folder}")


def _write_summary(output: Path, made: CodePairsMade, used: dict[str, JsonValue]) -> None:
    """The summary last: where it stands, all of its run stands."""
    stages = ("snippets", "descriptions", "described", "pairs")
    summary: dict[str, JsonValue] = {
        "counts": made.counts,
        "generators": used,
        "provenance": {stage: read_manifest(output / stage)["provenance"] for stage in stages},
        **circumstances(),
    }
    write_json(output / "summary.json", summary)


CODE_PAIRS = Recipe(code_pairs, _EXAMPLE, _DESCRIPTION)
