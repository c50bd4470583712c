"""Small arrays on disk that took long to compute: reference log-probs, figures of an evaluation; shared by all runs.

The key is a hash of everything that the values depend on, so a changed weight, token or row misses. A file is a
`.npy` array (numpy reads it), followed by a checksum of the key and the array. A file that is cut short, altered or of
another shape is removed with a line and made again. Where the folder cannot be written, one line says so and the run
goes on. Not covered: deleting what nobody uses; the cache folder may be deleted at any time.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.storage.files import remove, replacing

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
        return self.folder / f"{_digest(key).hex()}.npy"

    def load(self, key: Sequence[str], shape: tuple[int, ...] | None = None) -> Tensor | None:
        """The array; None where no whole one, of this shape, is there. A damaged one is removed, with a line."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except OSError:  # absent, a folder, or not ours to read
            content = b""
        array, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        if checksum == _digest(key, array):
            values = torch.from_numpy(np.load(io.BytesIO(array)))
            if shape is None or values.shape == shape:
                return values
        if os.path.lexists(path):
            print(f"{path}: is damaged or not what its name says; made again", flush=True)
            with suppress(OSError):  # what cannot be removed is told where it cannot be written over
                remove(path)
        return None

    def save(self, key: Sequence[str], values: Tensor) -> Path | None:
        """Keep the values; readers see all of them or nothing. Prints a line and gives None where that cannot be."""
        path, stream = self.path(key), io.BytesIO()
        np.save(stream, values.float().cpu().numpy())
        try:
            with replacing(path) as file:
                file.write(stream.getbuffer())
                file.write(_digest(key, stream.getbuffer()))
        except UserError as error:
            keep_in_memory(self.root, error)
            return None
        return path


def _digest(key: Sequence[str], content: bytes | memoryview = b"") -> bytes:
    """With the key: a file under another one's name is none of it."""
    digest = hashlib.blake2b("|".join(key).encode(), digest_size=_CHECKSUM_BYTES)
    digest.update(content)
    return digest.digest()
