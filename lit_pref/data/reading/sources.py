"""Rows from files, globs, folders and hub data sets, each with the place where it stood.

Files go through `files.py`, which can name the line at fault, and so do those of a folder, where `datasets` says
which files make a split: a cell means the same either way. `save_to_disk` folders and hub ids go through `datasets`.
`split` is a split's name or a slice of splits (`train[:10%]`); a file is the whole of train, validation and test. Not
covered: what the keys of a row mean (`formats/`), remote URLs, data set scripts; in CSV files of the hub, `datasets`
takes cells such as `null` for missing values.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lit_pref.data.reading.files import COMPRESSED, TEXT_READERS, file_rows, text_suffix
from lit_pref.data.reading.rows import OnBadRow, Row, RowError, SkippedRows, refuse
from lit_pref.errors import UserError
from lit_pref.machine.hub import data_sets_within_reach
from lit_pref.storage.shards import MANIFEST, SHARDS, read_manifest

__all__ = ["OnBadRow", "Row", "RowError", "SkippedRows", "Source", "read_rows", "source_files"]

Source = str | Path | Sequence[str | Path]


def read_rows(
    source: Source, split: str = "train", on_bad_row: OnBadRow = "error", skipped: SkippedRows | None = None
) -> Iterator[Row]:
    """Rows of one or several sources, in order; a glob's files are sorted.

    source: a file, a glob, a folder, a hub id (`owner/name`, or `owner/name:config`), or a list of these.
    on_bad_row: "skip" counts rows that cannot be read in `skipped` and goes on.

    Raises UserError, at once for a missing or unknown source, on the way for an empty or broken one.
    """
    if on_bad_row not in ("error", "skip"):
        raise ValueError(f'on_bad_row must be "error" or "skip", got {on_bad_row!r}')
    return _rows(_resolve_all(source, split), on_bad_row, skipped)


def source_files(source: Source, split: str = "train") -> list[Path] | None:
    """The files that `read_rows` would read, in order; None where the datasets library is to find them.

    Raises UserError for a missing or unknown source.
    """
    found = _resolve_all(source, split)
    files = [each for each in found if isinstance(each, Path)]
    return files if len(files) == len(found) else None


_Reader = Callable[[], Iterator[Row | RowError]]
_NAMES = ("train", "validation", "test")


def _rows(found: Sequence[Path | _Reader], on_bad_row: OnBadRow, skipped: SkippedRows | None) -> Iterator[Row]:
    for each in found:
        for row in file_rows(each) if isinstance(each, Path) else each():
            if isinstance(row, Row):
                yield row
            else:
                refuse(row, on_bad_row, skipped)


# --- from a name to readers -------------------------------------------------------------------------------------------


def _resolve_all(source: Source, split: str) -> list[Path | _Reader]:
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise UserError("no data source given: expected a file, a glob, a folder or a hub data set id")
    return [found for each in sources for found in _resolve(str(each), split)]


def _resolve(source: str, split: str) -> Sequence[Path | _Reader]:
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _of_files(source, dict.fromkeys(_NAMES, _finished_shards(path)), split)
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return [partial(_saved_rows, path, split)]
        files_of = _folder_files(path)
        return (
            [partial(_loaded_rows, source, source, None, split)]
            if files_of is None
            else _of_files(source, files_of, split)
        )
    if path.is_file():
        files = [path]
    elif re.search(r"[*?\[]", source):
        files = sorted(found for found in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if found.is_file())
        if not files:
            raise UserError(f"{source}: no file matches this pattern; {_holds(path.parent)}")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source) and not _readable(path):
        name, _, config = source.partition(":")
        hint = "; there is no such file or folder either"
        return [partial(_loaded_rows, source, name, config or None, split, hint)]
    else:
        raise UserError(f"{source}: no such file or folder; {_near(path)}")
    for file in files:
        if not _readable(file):
            known = ", ".join((*TEXT_READERS, ".parquet"))
            expected = f"expected one of {known} (text also as {' or '.join(COMPRESSED)})"
            raise UserError(f"{file}: unknown file type {file.suffix!r}: {expected}")
    return _of_files(source, dict.fromkeys(_NAMES, files), split)


def _readable(file: Path) -> bool:
    return file.suffix == ".parquet" or text_suffix(file) in TEXT_READERS


def _of_files(source: str, files_of: Mapping[str, list[Path]], split: str) -> Sequence[Path | _Reader]:
    """The files of a split, or a reader of some of their rows."""
    if split in files_of:
        return files_of[split]
    if not re.search(r"[\[+]", split):
        raise _no_split(source, split, files_of)
    return [partial(_sliced_rows, source, files_of, split)]


def _sliced_rows(source: str, files_of: Mapping[str, list[Path]], split: str) -> Iterator[Row | RowError]:
    named = {name: files for name, files in files_of.items() if name in split}
    counts = {name: sum(1 for file in files for _ in file_rows(file)) for name, files in named.items()}
    parts = _parts(source, split, counts)
    if all(part.from_ >= part.to for part in parts):
        raise UserError(f"{source}: {split} holds no row: expected at least one of {sum(counts.values())}")
    for part in parts:
        yield from islice(chain.from_iterable(map(file_rows, named[part.splitname])), part.from_, part.to)


def _parts(source: str, split: str, counts: Mapping[str, int]) -> Any:
    """Slices of splits, as the datasets library writes them: `train[:10%]`, `train[:90]+test`."""
    import datasets  # takes seconds: only where it is needed

    try:
        return datasets.ReadInstruction.from_spec(split).to_absolute(dict(counts))
    except (ValueError, AssertionError) as error:
        raise UserError(f'{source}: cannot take the slice "{split}": {error}; as in train[:10%]') from error


def _no_split(source: str, split: str, there: Iterable[str]) -> UserError:
    return UserError(
        f'{source}: has no split "{split}": expected one of {", ".join(there)}, or a slice such as train[:10%]; name '
        "it (splits.train, splits.validation)"
    )


def _finished_shards(folder: Path) -> list[Path]:
    if read_manifest(folder).get("complete") is not True:
        raise UserError(f"{folder}: {MANIFEST} says that this data was not finished; run what makes it again")
    return sorted(folder.glob(SHARDS))


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else _holds(path.parent)


def _holds(folder: Path) -> str:
    if not folder.is_dir():
        return f"the folder {folder} does not exist"
    names = sorted(entry.name for entry in folder.iterdir())
    return f"the folder {folder} holds {', '.join(names[:8]) or 'nothing'}{', …' if len(names) > 8 else ''}"


# --- datasets ---------------------------------------------------------------------------------------------------------


def _folder_files(folder: Path) -> dict[str, list[Path]] | None:
    """The files of each split as the datasets library finds them; None where they are not ours to read."""
    import datasets  # takes seconds: only where it is needed

    builder = _loaded(str(folder), partial(datasets.load_dataset_builder, str(folder)))
    files_of = {str(name): [Path(file) for file in files] for name, files in (builder.config.data_files or {}).items()}
    there = all(file.is_file() and _readable(file) for files in files_of.values() for file in files)
    return files_of if files_of and there else None


def _saved_rows(folder: Path, split: str) -> Iterator[Row]:
    import datasets  # takes seconds: only where it is needed

    data = _loaded(str(folder), partial(datasets.load_from_disk, str(folder)))
    splits = data if isinstance(data, datasets.DatasetDict) else dict.fromkeys(_NAMES, data)
    if split in splits:
        yield from _numbered(str(folder), splits[split])
    elif not re.search(r"[\[+]", split):
        raise _no_split(str(folder), split, splits)
    else:
        for part in _parts(str(folder), split, {name: len(rows) for name, rows in splits.items()}):
            yield from _numbered(str(folder), splits[part.splitname], range(part.from_, part.to))


def _loaded_rows(name: str, data_set: str, config: str | None, split: str, hint: str = "") -> Iterator[Row]:
    import datasets  # takes seconds: only where it is needed

    with data_sets_within_reach() as reached:
        if not reached:
            hint += "; the hub cannot be reached from here, and the data set is not in its cache"
        data = _loaded(name, partial(datasets.load_dataset, data_set, config, split=split), hint)
    yield from _numbered(f"{name}[{split}]", data)


def _numbered(name: str, data: Any, rows: range | None = None) -> Iterator[Row]:
    rows = range(len(data)) if rows is None else rows
    if not rows:
        raise UserError(f"{name}: holds no row: expected at least one")
    for row, values in zip(rows, data.select(rows), strict=True):
        yield Row(f"{name} row {row + 1}", values)


def _loaded(name: str, load: Callable[[], Any], hint: str = "") -> Any:
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except (DatasetsError, OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        if "split" in str(error):
            cause += "; name the split (splits.train, splits.validation)"
        raise UserError(f"{name}: the datasets library cannot load it: {error}{cause}{hint}") from error
