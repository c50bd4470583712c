"""Rows of one JSON Lines, JSON, CSV or Parquet file, each with its line or number, counted from 1.

Memory does not grow with the file, except for a `.json` file that is one list. A row that cannot be read is yielded
as its error, so that the caller may skip it. Not covered: globs, folders and hub data sets (`sources.py`).
"""

import csv
import gzip
import io
import json
import re
import reprlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.errors import UserError


def file_rows(path: Path, kind: str | None = None) -> Iterator[Row | RowError]:
    """The rows of a file; kind: the type that it is of whatever its name says, as `.jsonl`."""
    empty = True
    try:
        for row in _parquet_rows(path) if path.suffix == ".parquet" else _text_rows(path, kind or text_suffix(path)):
            empty = False
            yield row
    except UserError:
        raise
    # A damaged Parquet file may decode to text that is no UTF-8, or to sizes beyond any memory.
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix}: {error}") from error
    if empty:
        raise UserError(f"{path}: holds no row: expected at least one; was what wrote it interrupted?")


def _parquet_rows(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise UserError(f"{path}: column names must differ, got {', '.join(names)}")
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path} row {number}", values)


def text_suffix(path: Path) -> str:
    """`.jsonl` of `pairs.jsonl`, of `pairs.jsonl.gz` and of `pairs.jsonl.zst`."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def _text_rows(path: Path, kind: str) -> Iterator[Row | RowError]:
    with COMPRESSED.get(path.suffix, io.FileIO)(path) as raw, io.BufferedReader(raw) as stream:
        yield from TEXT_READERS[kind](path, stream)


def _zstd(path: Path) -> Any:
    return pa.input_stream(str(path), compression="zstd")


COMPRESSED: Mapping[str, Callable[[Path], Any]] = {".gz": gzip.open, ".zst": _zstd}


def _json_line_rows(path: Path, stream: io.BufferedReader) -> Iterator[Row | RowError]:
    for number, line in enumerate(stream, start=1):
        if not line.isspace():
            # Windows editors put a byte order mark before the first line.
            yield _json_row(f"{path}:{number}", line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _json_row(location: str, line: bytes) -> Row | RowError:
    try:
        text = line.decode("utf-8")
        value = _JSON.decode(text)
    except UnicodeDecodeError as error:
        return _not_utf8(location, f"byte {error.start + 1} is 0x{line[error.start]:02x}")
    except json.JSONDecodeError as error:
        return RowError(
            "broken JSON",
            f"{location}: broken JSON at column {error.colno}: {error.msg}; there stands "
            f"{_excerpt(text, error.pos)!r}; expected one whole object on each line",
        )
    except (RecursionError, ValueError) as error:  # deep nesting, an integer of thousands of digits, a key twice
        return RowError("broken JSON", f"{location}: JSON that cannot be read: {error}")
    return _as_row(location, value)


def _with_keys_once(items: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(items)
    if len(values) < len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" stands twice in one object')
    return values


_JSON = json.JSONDecoder(object_pairs_hook=_with_keys_once)


def _as_row(location: str, value: object) -> Row | RowError:
    if isinstance(value, dict):
        return Row(location, value)
    return RowError(
        "not an object",
        f'{location}: expected an object such as {{"prompt": …, "chosen": …, "rejected": …}}, got '
        f"{type(value).__name__} {reprlib.repr(value)[:40]}",
    )


def _json_rows(path: Path, stream: io.BufferedReader) -> Iterator[Row | RowError]:
    start = stream.peek().removeprefix(b"\xef\xbb\xbf").lstrip()
    is_object = start[:1] == b"{" and start.partition(b"\n")[0].strip() == b"{"  # over several lines
    if start[:1] == b"{" and not is_object:  # many name JSON Lines .json
        yield from _json_line_rows(path, stream)
        return
    text = ""
    try:
        text = stream.read().decode("utf-8-sig")
        rows = _JSON.decode(text) if text.strip() else []
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1}; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}; there stands "
            f"{_excerpt(text, error.pos)!r}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: JSON that cannot be read: {error}; a row a line (.jsonl) names the line") from error
    if is_object:
        yield _as_row(str(path), rows)
        return
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of rows, or one object on each line, got {type(rows).__name__}")
    for number, value in enumerate(rows, start=1):
        yield _as_row(f"{path} row {number}", value)


def _excerpt(text: str, position: int) -> str:
    return text[max(0, position - 20) : position + 20]


def _csv_rows(path: Path, stream: io.BufferedReader) -> Iterator[Row | RowError]:
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


TEXT_READERS: Mapping[str, Callable[[Path, io.BufferedReader], Iterator[Row | RowError]]] = {
    ".jsonl": _json_line_rows,
    ".ndjson": _json_line_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
}
