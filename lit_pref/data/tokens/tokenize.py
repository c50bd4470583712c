"""Text to token trees: with `encoding.py`, the only file of the data layer that sees a tokenizer.

- Prompt and completion are tokenized apart and their tokens put together, as a model samples them: the completion's
  first token never merges with the prompt's last. A tokenizer that puts a space before every text (Llama 2) is kept
  from doing so before a completion.
- Exactly one BOS, where the tokenizer or the chat template has one (trl#4481), and exactly one EOS at each
  completion's end, or none there where `append_eos` is false. Tokens that were sampled (`chosen_ids`, …) are otherwise
  used as they are.
- Conversations go through the chat template: the prompt's rendering ends with the generation prompt, a completion is
  what its own rendering adds. Where a template then rewrites the generation prompt, the tokens that all renderings
  begin with are the prompt. A prompt that ends in an assistant's turn is continued in that turn.
- A record that was read from a file and cannot be used is a bad row: it stops with its file and line, or is skipped.

Not covered: templates with tools or images; training on assistant turns before the last.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from lit_pref.data.formats.prompts import prompt_identity
from lit_pref.data.reading.rows import OnBadRow, RowError, SkippedRows, refuse
from lit_pref.data.tokens.encoding import Ids, TextEncoder, rendering, text_encoder
from lit_pref.data.tokens.lengths import LengthLimits, fit
from lit_pref.errors import UserError
from lit_pref.types import Message, Text, TextTree, TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNLIMITED = LengthLimits()
_CHUNK = 2048  # records whose texts are tokenized in one call: the library's encodings take kilobytes each


class Tokenized(NamedTuple):
    """Token trees of records.

    values: one for each tree, or None where not every tree has one.
    counts: `kept`, `dropped_…` and `truncated_…` records; `without_value` where only some have a value.
    """

    trees: list[TokenTree]
    values: list[float] | None
    counts: dict[str, int]


class TokenizedChunk(NamedTuple):
    """Some records of a long row of them.

    trees, values, prompts: of the records that were kept, one each: None for a record without a value, and
        `prompt_identity`.
    counts: `kept`, `dropped_…` and `truncated_…` records of this chunk.
    records: how many it was made of.
    """

    trees: list[TokenTree]
    values: list[float | None]
    prompts: list[int]
    counts: Counter[str]
    records: int


class TextRecord(Protocol):
    """A preference pair, a demonstration, or another record of a prompt and completions."""

    @property
    def tree(self) -> TextTree: ...


def tokenize(
    records: Iterable[TextRecord],
    tokenizer: "PreTrainedTokenizerBase",
    limits: LengthLimits = _UNLIMITED,
    append_eos: bool = True,
    on_bad_row: OnBadRow = "error",
    skipped: SkippedRows | None = None,
) -> Tokenized:
    """Records to token trees, in order, without those that the limits drop; otherwise as `tokenized_chunks`."""
    trees: list[TokenTree] = []
    values: list[float | None] = []
    counts = Counter(kept=0)
    texts = (record.tree for record in records)
    for chunk in tokenized_chunks(texts, tokenizer, limits, append_eos, on_bad_row, skipped):
        trees += chunk.trees
        values += chunk.values
        counts.update(chunk.counts)
    known = [value for value in values if value is not None]
    if known and len(known) < len(values):
        counts["without_value"] = len(values) - len(known)
    return Tokenized(trees, known if known and len(known) == len(values) else None, dict(counts))


def tokenized_chunks(
    texts: Iterable[TextTree],
    tokenizer: "PreTrainedTokenizerBase",
    limits: LengthLimits = _UNLIMITED,
    append_eos: bool = True,
    on_bad_row: OnBadRow = "error",
    skipped: SkippedRows | None = None,
) -> Iterator[TokenizedChunk]:
    """Text trees to token trees, with no more than a chunk of them in memory at a time.

    on_bad_row: "skip" counts records that the tokenizer cannot take in `skipped` and goes on.

    Raises UserError for a tokenizer that lacks an EOS or a chat template, and where the limits say "error".
    """
    if append_eos and tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no EOS token: set its eos_token, or append_eos to false")
    encoder, rest, before, vocabulary = text_encoder(tokenizer), iter(texts), 0, len(tokenizer)
    while chunk := list(islice(rest, _CHUNK)):
        made = TokenizedChunk([], [], [], Counter(), len(chunk))
        usable: list[tuple[TextTree, str, _Pending]] = []
        for number, record in enumerate(chunk, start=before + 1):
            place = record.location or f"{record.kind} {number}"
            try:
                _check_vocabulary(record, vocabulary)
                usable.append((record, place, _pending(record, encoder, append_eos)))
            except UserError as error:
                reason = error.reason if isinstance(error, RowError) else "chat template"
                refuse(RowError(reason, f"{place}: {error}"), on_bad_row, skipped)
        trees = _trees([pending for _, _, pending in usable], encoder, append_eos)
        for (record, place, _), tree in zip(usable, trees, strict=True):
            if record.location and (empty := _empty(tree)):
                refuse(RowError(empty, f"{place}: the {empty} is no token here, expected text"), on_bad_row, skipped)
                continue
            try:
                result = fit(tree, limits, len(encoder.start_ids))
            except UserError as error:
                raise UserError(f"{place}: {error}") from error
            made.counts.update(result.counted)
            if result.tree is not None:
                made.trees.append(result.tree)
                made.values.append(record.value)
                made.prompts.append(prompt_identity(record.prompt))
        yield made
        before += len(chunk)


def tokenize_prompt(prompt: Text, tokenizer: "PreTrainedTokenizerBase") -> Ids:
    """A prompt to sample from: the same tokens that stand before a completion in training."""
    encoder = text_encoder(tokenizer)
    text = prompt if isinstance(prompt, str) else rendering(prompt, tokenizer, generation_prompt=True)
    ids = encoder.prompts([text])[text]
    if not ids:
        raise UserError("the prompt has no token and the tokenizer no BOS: expected a prompt with text")
    return ids


def fingerprint(trees: Sequence[TokenTree]) -> str:
    """32 hex digits that identify tokenized data: its ids, where each prompt and completion ends, and their order."""
    digest = blake2b(digest_size=16)
    for prompt, completions in trees:
        lengths = [len(completions), len(prompt), *map(len, completions)]
        flat = [*lengths, *prompt, *(token for ids in completions for token in ids)]
        digest.update(np.asarray(flat, dtype="<i8").tobytes())
    return digest.hexdigest()


# --- records to trees -------------------------------------------------------------------------------------------------


class _Pending(NamedTuple):
    """Text that is still to be tokenized, or tokens that are final."""

    prompt: str | Ids
    completions: tuple[str | Ids, ...]


def _check_vocabulary(record: TextTree, vocabulary: int) -> None:
    """Tokens that a file states must be the tokenizer's; those that a model of this run sampled are its own."""
    beyond = max((max(ids) for ids in record.sampled if ids), default=0)
    if record.location and beyond >= vocabulary:
        raise RowError(
            "unknown token", f"the sampled tokens hold {beyond}, the tokenizer has {vocabulary} tokens: leave them out"
        )


