"""Rows from files, globs, folders and hub data sets, each with the place where it stood.

Folders of data files, `save_to_disk` folders and hub ids go through `datasets`, files through `row_files.py`, which
can name the line at fault. `split` chooses within folders and hub data sets; a file is read whole. Not covered: what
the keys of a row mean (`formats.py`), remote URLs, data set scripts.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lit_pref.data.row_files import TEXT_READERS, file_rows, text_suffix
from lit_pref.data.rows import OnBadRow, Row, RowError, SkippedRows, refuse
from lit_pref.data.shards import MANIFEST, SHARDS, read_manifest
from lit_pref.errors import UserError

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


_Reader = Callable[[], Iterator[Row]]


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
            return _finished_shards(path)
        return [partial(_folder_rows, path, split)]
    if path.is_file():
        files = [path]
    elif re.search(r"[*?\[]", source):
        files = sorted(found for found in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if found.is_file())
        if not files:
            raise UserError(f"{source}: no file matches this pattern; {_holds(path.parent)}")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source) and path.suffix not in (*TEXT_READERS, ".parquet", ".gz"):
        return [partial(_hub_rows, source, split)]
    else:
        raise UserError(f"{source}: no such file or folder; {_near(path)}")
    for file in files:
        if file.suffix != ".parquet" and text_suffix(file) not in TEXT_READERS:
            known = ", ".join((*TEXT_READERS, ".parquet"))
            raise UserError(f"{file}: unknown file type {file.suffix!r}: expected one of {known} (text also as .gz)")
    return files


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


def _folder_rows(folder: Path, split: str) -> Iterator[Row]:
    import datasets  # takes seconds: only where it is needed

    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        data = _loaded(str(folder), partial(datasets.load_from_disk, str(folder)))
        if isinstance(data, datasets.DatasetDict):
            if split not in data:
                raise UserError(f'{folder}: has no split "{split}": expected one of {", ".join(data)}')
            data = data[split]
    else:
        hint = f"; to see the line at fault, name the files themselves, as in {folder}/*.jsonl"
        data = _loaded(str(folder), partial(datasets.load_dataset, str(folder), split=split), hint)
    yield from _numbered(str(folder), data)


def _hub_rows(source: str, split: str) -> Iterator[Row]:
    import datasets  # takes seconds: only where it is needed

    name, _, config = source.partition(":")
    hint = "; there is no such file or folder either"
    data = _loaded(source, partial(datasets.load_dataset, name, config or None, split=split), hint)
    yield from _numbered(f"{source}[{split}]", data)


def _numbered(name: str, data: Any) -> Iterator[Row]:
    if len(data) == 0:
        raise UserError(f"{name}: holds no row: expected at least one")
    for number, values in enumerate(data, start=1):
        yield Row(f"{name} row {number}", values)


def _loaded(name: str, load: Callable[[], Any], hint: str = "") -> Any:
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except (DatasetsError, OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise UserError(f"{name}: the datasets library cannot load it: {error}{cause}{hint}") from error
