"""What a model is tried with: two short random sequences, and the same as token trees.

Not here: what is made of the outcome (`exactness`).
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_pref.types import TreeBatch, TreeSpan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id")


class Probe(NamedTuple):
    """Two sequences with a common beginning, made of ids that mean nothing special."""

    long_T: Tensor
    short_T: Tensor
    common: int


def probe(model: "PreTrainedModel", long: int = 8, short: int = 5, common: int = 3) -> Probe:
    """Sequences of so many tokens, of which the first `common` are the same."""
    rows = len(model.get_input_embeddings().weight)
    config = model.config.get_text_config()
    special = {0, *(x for name in _SPECIAL_IDS if isinstance(x := getattr(config, name, None), int))}
    drawn = torch.randint(rows, (64 + 8 * len(special),), generator=torch.Generator().manual_seed(0)).tolist()
    plain = [token for token in drawn if token not in special][: long + short - common]
    ids = torch.tensor(plain or [0], device=model.device)
    ids = ids.repeat(long + short)[: long + short - common]
    return Probe(ids[:long], torch.cat([ids[:common], ids[long:]]), common)


def tree_rows(tokens: Probe) -> tuple[TreeBatch, TreeBatch]:
    """Both sequences as branches of their common prompt, then the short one as a tree of its own: in a row, in two."""
    long, short, common = tokens.long_T.tolist(), tokens.short_T.tolist(), tokens.common
    both, own = _tree(long[:common], long[common:], short[common:]), _tree(short[:1], short[1:])
    span = TreeSpan(0, 0, common, (len(long) - common, len(short) - common))
    own_span = TreeSpan(0, len(both), 1, (len(short) - 1,))
    packed = [[*both, *((token, place, 1, branch) for token, place, _, branch in own)]]
    padding = [(token, 0, -1, -1) for token, *_ in both[: len(both) - len(own)]]
    device = tokens.long_T.device
    return (
        _batch(packed, (span, own_span), device),
        _batch([both, own + padding], (span, own_span._replace(row=1, start=0)), device),
    )


_Place = tuple[int, int, int, int]
"""A token, its position, its tree and its branch."""


def _tree(prompt: list[int], *branches: list[int]) -> list[_Place]:
    behind = [
        (token, len(prompt) + place, 0, number)
        for number, branch in enumerate(branches, start=1)
        for place, token in enumerate(branch)
    ]
    return [(token, place, 0, 0) for place, token in enumerate(prompt)] + behind


def _batch(rows: list[list[_Place]], spans: tuple[TreeSpan, ...], device: torch.device) -> TreeBatch:
    """Of which nothing is scored."""
    ids_BT, position_BT, tree_BT, branch_BT = torch.tensor(rows, device=device).unbind(-1)
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    columns = ids_BT, position_BT, tree_BT, branch_BT
    return TreeBatch(*columns, nothing, nothing, nothing, nothing, nothing, ids_BT.numel(), plain=False, spans=spans)
