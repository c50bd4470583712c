"""Token trees on disk: written in one pass with constant memory, read a row at a time, checked before they are used.

A store is a folder. `tokens.bin` holds tree after tree, each as the number of its completions, the lengths of its
prompt and of each completion (uint32), and then their tokens (uint16 where the vocabulary fits, else int32);
`offsets.npy` says where each begins, `lengths.npy` how many tokens each has, `values.npy` what the data
says of it (a pair's margin), `prompts.npy` which have the same prompt, `store.json` what was counted, what the files
must be, and a checksum of itself and of the folder's name. In memory stand 8 bytes a row. Rows are read with `pread`:
pages of a mapped file count as the process's own memory.

Not covered: which store belongs to which data (`cache.py`); the `.*.tmp` folder of a process that was killed without
notice (it is never read).
"""

import hashlib
import json
import math
import os
import secrets
import shutil
import sys
import weakref
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from lit_pref.data.reading.rows import SkippedRows
from lit_pref.data.tokens.tokenize import TokenizedChunk
from lit_pref.errors import UserError
from lit_pref.storage.files import JsonValue
from lit_pref.types import TokenTree

Rows: TypeAlias = npt.NDArray[np.int32]

_TOKENS, _ABOUT = "tokens.bin", "store.json"
_OFFSETS, _LENGTHS, _VALUES, _PROMPTS = "offsets.npy", "lengths.npy", "values.npy", "prompts.npy"


class StoreWriteError(UserError):
    """A store cannot be kept where it was to go: a read-only folder, a full disk."""


class TokenStore:
    """An open store of rows, each a prompt with its completions.

    digest: 32 hex digits that identify its token trees and their order.
    records: how many it was made of.
    largest_id: of its tokens; -1 where there is none.
    counts: `kept`, `dropped_…` and `truncated_…` records; `without_value` where only some had one.
    skipped: rows that were no such records, as `SkippedRows.to_json` gives them.
    values: one a row, or None where not every row has one.
    """

    def __init__(self, folder: Path, check: bool = False) -> None:
        """Raises UserError for a folder that is not a whole store.

        check: read all of it and compare it with what was written, which takes about a second a gigabyte.
        """
        self.folder = folder
        try:
            about = _description(folder)
            self._files: dict[str, Any] = about["files"]
            for name, expected in self._files.items():
                if (there := (folder / name).stat().st_size) != expected["bytes"]:
                    raise ValueError(f"{name} has {there:,} bytes, expected {expected['bytes']:,}")
                if check and _hash(folder / name) != expected["blake2b"]:
                    raise ValueError(f"{name} has changed since it was written")
            self.digest: str = self._files[_TOKENS]["blake2b"]
            self.records: int = about["records"]
            self.largest_id: int = about["largest_id"]
            self.counts: dict[str, int] = about["counts"]
            self.skipped: dict[str, Any] = about["skipped"]
            self.values = array("f", np.load(folder / _VALUES).tobytes()) if _VALUES in self._files else None
            self._typecode: str = about["typecode"]
            self._offsets: npt.NDArray[np.int64] = np.load(folder / _OFFSETS)
            self._tokens = os.open(folder / _TOKENS, os.O_RDONLY)
        except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
            raise UserError(f"{folder}: is no whole token store: {error}; delete the folder") from error
        weakref.finalize(self, os.close, self._tokens)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __reduce__(self) -> tuple[type["TokenStore"], tuple[Path]]:
        return TokenStore, (self.folder,)  # a worker process opens the files for itself

    def tree(self, row: int) -> TokenTree:
        """One row; Raises IndexError beyond the last, UserError where the file has been cut since it was opened."""
        data = self._read(row)
        lengths = _stated_lengths(data)
        ids = iter(array(self._typecode, data[4 * (1 + len(lengths)) :]))
        prompt, *completions = (tuple(islice(ids, length)) for length in lengths)
        return TokenTree(prompt, tuple(completions))

    def completion_lengths(self, row: int) -> tuple[int, ...]:
        """Tokens of one row's completions."""
        return tuple(_stated_lengths(self._read(row))[1:])

    def _read(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        start, end = map(int, self._offsets[row : row + 2])
        data = os.pread(self._tokens, end - start, start)
        if len(data) < end - start:
            raise UserError(f"{self.folder}: {_TOKENS} was cut short at row {row}; delete the folder and run again")
        return data

    def lengths(self) -> Rows:
        """Tokens of each row with its prompt counted once; read anew at each call."""
        lengths: Rows = np.load(self.folder / _LENGTHS)
        return lengths

    def trees(self, rows: Rows | None = None) -> "StoredTrees":
        """Some rows, in the order given, or all."""
        return StoredTrees(self, rows)

    def prompts(self) -> npt.NDArray[np.int64]:
        """`prompt_identity` of each row; read anew at each call."""
        prompts: npt.NDArray[np.int64] = np.load(self.folder / _PROMPTS)
        return prompts


class StoredTrees(Sequence[TokenTree]):
    """Rows of a store; 8 bytes each in memory at most, on top of the store's."""

    def __init__(self, store: TokenStore, rows: Rows | None = None) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, row: int) -> TokenTree: ...
    @overload
    def __getitem__(self, row: slice) -> list[TokenTree]: ...
    def __getitem__(self, row: int | slice) -> TokenTree | list[TokenTree]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        return self.store.tree(range(len(self))[row] if self.rows is None else int(self.rows[row]))

    def completion_lengths(self, row: int) -> tuple[int, ...]:
        """Tokens of one row's completions."""
        return self.store.completion_lengths(row if self.rows is None else int(self.rows[row]))

    @property
    def lengths(self) -> Rows:
        """Tokens of each with its prompt counted once."""
        lengths = self.store.lengths()
        return lengths if self.rows is None else lengths[self.rows]

    @property
    def values(self) -> "array[float] | None":
        """One a row, or None where not every row of the store has one."""
        if self.store.values is None or self.rows is None:
            return self.store.values
        return array("f", np.frombuffer(self.store.values, np.float32)[self.rows].tobytes())

    @property
    def fingerprint(self) -> str:
        """32 hex digits that identify these trees and their order, by their store and their places in it."""
        if self.rows is None:
            return self.store.digest
        digest = hashlib.blake2b(self.store.digest.encode(), digest_size=16)
        digest.update(self.rows.astype("<i4", copy=False).data)
        return digest.hexdigest()


