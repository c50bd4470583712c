"""All words of a source at once: where they are, and hashes of them and of runs of them.

A word is a run of letters, digits, `_`, `$` and bytes beyond ASCII. Its hash is made of its length and its first and
last eight bytes: longer ones that differ only in between are taken for the same. Hashes are the same on every machine
and are not meant to withstand an adversary. All of it is done by NumPy, at hundreds of megabytes a second.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_EDGE = 8  # bytes read at each end of a word
_PADDING = bytes(_EDGE)
_WORD_BYTES = bytes(chr(byte).isalnum() or byte >= 0x80 or chr(byte) in "_$" for byte in range(256))
_FIRST_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(_EDGE + 1)], np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: its multiples spread well
_ODD_2 = np.uint64(0xC2B2AE3D27D4EB4F)


class Words(NamedTuple):
    """The words of a source, each [words].

    starts, ends: where they lie in it, in bytes.
    heads, tails: the eight bytes from a word's start on and up to its end, whatever stands there, as little-endian
        numbers; zeros beyond the source.
    hashes: of the words.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    heads: NDArray[np.uint64]
    tails: NDArray[np.uint64]
    hashes: NDArray[np.uint64]

    def run_hashes(self, length: int) -> NDArray[np.uint64]:
        """The hash of each run of so many words, [words - length + 1]; empty where there are fewer."""
        runs = max(0, len(self.hashes) - length + 1)
        combined = np.zeros(runs, np.uint64)
        for offset in range(length):
            combined *= _ODD
            combined += self.hashes[offset : offset + runs]
        return mixed(combined)


def words(source: bytes) -> Words:
    padded = b"".join((_PADDING, source, _PADDING))
    is_word = np.frombuffer(padded.translate(_WORD_BYTES), np.uint8)
    edges = (is_word[1:] != is_word[:-1]).nonzero()[0] + 1
    starts, ends = edges[::2], edges[1::2]
    eight = np.ndarray((len(padded) - _EDGE + 1,), "<u8", padded, 0, (1,))  # the bytes from each position on
    heads, tails, lengths = eight[starts], eight[ends - _EDGE], ends - starts
    hashes = (heads & _FIRST_BYTES.take(lengths, mode="clip")) * _ODD
    hashes += np.where(lengths > _EDGE, tails, 0) * _ODD_2
    hashes += lengths.astype(np.uint64)
    return Words(starts - _EDGE, ends - _EDGE, heads, tails, mixed(hashes))


@lru_cache(maxsize=1 << 16)  # the same few names are asked for in file after file
def word_hash(word: str) -> int:
    """The hash of a word by itself.

    Raises ValueError for a text that is not one word.
    """
    found = words(word.encode("utf-8", "surrogatepass")).hashes
    if len(found) != 1 or not is_word(word):
        raise ValueError(f"expected one word, got {word!r}")
    return int(found[0])


def is_word(text: str) -> bool:
    return bool(text) and all(text.encode("utf-8", "surrogatepass").translate(_WORD_BYTES))


class Sieve:
    """Finds where an array may hold one of some numbers: all places that do, and about 0.02% of others for each number.

    In place of `np.isin`, which takes several times as long, for callers that look at the places found anyway.
    """

    _BITS = 12

    def __init__(self, numbers: NDArray[np.uint64]) -> None:
        self._holds = np.zeros(1 << self._BITS, np.bool_)
        self._holds[self._slots(numbers)] = True

    def places(self, values: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Ascending indices."""
        return self._holds.take(self._slots(values)).nonzero()[0]

    def _slots(self, values: NDArray[np.uint64]) -> NDArray[np.int64]:
        return ((values * _ODD) >> np.uint64(64 - self._BITS)).view(np.int64)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Values whose high bits reach the low ones, and then the high ones all of them."""
    return (values ^ (values >> np.uint64(32))) * _ODD
