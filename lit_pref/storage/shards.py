"""Parquet files with a checksum, and resumable folders of numbered shards of them.

A Parquet file states a checksum of all of itself, which `whole_parquet` compares: Parquet itself does not notice what
has changed. Not covered: two runs that write the same folder with different rows at once (the last rename wins).
"""

import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.errors import UserError
from lit_pref.storage.files import JsonValue, differences, provenance_digest, remove, replacing, write_json

MANIFEST = "manifest.json"
SHARDS = "part-*.parquet"
_COUNTS_KEY = b"lit_pref.counts"
_CHECKSUM, _DIGITS = b"lit_pref.blake2b=", 32  # stands in the file's metadata, where the digits count as zeros
_MANIFEST_KEYS, _SEAL = {"complete", "shards", "rows", "counts", "provenance"}, "blake2b"


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


def read_counts(path: Path) -> dict[str, int]:
    """The counts that a Parquet file carries; empty where it carries none."""
    metadata = pq.read_schema(path).metadata or {}
    counts: dict[str, int] = json.loads(metadata.get(_COUNTS_KEY, b"{}"))
    return counts


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


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"part-{index:05d}.parquet"


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

    def _check_provenance(self) -> None:
        there = read_manifest(self.folder)["provenance"]
        assert isinstance(there, dict)  # read_manifest refuses anything else
        if changes := differences(there, self.provenance):
            raise UserError(f"{self.folder}: was made otherwise ({changes}); name another folder or delete this one")

    @property
    def complete(self) -> bool:
        """Nothing is left to do."""
        return read_manifest(self.folder).get("complete") is True

    def path(self, index: int) -> Path:
        return shard_path(self.folder, index)

    def done(self) -> list[int]:
        """Indices of the shards that are there, ascending."""
        return sorted(int(path.stem.removeprefix("part-")) for path in self.folder.glob(SHARDS))

    def missing(self, total: int) -> list[int]:
        """Indices below `total` that are still to be made, ascending; as damaged ones are."""
        self.drop_damaged()
        return sorted(set(range(total)) - set(self.done()))

    def drop_damaged(self) -> None:
        """Remove, with a line, what is no shard as `write` wrote it there for this provenance."""
        for index in self.done():
            path = self.path(index)
            if not whole_parquet(path, self._mark(index)):
                print(f"{path}: is no whole shard; made again", flush=True)
                remove(path)

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
