"""Results on disk that are whole or not there: Parquet and JSON files, and resumable folders of numbered shards.

Everything is written under a temporary name in the same folder, flushed to the disk and then renamed, so that a
crash, Ctrl-C or a full disk leaves what stood there before. A Parquet file states a checksum of all of itself, which
`whole_parquet` compares: Parquet alone does not notice what has changed. Not covered: two runs that write the same
folder with different rows at once (the last rename wins), remote file systems, the temporary file of a process that was
killed without notice (`.*.tmp`; it is never read) where nobody calls `remove_orphans`.
"""

import errno
import io
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, TypeAlias, Union

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.errors import UserError

JsonValue: TypeAlias = Union[bool, int, float, str, Sequence["JsonValue"], Mapping[str, "JsonValue"], None]  # noqa: UP007 (recursive)

MANIFEST = "manifest.json"
SHARDS = "part-*.parquet"
_COUNTS_KEY = b"lit_pref.counts"
_CHECKSUM, _DIGITS = b"lit_pref.blake2b=", 32  # stands in the file's metadata, where the digits count as zeros
_MANIFEST_KEYS, _SEAL = {"complete", "shards", "rows", "counts", "provenance"}, "blake2b"
_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]+\.tmp")  # as `replacing` names it, by its process


def write_parquet(
    path: Path,
    rows: Sequence[Mapping[str, object]],
    schema: pa.Schema,
    counts: Mapping[str, int] | None = None,
    mark: str = "",
) -> None:
    """Write rows as one file, whole or not at all.

    counts: kept in the file's own metadata, see `read_counts`.
    mark: what the file is; `whole_parquet` then takes no other one in its place.

    Raises UserError on a full disk or an unwritable folder, ValueError for a key that the schema lacks.
    """
    for row in rows:
        if not row.keys() <= set(schema.names):
            raise ValueError(f"{path}: row keys {sorted(row)} are not all in the schema's {schema.names}")
    if counts is not None:
        schema = schema.with_metadata({**(schema.metadata or {}), _COUNTS_KEY: json.dumps(dict(counts))})
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    content = io.BytesIO()
    with pq.ParquetWriter(content, schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"lit_pref.checksum": _CHECKSUM + b"0" * _DIGITS})
    data = content.getvalue()
    place = data.rindex(_CHECKSUM) + len(_CHECKSUM)
    with replacing(path) as stream:
        stream.write(data[:place] + _parquet_checksum(data, mark) + data[place + _DIGITS :])


def whole_parquet(path: Path, mark: str = "") -> bool:
    """Whether a file that `write_parquet` wrote with this mark is there and holds what was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    head, found, rest = data.rpartition(_CHECKSUM)
    zeroed = head + found + b"0" * _DIGITS + rest[_DIGITS:]
    return bool(found) and _parquet_checksum(zeroed, mark) == rest[:_DIGITS]


def _parquet_checksum(data: bytes, mark: str) -> bytes:
    return blake2b(data, digest_size=_DIGITS // 2, key=mark.encode()).hexdigest().encode()


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, whichever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_counts(path: Path) -> dict[str, int]:
    """The counts that a Parquet file carries; empty where it carries none."""
    metadata = pq.read_schema(path).metadata or {}
    counts: dict[str, int] = json.loads(metadata.get(_COUNTS_KEY, b"{}"))
    return counts


def write_json(path: Path, value: JsonValue) -> None:
    """Write JSON for people to read, whole or not at all; Raises UserError on a full disk or an unwritable folder."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


