"""Rows from files, globs, folders and hub data sets, each with the place where it stood.

JSON Lines, JSON, CSV (also gzipped) and Parquet are read here, so that an error can name the line; folders of data
files, `save_to_disk` folders and hub ids go through `datasets`. Memory does not grow with the file, except for a
`.json` file that is one list. Lines and rows count from 1. `split` chooses within folders and hub data sets; a file
is read whole. Not covered: what the keys of a row mean (`formats.py`), remote URLs, data set scripts.
"""

import csv
import difflib
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.data.shards import MANIFEST, SHARDS, JsonValue, read_manifest
from lit_pref.errors import UserError

OnBadRow = Literal["error", "skip"]
Source = str | Path | Sequence[str | Path]


class Row(NamedTuple):
    """One record and where it stood: `pairs.jsonl:7` or `pairs.parquet row 12`."""

    location: str
    values: dict[str, object]


class RowError(UserError):
    """A single row that cannot be used; `reason` is the short name under which it is counted when skipped."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class SkippedRows:
    """Rows left out: how many for each reason, and the messages of the first `keep` of them."""

    keep: int = 1000
    counts: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    def add(self, error: RowError) -> None:
        self.counts[error.reason] += 1
        if len(self.messages) < self.keep:
            self.messages.append(str(error))

    def to_json(self) -> dict[str, JsonValue]:
        """What is written beside an output with `shards.write_json`."""
        return {"total": self.counts.total(), "counts": dict(self.counts), "first_messages": list(self.messages)}


def refuse(error: RowError, on_bad_row: OnBadRow, skipped: SkippedRows | None) -> None:
    """Raise the error or count it."""
    if on_bad_row == "error":
        raise error
    if skipped is None:
        raise ValueError('on_bad_row="skip" needs a SkippedRows to count in')
    skipped.add(error)


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
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise UserError("no data source given: expected a file, a glob, a folder or a hub data set id")
    return _rows([reader for each in sources for reader in _resolve(str(each), split)], on_bad_row, skipped)


_Reader = Callable[[], Iterator[Row | RowError]]


def _rows(readers: list[_Reader], on_bad_row: OnBadRow, skipped: SkippedRows | None) -> Iterator[Row]:
    for reader in readers:
        for row in reader():
            if isinstance(row, Row):
                yield row
            else:
                refuse(row, on_bad_row, skipped)


# --- from a name to readers -------------------------------------------------------------------------------------------


def _resolve(source: str, split: str) -> list[_Reader]:
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return [partial(_file_rows, shard) for shard in _finished_shards(path)]
        return [partial(_folder_rows, path, split)]
    if path.is_file():
        files = [path]
    elif re.search(r"[*?\[]", source):
        files = sorted(found for found in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if found.is_file())
        if not files:
            raise UserError(f"{source}: no file matches this pattern; {_holds(path.parent)}")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source) and path.suffix not in (*_STREAMED, ".parquet", ".gz"):
        return [partial(_hub_rows, source, split)]
    else:
        raise UserError(f"{source}: no such file or folder; {_near(path)}")
    for file in files:
        if file.suffix != ".parquet" and _text_suffix(file) not in _STREAMED:
            known = ", ".join((*_STREAMED, ".parquet"))
            raise UserError(f"{file}: unknown file type {file.suffix!r}: expected one of {known} (text also as .gz)")
    return [partial(_file_rows, file) for file in files]


def _finished_shards(folder: Path) -> list[Path]:
    if read_manifest(folder).get("complete") is not True:
        raise UserError(f"{folder}: {MANIFEST} says that this data was not finished; run what makes it again")
    return sorted(folder.glob(SHARDS))


def _text_suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


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


# --- files ------------------------------------------------------------------------------------------------------------


def _file_rows(path: Path) -> Iterator[Row | RowError]:
    empty = True
    try:
        for row in _parquet_rows(path) if path.suffix == ".parquet" else _text_rows(path):
            empty = False
            yield row
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix}: {error}") from error
    if empty:
        raise UserError(f"{path}: holds no row: expected at least one; was what wrote it interrupted?")


def _parquet_rows(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path} row {number}", values)


def _text_rows(path: Path) -> Iterator[Row | RowError]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        yield from _STREAMED[_text_suffix(path)](path, stream)


def _json_line_rows(path: Path, stream: IO[bytes]) -> Iterator[Row | RowError]:
    for number, line in enumerate(stream, start=1):
        if not line.isspace():
            # Windows editors put a byte order mark before the first line.
            yield _json_row(f"{path}:{number}", line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _json_row(location: str, line: bytes) -> Row | RowError:
    try:
        text = line.decode("utf-8")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        return _not_utf8(location, f"byte {error.start + 1} is 0x{line[error.start]:02x}")
    except json.JSONDecodeError as error:
        return RowError(
            "broken JSON",
            f"{location}: broken JSON at column {error.colno}: {error.msg}; there stands "
            f"{_excerpt(text, error.pos)!r}; expected one whole object on each line",
        )
    except (RecursionError, ValueError) as error:  # nested too deeply, or an integer of thousands of digits
        return RowError("broken JSON", f"{location}: JSON that cannot be read: {error}")
    return _as_row(location, value)


def _as_row(location: str, value: object) -> Row | RowError:
    if isinstance(value, dict):
        return Row(location, value)
    return RowError(
        "not an object",
        f'{location}: expected an object such as {{"prompt": …, "chosen": …, "rejected": …}}, got '
        f"{type(value).__name__} {str(value)[:40]!r}",
    )


def _json_rows(path: Path, stream: IO[bytes]) -> Iterator[Row | RowError]:
    if stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        stream.seek(0)  # many name JSON Lines .json
        yield from _json_line_rows(path, stream)
        return
    stream.seek(0)
    text = ""
    try:
        text = stream.read().decode("utf-8-sig")
        rows = json.loads(text) if text.strip() else []
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1}; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}; there stands "
            f"{_excerpt(text, error.pos)!r}"
        ) from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of rows, or one object on each line, got {type(rows).__name__}")
    for number, value in enumerate(rows, start=1):
        yield _as_row(f"{path} row {number}", value)


def _excerpt(text: str, position: int) -> str:
    return text[max(0, position - 20) : position + 20]


def _csv_rows(path: Path, stream: IO[bytes]) -> Iterator[Row | RowError]:
    csv.field_size_limit(2**31 - 1)  # the default refuses cells above 128 KiB; responses can be longer
    # Undecodable bytes become lone surrogates, so that the row they stand in can be named and skipped.
    lines = (line.decode("utf-8", "surrogateescape") for line in stream)
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.removeprefix("\ufeff") for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise UserError(f"{path}:1: column names must differ, got {', '.join(header)}")
        start = reader.line_num + 1
        for cells in reader:
            location, start = f"{path}:{start}", reader.line_num + 1
            if cells:
                yield _csv_row(location, header, cells)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: broken CSV: {error}; quotes inside a cell are doubled") from error


def _csv_row(location: str, header: list[str], cells: list[str]) -> Row | RowError:
    if len(cells) != len(header):
        message = f"{location}: expected {len(header)} cells ({', '.join(header)}), got {len(cells)}"
        return RowError("wrong number of cells", f"{message}; quote cells that hold commas")
    broken = [name for name, cell in zip(header, cells, strict=True) if re.search("[\udc80-\udcff]", cell)]
    if broken:
        return _not_utf8(location, f'in column "{broken[0]}"')
    return Row(location, dict(zip(header, cells, strict=True)))


def _not_utf8(location: str, where: str) -> RowError:
    return RowError("not UTF-8", f"{location}: not UTF-8 ({where}); save the file as UTF-8")


_STREAMED: Mapping[str, Callable[[Path, IO[bytes]], Iterator[Row | RowError]]] = {
    ".jsonl": _json_line_rows,
    ".ndjson": _json_line_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
}


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
