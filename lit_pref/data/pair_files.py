"""Preference pairs as a Parquet file that this kit and others read back: TRL's keys, and the sampled tokens.

Not covered: conversations; pairs made here are of plain text.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from lit_pref.data.shards import write_parquet
from lit_pref.types import PreferencePair

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("margin", pa.float64()),
        ("chosen_ids", pa.list_(pa.int32())),
        ("rejected_ids", pa.list_(pa.int32())),
    ]
)


def write_pairs(path: Path, pairs: Sequence[PreferencePair]) -> None:
    """Write pairs of plain text, whole or not at all; `read_pairs(path)` gives them back.

    Raises TypeError for a conversation, UserError on a full disk.
    """
    for pair in pairs:
        if not (isinstance(pair.prompt, str) and isinstance(pair.chosen, str) and isinstance(pair.rejected, str)):
            raise TypeError(f"only pairs of plain text are written, got a conversation: {pair.prompt!r:.100}")
    write_parquet(path, [{name: getattr(pair, name) for name in SCHEMA.names} for pair in pairs], SCHEMA)
