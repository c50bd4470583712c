"""Preference pairs as a Parquet file that this kit and others read back: TRL's keys, and the sampled tokens.

A file holds plain text or conversations, whose prompts and responses are lists of messages, as TRL has them. It states
whose vocabulary the tokens are of, since to another tokenizer they mean other text.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.storage.shards import write_parquet
from lit_pref.types import PreferencePair

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_VOCABULARY_KEY = b"lit_pref.vocabulary"


def write_pairs(path: Path, pairs: Sequence[PreferencePair], vocabulary: str | None = None) -> None:
    """Write pairs, whole or not at all; `read_pairs(path)` gives them back.

    vocabulary: `vocabulary_fingerprint` of the tokenizer that the tokens are of, where there are any.

    Raises TypeError where text and conversations are mixed, UserError on a full disk.
    """
    kinds = {isinstance(text, str) for pair in pairs for text in (pair.prompt, pair.chosen, pair.rejected)}
    if len(kinds) > 1:
        raise TypeError("one file holds pairs of plain text or of conversations, got both")
    schema = _schema(_MESSAGES if kinds == {False} else pa.string())
    if vocabulary is not None:
        schema = schema.with_metadata({_VOCABULARY_KEY: vocabulary})
    write_parquet(path, [{name: getattr(pair, name) for name in schema.names} for pair in pairs], schema)


def stated_vocabulary(path: Path) -> str | None:
    """Whose tokens a file of pairs holds; None where it does not say."""
    if path.suffix != ".parquet":
        return None
    stated = (pq.read_schema(path).metadata or {}).get(_VOCABULARY_KEY)
    return None if stated is None else stated.decode()


def without_tokens(pair: PreferencePair) -> PreferencePair:
    """Only the pair's text, for a tokenizer to which its tokens mean something else."""
    return replace(pair, chosen_ids=None, rejected_ids=None)


def _schema(text: pa.DataType) -> pa.Schema:
    ids = pa.list_(pa.int32())
    return pa.schema(
        [
            ("prompt", text),
            ("chosen", text),
            ("rejected", text),
            ("margin", pa.float64()),
            ("chosen_ids", ids),
            ("rejected_ids", ids),
        ]
    )
