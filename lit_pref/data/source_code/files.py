"""Where raw source comes from: a folder tree, an archive, one file, or a column of a table.

Files come one by one in an order that is the same each time: folders sorted by name, archives and tables in their own
order. Links are not followed, so no loop can be entered; nothing is extracted to the disk. What cannot be used comes
too, with the reason, so that counts add up. Not covered: archives within folders or archives, remote sources.
"""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lit_pref.data.reading.rows import Row
from lit_pref.data.reading.sources import read_rows
from lit_pref.data.source_code.archives import TAR_SUFFIXES, ZIP_SUFFIXES, tar_files, zip_files
from lit_pref.data.source_code.source_file import NOTEBOOK, SourceFile, is_known, origin_of
from lit_pref.errors import UserError
from lit_pref.syntax.languages import GRAMMARS

__all__ = ["SourceFile", "source_files"]

_TABLES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")


def source_files(
    source: str | Path,
    *,
    column: str | None = None,
    path_column: str | None = None,
    language: str = "python",
    split: str = "train",
    max_bytes: int = 10_000_000,
) -> Iterator[SourceFile]:
    """The files of a source.

    source: a folder tree, a `.tar` (plain, or by gzip, bzip2 or xz), `.zip` or `.whl` archive, one source file; or,
        with `column`, anything that `lit_pref.data.reading.sources.read_rows` reads: Parquet, globs, folders, hub ids.
    column: the column that holds source text.
    path_column: the column that holds the file's name, whose suffix gives the language; else all are in `language`.
    max_bytes: members of archives above it are refused before they are read.

    Raises UserError for a source that does not exist, cannot be read, or holds no source code at all.
    """
    if column is not None:
        suffix = _suffix_of(language)
        return _or_none(_column_files(str(source), column, path_column, suffix, split), str(source))
    path = Path(source).expanduser()
    name = path.name.lower()
    if path.is_dir():
        files = _folder_files(path.resolve())
    elif not path.is_file():
        raise UserError(
            f"{source}: no such folder or file; a data set id needs the column that holds source code (column: content)"
        )
    elif name.endswith(TAR_SUFFIXES):
        files = tar_files(path, max_bytes)
    elif name.endswith(ZIP_SUFFIXES):
        files = zip_files(path, max_bytes)
    elif path.suffix in _TABLES:
        raise UserError(f"{source}: say which column holds source code (column: content)")
    elif is_known(path.suffix.lower()):
        files = iter([SourceFile(origin_of(path.name), path.suffix.lower(), path)])
    else:
        known = ", ".join((*TAR_SUFFIXES, *ZIP_SUFFIXES))
        raise UserError(f"{source}: unknown file type {path.suffix!r}: expected a folder or one of {known}")
    return _or_none(files, str(source))


def _or_none(files: Iterator[SourceFile], source: str) -> Iterator[SourceFile]:
    """The files, and an error at the end where none of them is source code."""
    total = usable = 0
    for file in files:
        total += 1
        usable += file.reason != "not source code"
        yield file
    if not usable:
        known = " ".join(suffix for grammar in GRAMMARS.values() for suffix in grammar.suffixes)
        raise UserError(f"{source}: holds no source code, but {total} other files; expected some of {known} {NOTEBOOK}")


def _suffix_of(language: str) -> str:
    for name, grammar in GRAMMARS.items():
        if name == language:
            return grammar.suffixes[0]
    raise UserError(f"language: {language!r} is unknown: expected one of {', '.join(GRAMMARS)}")


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder_files(root: Path) -> Iterator[SourceFile]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield SourceFile(origin_of(folder.relative_to(root)), "", None, "unreadable folder")
            continue
        inner = []
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                inner.append(path)
            else:
                yield _folder_file(entry, path, origin_of(path.relative_to(root)))
        folders += reversed(inner)


def _folder_file(entry: os.DirEntry[str], path: Path, origin: str) -> SourceFile:
    suffix = path.suffix.lower()
    if not is_known(suffix) and not entry.is_symlink():
        return SourceFile(origin, suffix, None, "not source code")
    if entry.is_symlink():
        return SourceFile(origin, suffix, None, "symbolic link")
    if not entry.is_file(follow_symlinks=False):
        return SourceFile(origin, suffix, None, "not a regular file")
    return SourceFile(origin, suffix, path)


# --- tables -----------------------------------------------------------------------------------------------------------


def _column_files(source: str, column: str, path_column: str | None, suffix: str, split: str) -> Iterator[SourceFile]:
    for row in read_rows(source, split):
        if path_column is not None:
            name = _value(row, path_column)
            suffix = PurePosixPath(name).suffix.lower() if isinstance(name, str) else ""
        content = _value(row, column)
        if not is_known(suffix):
            yield SourceFile(row.location, suffix, None, "not source code")
        elif isinstance(content, str | bytes):
            yield SourceFile(row.location, suffix, content)
        else:
            yield SourceFile(row.location, suffix, None, "no text")


def _value(row: Row, column: str) -> object:
    if column in row.values:
        return row.values[column]
    names = list(row.values)
    near = difflib.get_close_matches(column, names, n=1)
    mend = f'did you mean "{near[0]}"?' if near else "name one of them"
    raise UserError(f'{row.location}: has no column "{column}", but {", ".join(names)}; {mend}')
