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
    long_T, short_T, common = tokens
    both_T = torch.cat([long_T, short_T[common:]])
    span = TreeSpan(0, 0, common, (len(long_T) - common, len(short_T) - common))
    own = TreeSpan(0, len(both_T), 1, (len(short_T) - 1,))
    places, own_places = _places(span), _places(own)
    packed = {name: torch.cat([places[name], own_places[name] + (name == "tree_BT")]) for name in places}
    padding = torch.full((len(both_T) - len(short_T),), -1)
    shared = {name: torch.stack([places[name], torch.cat([own_places[name], padding])]) for name in places}
    shared["position_ids_BT"].clamp_(min=0)
    return (
        _batch(torch.cat([both_T, short_T])[None], {name: x[None] for name, x in packed.items()}, (span, own)),
        _batch(
            torch.stack([both_T, torch.cat([short_T, both_T[: len(padding)]])]),
            shared,
            (span, own._replace(row=1, start=0)),
        ),
    )


def _places(span: TreeSpan) -> dict[str, Tensor]:
    """Of a tree's tokens."""
    lengths = (span.prompt, *span.branches)
    starts = (0, *(span.prompt for _ in span.branches))
    return {
        "position_ids_BT": torch.cat(
            [torch.arange(length) + start for start, length in zip(starts, lengths, strict=True)]
        ),
        "tree_BT": torch.zeros(sum(lengths), dtype=torch.long),
        "branch_BT": torch.repeat_interleave(torch.tensor(lengths)),
    }


def _batch(ids_BT: Tensor, places: dict[str, Tensor], spans: tuple[TreeSpan, ...]) -> TreeBatch:
    """Of which nothing is scored."""
    nothing = torch.zeros(0, dtype=torch.long, device=ids_BT.device)
    return TreeBatch(
        input_ids_BT=ids_BT,
        position_ids_BT=places["position_ids_BT"].to(ids_BT.device),
        tree_BT=places["tree_BT"].to(ids_BT.device),
        branch_BT=places["branch_BT"].to(ids_BT.device),
        predictor_N=nothing,
        target_N=nothing,
        completion_N=nothing,
        last_K=nothing,
        length_K=nothing,
        num_tokens=ids_BT.numel(),
        plain=False,
        spans=spans,
    )
