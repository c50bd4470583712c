"""Reference log-probs on disk: one small array a (weights, data, precision), memory-mapped, shared by all runs.

The key is a hash of everything that the values depend on, so a changed weight, token or row misses. A file is written
under a temporary name and renamed; one that is cut short or of another size is made again.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_pref.data.shards import replacing


def default_cache_folder() -> Path:
    """`$LIT_PREF_CACHE`, else `lit_pref` in the user's cache folder."""
    chosen = os.environ.get("LIT_PREF_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_pref"


class ReferenceCache:
    """Finds and keeps `[rows, columns]` fp32 arrays by the parts of their key."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_cache_folder()) / "reference"

    def path(self, key: Sequence[str]) -> Path:
        return self.folder / f"{hashlib.blake2b('|'.join(key).encode(), digest_size=16).hexdigest()}.npy"

    def load(self, key: Sequence[str], rows: int) -> Tensor | None:
        """The array, memory-mapped and read-only in effect; None where there is none of `rows` rows."""
        path = self.path(key)
        try:
            values = np.load(path, mmap_mode="c")
        except FileNotFoundError:
            return None
        except (ValueError, EOFError):  # cut short, or no array
            path.unlink(missing_ok=True)
            return None
        if values.dtype != np.float32 or values.ndim != 2 or len(values) != rows:
            return None
        return torch.from_numpy(values)

    def save(self, key: Sequence[str], values: Tensor) -> Path:
        """Keep [rows, columns] values; readers see all of it or nothing. Raises UserError on a full disk."""
        path = self.path(key)
        with replacing(path) as stream:
            np.save(stream, values.float().cpu().numpy())
        return path
