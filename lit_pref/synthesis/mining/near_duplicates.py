"""Snippets that were seen before, word for word or nearly, by MinHash and locality-sensitive hashing.

A snippet is the set of its shingles (words in a row); its MinHash signature, by rensa, is cut into bands of rows. Two
snippets whose sets have the Jaccard similarity s agree in a band with probability 1 - (1 - s^rows)^bands, and one that
agrees with a snippet kept before is a near-duplicate: with 5 bands of 8 rows 94% at s = 0.9, 60% at 0.8, 2% at 0.5.
What was seen lies in a temporary SQLite file, so memory is bounded, and nothing has to be cleared away. Bands, rows
and shingles are ours [D]. Not covered: a check of the similarity of what agrees in a band; renamed variables.
"""

import json
import sqlite3
import struct
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from lit_pref.errors import UserError
from lit_pref.syntax.words import Words, mixed

Duplicate = Literal["duplicate", "near-duplicate"]
_SEED = 42
_CACHE_KIB = 65_536


class MinHashBands(NamedTuple):
    """How snippets are compared; see above. bands = 0: only word for word."""

    shingle: int
    bands: int
    rows: int

    def keys(self, words: Words, places: Sequence[tuple[int, int]], codes: Sequence[str]) -> NDArray[np.int64]:
        """What snippets are known by, [snippets, 1 + bands]: their code's digest, and a hash of each band.

        words: of the file; places: of the snippets in it, in bytes.
        """
        exact = np.frombuffer(b"".join(map(_digest, codes)), np.uint64)
        if not self.bands:
            return exact[:, None].view(np.int64)
        starts, ends = np.fromiter(chain.from_iterable(places), np.int64, 2 * len(places)).reshape(-1, 2).T
        first = words.starts.searchsorted(starts)
        last = np.maximum(first, words.starts.searchsorted(ends) - self.shingle + 1)
        hashes = words.run_hashes(self.shingle)
        shingles = np.concatenate([hashes[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)])
        offsets = np.concatenate([[0], np.cumsum(last - first)])
        signatures = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, self.bands * self.rows, _SEED)
        pack = struct.Struct(f"={self.bands * self.rows}I").pack  # twice as fast as NumPy takes lists
        packed = b"".join([pack(*row) for row in signatures.to_rows()])
        values = np.frombuffer(packed, np.uint32).reshape(-1, self.bands, self.rows).astype(np.uint64)
        bands = mixed((values + np.uint64(1)) * _multipliers(self.bands, self.rows)).sum(axis=-1, dtype=np.uint64)
        too_short = first == last  # for a shingle: known only word for word
        bands[too_short] = exact[too_short, None]
        return np.concatenate([exact[:, None], bands], axis=1).view(np.int64)


@cache
def _multipliers(bands: int, rows: int) -> NDArray[np.uint64]:
    """One odd number for each place of a signature, [bands, rows], so that equal values elsewhere are not equal."""
    return mixed(np.arange(1, bands * rows + 1, dtype=np.uint64)).reshape(bands, rows) | np.uint64(1)


def _digest(code: str) -> bytes:
    return blake2b(code.encode("utf-8"), digest_size=8).digest()


class SeenSnippets:
    """The keys of the snippets that were kept: the last of them in memory, all others on disk (in TMPDIR's folder).

    in_memory: keys that are held before they go to the disk together.
    """

    def __init__(self, in_memory: int = 500_000) -> None:
        self._in_memory = in_memory
        self._recent: set[int] = set()
        # An empty name is a temporary file of SQLite's own, which no process is left to find.
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY)")
        self._database.execute("BEGIN")
        self._on_disk = False

    def close(self) -> None:
        self._database.close()

    def add(self, keys: NDArray[np.int64]) -> list[Duplicate | None]:
        """For each snippet in turn: None where it is new, and is kept; else what it is to one that was kept before.

        keys: [snippets, 1 + bands]. However they are split over calls, the answers are the same.

        Raises UserError on a full disk.
        """
        try:
            older = self._older(keys)
            verdicts = [self._verdict(row, older) for row in keys.tolist()]
            if len(self._recent) > self._in_memory:
                self._spill()
        except sqlite3.OperationalError as error:
            raise UserError(
                f"the temporary file of snippets seen cannot be used: {error}; set TMPDIR to a folder with room"
            ) from error
        return verdicts

    def _verdict(self, row: list[int], older: set[int]) -> Duplicate | None:
        if self._recent.isdisjoint(row) and (not older or older.isdisjoint(row)):
            self._recent.update(row)
            return None
        return "duplicate" if row[0] in self._recent or row[0] in older else "near-duplicate"

    def _older(self, keys: NDArray[np.int64]) -> set[int]:
        """Those of the keys that are on disk."""
        if not self._on_disk:
            return set()
        asked = json.dumps(np.unique(keys).tolist())
        query = "SELECT seen.key FROM json_each(?) AS asked CROSS JOIN seen ON seen.key = asked.value"
        return {key for (key,) in self._database.execute(query, (asked,))}

    def _spill(self) -> None:
        # In order, so that neighbours meet the same pages.
        self._database.execute("INSERT INTO seen SELECT value FROM json_each(?)", (json.dumps(sorted(self._recent)),))
        self._recent.clear()
        self._on_disk = True