@contextmanager
def replacing(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[IO[bytes]]:
    """A stream whose content takes the name `path` when the block ends well, and leaves no trace when it does not.

    check: of the file on the disk before it takes its name; it raises where that is not what was written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    except BaseException:  # Ctrl-C too leaves nothing half written
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_orphans(folder: Path) -> None:
    """Remove what processes of this machine left half written in a folder when they were killed."""
    for path in folder.glob(".*.tmp"):
        named = _TEMPORARY.fullmatch(path.name)
        if named and not _lives(int(named[1])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only once the folder itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> UserError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: cannot be written: {error.strerror or error}")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free / 2**20
    return UserError(
        f"{path}: the disk is full or the quota is used up ({error.strerror}; {free:.1f} MiB free). What was finished "
        "before stays valid: make room, then run the same command again and it goes on from there"
    )


def read_manifest(path: Path) -> dict[str, JsonValue]:
    """The manifest of a shard folder, given the folder or the file; Raises UserError where it is missing or broken."""
    file = path / MANIFEST if path.is_dir() else path
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such manifest; was this folder made by lit_pref?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON: {error}; make the data again in a new folder") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("provenance"), dict):
        raise UserError(f'{file}: expected an object with "provenance"; was this folder made by lit_pref?')
    stated = manifest.pop(_SEAL, None)
    if not _MANIFEST_KEYS.issuperset(manifest) or stated not in (None, provenance_digest(manifest)):
        raise UserError(f"{file}: has changed since it was written; make the data again in a new folder")
    return manifest


def _sealed(manifest: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {**manifest, _SEAL: provenance_digest(manifest)}


def provenance_digest(provenance: JsonValue) -> str:
    """16 hex digits that name what made some data: equal for equal JSON, whatever the order of keys."""
    text = json.dumps(provenance, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


class ShardWriter:
    """Numbered shards of a long piece of work, made once each, in any order, and over several runs.

    folder: holds `part-00000.parquet`, … and `manifest.json`; name it after `provenance_digest(provenance)`.
    provenance: all that the rows depend on: settings, seed, fingerprints of models and data, versions.
    cache: the folder is named after its provenance, so that a manifest of another one, or a damaged one, is made again.

    for index in writer.missing(total):
        writer.write(index, rows, counts)
    writer.finish(total)
    """

    def __init__(
        self, folder: Path, provenance: Mapping[str, JsonValue], schema: pa.Schema, cache: bool = False
    ) -> None:
        self.folder = folder
        self.schema = schema
        self.provenance: dict[str, JsonValue] = json.loads(json.dumps(dict(provenance), allow_nan=False))
        if os.path.lexists(folder / MANIFEST):
            try:
                self._check_provenance()
                return
            except UserError as error:
                if not cache:
                    raise
                print(f"{error}: made again", flush=True)
                remove(folder / MANIFEST)
        write_json(folder / MANIFEST, _sealed({"complete": False, "provenance": self.provenance}))

    def _mark(self, index: int) -> str:
        return f"{provenance_digest(self.provenance)}/{index}"

    def whole(self, index: int) -> bool:
        """Whether shard `index` holds what `write` wrote there for this provenance; what does not is removed."""
        if whole_parquet(self.path(index), self._mark(index)):
            return True
        remove(self.path(index))
        return False

    def _check_provenance(self) -> None:
        there = read_manifest(self.folder)["provenance"]
        assert isinstance(there, dict)  # read_manifest refuses anything else
        keys = sorted(
            key
            for key in there.keys() | self.provenance.keys()
            if there.get(key, "absent") != self.provenance.get(key, "absent")
        )
        if keys:
            changes = "; ".join(
                f"{k}: {there.get(k, 'absent')} there, {self.provenance.get(k, 'absent')} now" for k in keys
            )
            raise UserError(f"{self.folder}: was made otherwise ({changes}); name another folder or delete this one")

    @property
    def complete(self) -> bool:
        """Nothing is left to do."""
        return read_manifest(self.folder).get("complete") is True

    def path(self, index: int) -> Path:
        return self.folder / f"part-{index:05d}.parquet"

    def done(self) -> list[int]:
        """Indices of the shards that are there, ascending."""
        return sorted(int(path.stem.removeprefix("part-")) for path in self.folder.glob(SHARDS))

    def missing(self, total: int) -> list[int]:
        """Indices below `total` that are still to be made, ascending."""
        return sorted(set(range(total)) - set(self.done()))

    def write(self, index: int, rows: Sequence[Mapping[str, object]], counts: Mapping[str, int] | None = None) -> None:
        """Make shard `index`; `counts` (rows left out by reason, and the like) are kept with it and summed up later."""
        write_parquet(self.path(index), rows, self.schema, counts or {}, self._mark(index))

    def finish(self, total: int) -> dict[str, JsonValue]:
        """Declare the work complete: the manifest, with the rows and the summed counts, is written last."""
        if self.done() != list(range(total)):
            raise ValueError(f"{self.folder}: expected shards 0 to {total - 1}, got {self.done()}")
        counts: Counter[str] = Counter()
        for index in range(total):
            counts.update(read_counts(self.path(index)))
        manifest: dict[str, JsonValue] = {
            "complete": True,
            "shards": total,
            "rows": sum(pq.read_metadata(self.path(index)).num_rows for index in range(total)),
            "counts": dict(counts),
            "provenance": self.provenance,
        }
        write_json(self.folder / MANIFEST, _sealed(manifest))
        return manifest