def _empty(tree: TokenTree) -> str | None:
    if not tree.prompt_ids:
        return "empty prompt"  # and there is no BOS that would stand for it
    return None if all(tree.completion_ids) else "empty response"


def _trees(pending: Sequence[_Pending], encoder: TextEncoder, append_eos: bool) -> Iterator[TokenTree]:
    prompts = encoder.prompts([each.prompt for each in pending if isinstance(each.prompt, str)])
    texts = [text for each in pending for text in each.completions if isinstance(text, str)]
    completions = encoder.completions(texts, append_eos)
    for each in pending:
        prompt = prompts[each.prompt] if isinstance(each.prompt, str) else each.prompt
        yield TokenTree(prompt, tuple(completions[x] if isinstance(x, str) else x for x in each.completions))


def _pending(record: TextTree, encoder: TextEncoder, append_eos: bool) -> _Pending:
    texts: list[str] = []
    if not append_eos:
        record = record._replace(sampled=_without_eos(record.sampled, encoder.tokenizer.eos_token_id))
    if isinstance(record.prompt, str):
        texts = [completion for completion in record.completions if isinstance(completion, str)]
        assert len(texts) == len(record.completions)  # formats makes all of a record text, or all conversations
        return _Pending(record.prompt, _unless_sampled(texts, record))
    tokenizer = encoder.tokenizer
    prompt = rendering(record.prompt, tokenizer, generation_prompt=True)
    for completion in record.completions:
        assert not isinstance(completion, str)
        whole = rendering(_joined(record.prompt, completion), tokenizer, generation_prompt=False)
        texts.append(_until_eos(whole, tokenizer.eos_token) if append_eos else whole)
    if all(text.startswith(prompt) for text in texts):
        added = [text.removeprefix(prompt) for text in texts]
        return _Pending(prompt, _unless_sampled(added, record))
    if any(ids is not None for ids in record.sampled):
        raise UserError("sampled tokens need a chat template that keeps its generation prompt before a response")
    bare = rendering(record.prompt, tokenizer, generation_prompt=False)
    if not all(text.startswith(bare) for text in texts):
        raise UserError("the chat template rewrites the prompt's turns when a response follows, so nothing is shared")
    beginning = encoder.shared_beginning(prompt, texts, append_eos)
    return _Pending(beginning.ids, beginning.rest)


def _joined(prompt: tuple[Message, ...], completion: tuple[Message, ...]) -> tuple[Message, ...]:
    """The whole conversation; an assistant's turn that the prompt began is one turn."""
    if prompt[-1]["role"] != "assistant":
        return (*prompt, *completion)
    content = prompt[-1]["content"] + completion[0]["content"]
    return (*prompt[:-1], {"role": "assistant", "content": content}, *completion[1:])


def _unless_sampled(texts: Sequence[str], record: TextTree) -> tuple[str | Ids, ...]:
    return tuple(text if ids is None else ids for ids, text in zip(record.sampled, texts, strict=True))


def _without_eos(sampled: Sequence[Ids | None], eos: int | None) -> tuple[Ids | None, ...]:
    return tuple(ids[:-1] if ids and ids[-1] == eos else ids for ids in sampled)


def _until_eos(text: str, eos: str) -> str:
    """Templates end a turn with EOS and a newline; a model stops at its EOS."""
    head, found, tail = text.rpartition(eos)
    return head + found if found and not tail.strip() else text