# --- writing ----------------------------------------------------------------------------------------------------------


def write_store(folder: Path, chunks: Iterable[TokenizedChunk], vocabulary: int, skipped: SkippedRows) -> None:
    """Write what `tokenized_chunks` gives under the name `folder`, whole or not at all.

    vocabulary: how many tokens there are; `skipped` is read after the last chunk.

    Raises StoreWriteError where it cannot be kept there, UserError for a sampled token id beyond the vocabulary's type,
    and what the chunks raise. Where another process has made the same store meanwhile, that one stays.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    typecode = "H" if vocabulary <= 2**16 else "i"
    offsets, lengths, values, prompts = array("q", [0]), array("i"), array("f"), array("q")
    counts, records, largest = Counter(kept=0), 0, -1
    try:
        with _keeping(folder):
            temporary.mkdir(parents=True)
            (temporary / _TOKENS).touch()
        for chunk in chunks:
            sizes = [tree.shared_length for tree in chunk.trees]
            ids = np.fromiter(chain.from_iterable(chain(*parts) for parts in map(_parts, chunk.trees)), np.int64)
            largest = max(largest, int(ids.max(initial=-1)))
            if largest > np.iinfo(typecode).max:
                raise UserError(f"the token id {largest} of a sampled response is not one of the tokenizer's")
            tokens = np.split(ids.astype(typecode), np.cumsum(sizes)[:-1])
            encoded = [_header(tree) + each.tobytes() for tree, each in zip(chunk.trees, tokens, strict=False)]
            # Opened for the while, so that a full disk shows here and not when an error on the way closes the file.
            with _keeping(folder), (temporary / _TOKENS).open("ab") as stream:
                stream.writelines(encoded)
            offsets.extend(accumulate(map(len, encoded), initial=offsets.pop()))
            lengths.extend(sizes)
            values.extend(math.nan if value is None else value for value in chunk.values)
            prompts.extend(chunk.prompts)
            counts.update(chunk.counts)
            records += chunk.records
        without = int(np.isnan(np.frombuffer(values, np.float32)).sum())
        if 0 < without < len(values):
            counts["without_value"] = without
        with _keeping(folder):
            np.save(temporary / _OFFSETS, np.frombuffer(offsets, np.int64))
            np.save(temporary / _LENGTHS, np.frombuffer(lengths, np.int32))
            if values and not without:
                np.save(temporary / _VALUES, np.frombuffer(values, np.float32))
            np.save(temporary / _PROMPTS, np.frombuffer(prompts, np.int64))
            files = {path.name: _described(path) for path in sorted(temporary.iterdir())}
            about: dict[str, JsonValue] = {"files": files, "typecode": typecode, "records": records}
            about |= {"largest_id": largest, "counts": dict(counts), "skipped": skipped.to_json()}
            about["blake2b"] = _checksum(folder.name, about)
            (temporary / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            _publish(temporary, folder)
    finally:  # after Ctrl-C too nothing half written is left
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreWriteError(f"{folder}: tokens cannot be kept there: {error.strerror or error}") from error


def _parts(tree: TokenTree) -> Sequence[tuple[int, ...]]:
    return (tree.prompt_ids, *tree.completion_ids)


def _header(tree: TokenTree) -> bytes:
    return array("I", (len(tree.completion_ids), *map(len, _parts(tree)))).tobytes()


def _stated_lengths(data: bytes) -> list[int]:
    """Of a row's prompt and of each of its completions."""
    completions = int.from_bytes(data[:4], sys.byteorder)
    return array("I", data[4 : 4 * (2 + completions)]).tolist()


def _description(folder: Path) -> dict[str, Any]:
    """What `store.json` says; Raises ValueError where that is not what was written there."""
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    stated = about.pop("blake2b", None) if isinstance(about, dict) else None
    if stated != _checksum(folder.name, about):
        raise ValueError(f"{_ABOUT} has changed since it was written, or is another folder's")
    checked: dict[str, Any] = about
    return checked


def _checksum(name: str, about: JsonValue) -> str:
    return hashlib.blake2b(json.dumps([name, about], sort_keys=True).encode(), digest_size=16).hexdigest()


def _described(path: Path) -> dict[str, JsonValue]:
    return {"bytes": path.stat().st_size, "blake2b": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not (folder / _ABOUT).is_file():
            raise  # else another process was faster
