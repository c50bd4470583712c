"""Rows of a source as a token store: found in the cache by what the tokens depend on, else made.

The key is a hash of the source files' bytes, the tokenizer, the limits, the keys and the code of this layer, so that a
changed row or template misses. Hub ids, saved data sets, slices, and tokenizers without a fast backend have no key:
their stores last as long as the object. Where a file's own tokens are of another vocabulary, its text is tokenized
instead. Not covered: deleting stores that nobody uses; the folder `tokens` of the cache may be deleted at any time.
"""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.data.formats.pairs import PairKeys, to_pair
from lit_pref.data.formats.records import iterate_records
from lit_pref.data.formats.write import stated_vocabulary
from lit_pref.data.reading.files import text_suffix
from lit_pref.data.reading.rows import OnBadRow, SkippedRows
from lit_pref.data.reading.sources import source_files
from lit_pref.data.tokens.encoding import tokenizer_identity, vocabulary_fingerprint
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.store import StoreWriteError, TokenStore, write_store
from lit_pref.data.tokens.tokenize import TokenizedChunk, tokenized_chunks
from lit_pref.errors import UserError
from lit_pref.machine.progress import progress_bar
from lit_pref.storage.files import JsonValue, provenance_digest, remove
from lit_pref.types import TextTree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONG = 20_000  # rows from which on a progress bar is shown: a second or two
_BLOCK = 2**20


@dataclass(frozen=True)
class PairSource:
    """Which pairs, how long they may be and how they end; as in `read_pairs`, `PairsDataModule`, `tokenize`."""

    source: str
    split: str
    keys: PairKeys | None
    limits: LengthLimits
    on_bad_row: OnBadRow
    append_eos: bool = True
    template: str | None = None  # what a prompt of text is put into, for its `{query}`


def token_store(
    source: PairSource, tokenizer: "PreTrainedTokenizerBase", cache: Path, quiet: bool = False
) -> TokenStore:
    """The pairs of a source, tokenized: those that an earlier run has kept, else made and kept.

    cache: stores stand in its folder `tokens`; where they cannot, this one lasts as long as the object and a line says
        so.
    quiet: print neither that line nor progress; for processes beside the first.

    Raises UserError as `read_pairs` and `tokenized_chunks` do, and where nothing at all can be written.
    """
    files = source_files(source.source, source.split)
    contents = None if files is None else [_contents(file) for file in files]
    rows = sum(each.rows for each in contents or ())
    identity = tokenizer_identity(tokenizer)
    if contents is None or identity is None:
        return _temporary(source, tokenizer, 0 if quiet else rows)
    folder = cache / "tokens" / _key(source, identity, contents)
    try:
        found = _found(folder, quiet)
        if found is None:
            _make(folder, source, tokenizer, 0 if quiet else rows)
            found = TokenStore(folder)
        return found
    except StoreWriteError as error:
        if not quiet:
            print(f"{error}; this run keeps them in a temporary folder", flush=True)
        return _temporary(source, tokenizer, 0 if quiet else rows)


def _found(folder: Path, quiet: bool) -> TokenStore | None:
    """Raises StoreWriteError for a damaged store that cannot be removed."""
    if not os.path.lexists(folder):
        return None
    try:
        return TokenStore(folder, check=True)
    except UserError as error:
        reason = str(error).removeprefix(f"{folder}: ").removesuffix("; delete the folder")
    try:
        remove(folder)
    except OSError as error:
        raise StoreWriteError(f"{folder}: is damaged and cannot be removed ({error.strerror})") from error
    if not quiet:
        print(f"{folder}: made again, it {reason}", flush=True)
    return None


def _temporary(source: PairSource, tokenizer: "PreTrainedTokenizerBase", rows: int) -> TokenStore:
    try:
        parent = Path(tempfile.mkdtemp(prefix="lit_pref-tokens-"))
    except OSError as error:
        raise UserError(f"no temporary folder can be made for tokens: {error}; set TMPDIR or LIT_PREF_CACHE") from error
    try:
        _make(parent / "store", source, tokenizer, rows)
        store = TokenStore(parent / "store")
    except BaseException:
        shutil.rmtree(parent, ignore_errors=True)
        raise
    weakref.finalize(store, shutil.rmtree, parent, ignore_errors=True)
    return store


def _make(folder: Path, source: PairSource, tokenizer: "PreTrainedTokenizerBase", rows: int) -> None:
    """rows: about how many there are, for a progress bar; 0 where that is not known or not to be shown."""
    skipped = SkippedRows()
    pairs = iterate_records(to_pair, source.source, source.split, source.keys, source.on_bad_row, skipped)
    texts: Iterator[TextTree] = (pair.tree for pair in pairs)
    if _of_other_vocabulary(source, tokenizer):
        texts = (text._replace(sampled=(None,) * len(text.completions)) for text in texts)
    if source.template is not None:
        texts = map(partial(_in_template, source.template), texts)
    chunks = tokenized_chunks(texts, tokenizer, source.limits, source.append_eos, source.on_bad_row, skipped)
    if rows < _LONG:
        write_store(folder, chunks, len(tokenizer), skipped)
        return
    with progress_bar(f"Tokenizing {source.source}", rows) as done:
        write_store(folder, _told(chunks, done), len(tokenizer), skipped)


def _in_template(template: str, text: TextTree) -> TextTree:
    if not isinstance(text.prompt, str):
        place = text.location or "the rows"
        raise UserError(f"{place}: a template is for prompts of text, and this is a conversation: leave template out")
    return text._replace(prompt=template.replace("{query}", text.prompt))


def _of_other_vocabulary(source: PairSource, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokens that a source's files hold are another tokenizer's."""
    stated = {stated_vocabulary(file) for file in source_files(source.source, source.split) or ()}
    return bool(stated - {None, vocabulary_fingerprint(tokenizer)})


def _told(chunks: Iterable[TokenizedChunk], done: Callable[[int], None]) -> Iterator[TokenizedChunk]:
    records = 0
    for chunk in chunks:
        yield chunk
        records += chunk.records
        done(records)


# --- the key ----------------------------------------------------------------------------------------------------------


class _Contents(NamedTuple):
    """A file's bytes, and about how many rows they hold; 0 is unknown."""

    suffix: str  # decides how the file is read
    digest: str
    rows: int


def _key(source: PairSource, identity: str, contents: Sequence[_Contents]) -> str:
    layer = hashlib.blake2b(digest_size=16)
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):  # any change here may change what becomes of a row
        layer.update(file.read_bytes())
    parts: dict[str, JsonValue] = {
        "files": [[each.suffix, each.digest] for each in contents],
        "tokenizer": identity,
        "keys": None if source.keys is None else asdict(source.keys),
        "limits": asdict(source.limits),
        "append_eos": source.append_eos,
        "template": source.template,
        # The messages of skipped rows name their file.
        "on_bad_row": "error" if source.on_bad_row == "error" else ["skip", source.source],
        "code": layer.hexdigest(),
        "versions": [version("tokenizers"), version("transformers")],
    }
    return provenance_digest(parts)


def _contents(file: Path) -> _Contents:
    """Raises UserError for a file that cannot be read."""
    digest, lines = hashlib.blake2b(digest_size=16), 0
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                lines += block.count(b"\n")
        if file.suffix == ".parquet":
            lines = pq.read_metadata(file).num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as {file.suffix}: {error}") from error
    counted = file.suffix in (".parquet", ".jsonl", ".ndjson", ".csv")
    return _Contents(text_suffix(file), digest.hexdigest(), lines if counted else 0)
