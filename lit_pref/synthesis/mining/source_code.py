"""Raw source code to snippets: functions, methods and classes, filtered, without duplicates, counted by reason.

The first stage of CodePMP (arXiv 2410.02229), of which the paper's code does not hold more than a tag per snippet; all
of this is ours [D]. Two stages that compose: `snippets_of_file`, a pure function of one file, to be run anywhere and in
parallel; and `unique_snippets`, one pass over its results in the order of the files, so that the outcome does not
depend on how the work was split. `snippets` is the second over the first. Memory does not grow with the corpus.
Not covered: whether code compiles or is of use; Python 2, which the grammar lets pass; duplicates across two runs.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lit_pref.data.source_code.files import SourceFile
from lit_pref.data.source_code.source_file import NOTEBOOK, RefusedFileError
from lit_pref.data.source_code.text import source_text
from lit_pref.syntax.definitions import Definition
from lit_pref.syntax.languages import language_of
from lit_pref.syntax.source_tree import SourceTree
from lit_pref.synthesis.mining.credentials import Span, credential_spans
from lit_pref.synthesis.mining.file_filters import is_generated, is_minified
from lit_pref.synthesis.mining.near_duplicates import MinHashBands, SeenSnippets
from lit_pref.synthesis.mining.snippets import Snippet

_BATCH = 1024  # snippets that are looked up together


@dataclass(frozen=True)
class SnippetSettings:
    """What is kept; all thresholds are ours [D].

    Args:
        max_file_bytes: larger files are refused before they are read.
        max_notebook_bytes: the same for notebooks, which hold pictures; their code is bound by `max_file_bytes`.
        longest_line: files with a longer line, in bytes, count as minified.
        mean_line: so do files whose lines are longer on average.
        min_lines: shorter snippets say too little to be described.
        max_lines: longer ones are dropped.
        max_characters: so are these; 4,000 are about the 1,024 tokens that the released code trains on.
        shingle: words in a row that snippets are compared by.
        bands: of MinHash; 0 leaves near-duplicates in.
        rows: in each band; `near_duplicates.py` says which similarity that means.
    """

    max_file_bytes: int = 1_000_000
    max_notebook_bytes: int = 10_000_000
    longest_line: int = 1_000
    mean_line: float = 100.0
    min_lines: int = 3
    max_lines: int = 150
    max_characters: int = 4_000
    shingle: int = 5
    bands: int = 5
    rows: int = 8

    def __post_init__(self) -> None:
        for name, least in (("shingle", 1), ("bands", 0), ("rows", 1), ("max_file_bytes", 1), ("min_lines", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")


class FileSnippets(NamedTuple):
    """What one file gives. Can be pickled.

    snippets: in the order of their place.
    keys: one a snippet, opaque: by these `unique_snippets` knows it again.
    counts: of this file, by one name each, as shards keep them; duplicates are not yet taken off. "files" are
        "files used" and all "dropped files: reason", "definitions" are "snippets" and "dropped definitions: reason".
    """

    snippets: tuple[Snippet, ...]
    keys: tuple[bytes, ...]
    counts: Counter[str]


def snippets_of_file(file: SourceFile, settings: SnippetSettings) -> FileSnippets:
    """Stage one: a pure function of the file and the settings; what a file holds is counted and never raises."""
    counts = Counter({"files": 1})
    try:
        tree = _tree(file, settings)
    except RefusedFileError as error:
        counts[f"dropped files: {error.reason}"] += 1
        return FileSnippets((), (), counts)
    counts.update({"files used": 1, "definitions": len(tree.definitions)})
    spans = credential_spans(tree.source, tree.words)
    kept, codes = list[Definition](), list[str]()
    for definition in tree.definitions:
        reason = _trouble(definition, tree.source, spans, settings)
        if not reason:
            code = tree.code(definition)
            reason = "too many characters" if len(code) > settings.max_characters else ""
        if reason:
            counts[f"dropped definitions: {reason}"] += 1
        else:
            kept.append(definition)
            codes.append(code)
    counts["snippets"] = len(kept)
    if not kept:
        return FileSnippets((), (), counts)
    found = tuple(_snippet(file.origin, tree, *each) for each in zip(kept, codes, strict=True))
    compared = MinHashBands(settings.shingle, settings.bands, settings.rows)
    keys = compared.keys(tree.words, [(definition.start, definition.end) for definition in kept], codes)
    packed, width = keys.tobytes(), keys.itemsize * keys.shape[1]
    return FileSnippets(found, tuple(packed[at : at + width] for at in range(0, len(packed), width)), counts)


def unique_snippets(files: Iterable[FileSnippets], counts: Counter[str]) -> Iterator[Snippet]:
    """Stage two: the snippets without duplicates and near-duplicates; the first in the order of `files` stays.

    counts: the files' counts are added to it and duplicates taken off; they add up whenever a snippet is given.
    What was seen lies in a temporary file, in the folder that TMPDIR names.

    Raises UserError where that folder is full.
    """
    with closing(SeenSnippets()) as seen:
        found, keys = list[Snippet](), list[bytes]()
        for file in files:
            counts.update(file.counts)
            found += file.snippets
            keys += file.keys
            if len(found) >= _BATCH:
                yield from _new(found, keys, seen, counts)
                found, keys = [], []
        yield from _new(found, keys, seen, counts)


def snippets(
    files: Iterable[SourceFile], settings: SnippetSettings | None = None, counts: Counter[str] | None = None
) -> Iterator[Snippet]:
    """Both stages in this process: `snippets(source_files("src"))`."""
    settings = settings or SnippetSettings()
    cut = (snippets_of_file(file, settings) for file in files)
    return unique_snippets(cut, Counter() if counts is None else counts)


def _new(found: list[Snippet], keys: list[bytes], seen: SeenSnippets, counts: Counter[str]) -> list[Snippet]:
    if not found:
        return []
    verdicts = seen.add(np.frombuffer(b"".join(keys), np.int64).reshape(len(keys), -1))
    new = [snippet for snippet, verdict in zip(found, verdicts, strict=True) if verdict is None]
    counts["snippets"] -= len(found) - len(new)
    counts.update(f"dropped definitions: {verdict}" for verdict in verdicts if verdict is not None)
    return new


def _tree(file: SourceFile, settings: SnippetSettings) -> SourceTree:
    """The parsed file; raises RefusedFileError for one that is not used."""
    if file.content is None:
        raise RefusedFileError(file.reason)
    source = source_text(file.content, file.suffix, settings.max_file_bytes, settings.max_notebook_bytes)
    if is_generated(source):
        raise RefusedFileError("generated")
    if is_minified(source, settings.longest_line, settings.mean_line):
        raise RefusedFileError("minified")
    tree = SourceTree(source, language_of(".py" if file.suffix == NOTEBOOK else file.suffix, source))
    if not tree.definitions:
        raise RefusedFileError("no definition")
    return tree


def _trouble(definition: Definition, source: bytes, credentials: list[Span], settings: SnippetSettings) -> str:
    """Why a definition is dropped; empty where it is not."""
    if definition.has_error:
        return "syntax error"
    lines = source.count(b"\n", definition.start, definition.end) + 1
    if lines < settings.min_lines:
        return "too few lines"
    if lines > settings.max_lines:
        return "too many lines"
    if credentials:
        behind = bisect_left(credentials, Span(definition.start, 0))
        if behind < len(credentials) and credentials[behind].start < definition.end:
            return "credential"
    return ""


def _snippet(origin: str, tree: SourceTree, definition: Definition, code: str) -> Snippet:
    return Snippet(
        code,
        tree.language,
        tree.kind(definition),
        tree.name(definition),
        tree.signature(definition),
        tree.doc(definition),
        tree.imports(definition),
        tree.license,
        origin,
        tree.line(definition),
    )
