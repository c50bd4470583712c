"""Scores of any completions under a reward model: as they are tokenized in training, prompts laid down once.

In the weights' precision without autocast, since close scores would tie in bf16; the score head is in fp32 in any case.
Completions of equal tokens get one score, to the last bit. Not covered: prompts and completions beyond the model's
longest sequence; completions spread over processes (each scores all).
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from lit_pref.data.batches.packing import collate_trees, lay_out
from lit_pref.data.formats.prompts import response
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.errors import UserError
from lit_pref.machine.progress import progress_bar
from lit_pref.models import evaluating
from lit_pref.types import Demonstration, RowLayout, Text, TokenTree, TreeBatch

_LONG = 10_000  # completions from which on a progress bar is shown: some seconds of an embedded model
_MAX_TOKENS = 16_384  # a batch: about 250 embedded solutions, or 16 of 1,024 tokens


@runtime_checkable
class RewardModel(Protocol):
    """What is asked of a reward model's module."""

    model: nn.Module
    tokenizer: Any
    append_eos: bool
    row_layout: RowLayout
    global_rank: int

    def rewards(self, trees: TreeBatch) -> Tensor: ...


class Candidates(NamedTuple):
    """A prompt and its completions as they are scored.

    completions: texts, which answer a conversation as an assistant's turn; or turns.
    token_ids: the sampled tokens of each, to be taken as they are but for an EOS that is not scored; None, of one or of
        all, tokenizes the text.
    """

    prompt: Text
    completions: Sequence[Text]
    token_ids: Sequence[tuple[int, ...] | None] | None = None


def score(module: RewardModel, prompts: Sequence[Candidates], max_tokens: int = _MAX_TOKENS) -> list[Tensor]:
    """The scores of each prompt's completions, in order; [completions], fp32, on the CPU.

    An empty completion of a model that appends no EOS has no token to read a score at: its score is −inf.
    Raises UserError for a prompt without tokens.

    max_tokens: a batch's, padding included; only a prompt with a single completion may take more.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be >= 1, got {max_tokens}")
    demonstrations = [each for scored in prompts for each in _demonstrations(scored)]
    tokens = iter(_tokens(module, demonstrations))
    trees = [[next(tokens) for _ in scored.completions] for scored in prompts]
    found = _scores(module, [tree for several in trees for tree in several if tree], max_tokens)
    return [torch.tensor([found[tree] if tree else -torch.inf for tree in several]) for several in trees]


def _demonstrations(scored: Candidates) -> Iterator[Demonstration]:
    for number, completion in enumerate(scored.completions):
        if isinstance(completion, str):
            completion = response(scored.prompt, completion)
        yield Demonstration(scored.prompt, completion, scored.token_ids[number] if scored.token_ids else None)


def _tokens(module: RewardModel, demonstrations: Sequence[Demonstration]) -> Iterator[TokenTree | None]:
    """A tree of one completion each; None where it is empty."""
    made = tokenize(demonstrations, module.tokenizer, append_eos=module.append_eos)
    if made.counts.get("dropped_empty_prompt"):
        raise UserError("a prompt has no token and the tokenizer no BOS: expected prompts with text")
    if len(made.trees) == len(demonstrations):
        yield from made.trees
        return
    for demonstration in demonstrations:  # which of them were dropped is not told
        alone = tokenize([demonstration], module.tokenizer, append_eos=module.append_eos)
        yield alone.trees[0] if alone.trees else None


def _scores(module: RewardModel, trees: Sequence[TokenTree], max_tokens: int) -> dict[TokenTree, float]:
    """The score of each distinct tree of one completion."""
    device, pad = next(module.model.parameters()).device, module.tokenizer.pad_token_id
    found: dict[TokenTree, float] = {}
    distinct = list(dict.fromkeys(trees))
    told = len(distinct) >= _LONG and module.global_rank == 0
    progress = progress_bar("Scoring", len(distinct)) if told else nullcontext(lambda done: None)
    with progress as advance, evaluating(module.model), torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in _batches(distinct, module.row_layout, max_tokens):
            laid_out = collate_trees(lay_out(batch, module.row_layout), pad, module.row_layout != "repeated")
            scores = module.rewards(move_data_to_device(laid_out, device)).float().tolist()
            singles = [TokenTree(tree.prompt_ids, (ids,)) for tree in batch for ids in tree.completion_ids]
            found.update(zip(singles, scores, strict=True))
            advance(len(found))
    return found


def _batches(trees: Sequence[TokenTree], layout: RowLayout, max_tokens: int) -> Iterator[list[TokenTree]]:
    """Completions of one prompt together, long ones first, so that little is padded."""
    batch: list[TokenTree] = []
    tokens, width = 0, 0
    for tree in sorted(_joined(trees, layout, max_tokens), key=lambda tree: -_width(tree, layout)):
        added = _tokens_of(tree, layout, width)
        if batch and tokens + added > max_tokens:
            yield batch
            batch, tokens = [], 0
        if not batch:
            width = _width(tree, layout)
            added = _tokens_of(tree, layout, width)
        batch.append(tree)
        tokens += added
    if batch:
        yield batch


def _joined(trees: Sequence[TokenTree], layout: RowLayout, max_tokens: int) -> Iterator[TokenTree]:
    """Trees of several completions from those of one, none with more than `max_tokens` unless it has only one."""
    of_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for prompt_ids, (ids,) in trees:
        of_prompt.setdefault(prompt_ids, []).append(ids)
    for prompt_ids, completions in of_prompt.items():
        tree = TokenTree(prompt_ids, ())
        for ids in completions:
            longer = TokenTree(prompt_ids, (*tree.completion_ids, ids))
            if tree.completion_ids and _tokens_of(longer, layout, _width(longer, layout)) > max_tokens:
                yield tree
                longer = TokenTree(prompt_ids, (ids,))
            tree = longer
        yield tree


def _width(tree: TokenTree, layout: RowLayout) -> int:
    """Tokens of the longest row that it takes."""
    if layout == "repeated":
        return len(tree.prompt_ids) + max(map(len, tree.completion_ids))
    return tree.shared_length


def _tokens_of(tree: TokenTree, layout: RowLayout, width: int) -> int:
    """Tokens that it takes in a batch whose longest row is `width`, padding included."""
    if layout == "packed":
        return tree.shared_length
    return width * (len(tree.completion_ids) if layout == "repeated" else 1)
