"""Small arrays on disk that took long to compute: reference log-probs, figures of an evaluation; shared by all runs.

The key is a hash of everything that the values depend on, so a changed weight, token or row misses. A file is a
`.npy` array (numpy reads it) and a checksum of key and values behind it; it is written under a temporary name and
renamed, so that processes that write at once leave one whole file. One that is cut short, altered or of another shape
is removed with a line and made again. Where the folder cannot be written, one line says so and the run goes on.
Not covered: deleting what nobody uses; the cache folder may be deleted at any time.
"""

import hashlib
import io
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.storage.shards import remove, replacing

_CHECKSUM_BYTES = 16


def default_cache_folder() -> Path:
    """`$LIT_PREF_CACHE`, else `lit_pref` in the user's cache folder."""
    chosen = os.environ.get("LIT_PREF_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_pref"


def keep_in_memory(root: Path, error: OSError | UserError) -> None:
    """Say once that the cache folder `root` cannot be written, and what mends it.

    Raises the error again where it is about anything but writing.
    """
    cause = error.__cause__ if isinstance(error, UserError) else error
    if not isinstance(cause, OSError):
        raise error
    _say_once(root, cause.strerror or str(cause))


@cache
def _say_once(root: Path, reason: str) -> None:
    print(
        f"{root}: the cache cannot be written ({reason}): this run goes on with the values in memory, and the next one "
        "makes them again; make room, or name another folder by LIT_PREF_CACHE or the argument cache_folder",
        flush=True,
    )


class ArrayCache:
    """Finds and keeps fp32 arrays by the parts of their key.

    root: the cache folder; None is the user's.
    kind: the folder in it.
    """

    def __init__(self, root: Path | None, kind: str) -> None:
        self.root = root or default_cache_folder()
        self.folder = self.root / kind

    def path(self, key: Sequence[str]) -> Path:
        return self.folder / f"{_digest(key).hexdigest()}.npy"

    def load(self, key: Sequence[str], shape: tuple[int, ...]) -> Tensor | None:
        """The array, memory-mapped and read-only in effect.

        None where there is no whole one of this shape; what stands in its place is removed, and a line says so.
        """
        path, header = self.path(key), _header(shape)
        try:
            # Opened once: by the second time it might be another run's file.
            with path.open("rb") as stream:
                stated = stream.read(len(header))
                size = stream.seek(0, os.SEEK_END) - _CHECKSUM_BYTES
                if stated == header and size == len(header) + 4 * math.prod(shape):
                    stream.seek(size)
                    checksum = stream.read()
                    values = np.memmap(stream, "<f4", "c", offset=len(header), shape=shape)
                    # Reading them once costs a millisecond for a million pairs.
                    if _checksum(key, values) == checksum:
                        return torch.from_numpy(values)
        except OSError:  # absent, a folder, or not ours to read
            pass
        if os.path.lexists(path):
            print(f"{path}: is damaged or not what its name says; made again", flush=True)
            with suppress(OSError):  # what cannot be removed is told where it cannot be written over
                remove(path)
        return None

    def save(self, key: Sequence[str], values: Tensor) -> Path | None:
        """Keep the values; readers see all of them or nothing. Prints a line and gives None where that cannot be."""
        path, array = self.path(key), values.float().cpu().contiguous().numpy().astype("<f4", copy=False)
        try:
            with replacing(path) as stream:
                stream.write(_header(array.shape))
                stream.write(array.data)
                stream.write(_checksum(key, array))
        except (OSError, UserError) as error:
            keep_in_memory(self.root, error)
            return None
        return path


def _header(shape: tuple[int, ...]) -> bytes:
    """What a `.npy` file of fp32 values begins with."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return stream.getvalue()


def _checksum(key: Sequence[str], values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> bytes:
    digest = _digest(key)  # with the key: a file under another one's name is none of it
    digest.update(values.data)
    return digest.digest()


def _digest(key: Sequence[str]) -> "hashlib.blake2b":
    return hashlib.blake2b("|".join(key).encode(), digest_size=_CHECKSUM_BYTES)
