"""How a model can be sampled exactly: with padded prompts and a cache, with prompts of one length, or without a cache.

Tried once for each architecture and config with the very classes that decode, on two short random sequences; where
only long ones would tell, configs are read. Exact is what the model says of each prompt with its completion.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.generation.rows import CachedRows, Prompts, RecomputedRows, Rows, UnplacedRows
from lit_pref.models import rope_regime
from lit_pref.models.exactness import (
    NOT_CAUSAL,
    Alone,
    alone,
    distance,
    identity,
    reason,
    sees_later_tokens,
    undisturbed,
)
from lit_pref.models.trial import Probe, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Decoding(NamedTuple):
    """padded: whether prompts of unlike length may be decoded side by side."""

    rows: type[Rows]
    padded: bool

    def groups(self, model: "PreTrainedModel", lengths: Sequence[int], new: int) -> list[list[int]]:
        """Which prompts may be in one batch, shortest first; new: tokens that a completion has at most."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
            # A rope that changes on the way must change for all rows at once.
            apart = not self.padded or any(rope_regime(model, lengths[row] + new))
            alike.setdefault((lengths[row],) if apart else (), []).append(row)
        return list(alike.values())


_WAYS = (
    Decoding(CachedRows, padded=True),
    Decoding(CachedRows, padded=False),
    Decoding(UnplacedRows, padded=False),
    Decoding(RecomputedRows, padded=False),
)
_known: dict[tuple[object, ...], Decoding | str] = {}


def decoding(model: "PreTrainedModel") -> Decoding:
    """The fastest exact way. Raises UserError, naming the reason, where there is none."""
    key = identity(model)
    if key not in _known:
        with undisturbed(model):
            _known[key] = _try(model)
    found = _known[key]
    if isinstance(found, str):
        raise UserError(f"{found}, so it cannot be sampled here")
    return found


def _try(model: "PreTrainedModel") -> Decoding | str:
    """Or why there is none."""
    name = type(model).__name__
    tokens = probe(model, long=7, short=6)

    def run(ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = model(input_ids=ids_BT, use_cache=False).logits
        return logits_BTV.float()

    given = alone(model, tokens, run)
    if not isinstance(given, Alone):
        return given or _WAYS[0]  # what broken weights say is refused by prompt
    long_TV, short_TV, limit = given
    if distance(long_TV[: tokens.common], short_TV[: tokens.common]) > limit:
        if sees_later_tokens(run, tokens.long_T, long_TV, limit):
            return f"{name} {NOT_CAUSAL}"
        return _WAYS[-1]  # what it computes of a token follows the length of all, as no cache can
    off = ""
    for way in _candidates(model):
        try:
            worst = _distance(model, way, tokens, given)
        except Exception as error:  # noqa: BLE001 - an architecture may raise anything
            off = reason(error)
        else:
            if worst <= limit:
                return way
            off = f"logits are off by {worst:.1g}"
    return f"{name} gives other logits in a batch than alone ({off})"


def _candidates(model: "PreTrainedModel") -> Sequence[Decoding]:
    """What is worth a trial: of stateful models' caches, and of positions that are counted by column, we know."""
    config = model.config.get_text_config()
    if model._is_stateful:
        return _WAYS[-1:]
    by_column = {"chunked_attention"}.intersection(getattr(config, "layer_types", None) or ())
    return _WAYS[1:] if by_column or getattr(config, "attn_temperature_tuning", False) else _WAYS


def _distance(model: "PreTrainedModel", way: Decoding, tokens: Probe, expected: Alone) -> float:
    """How far off logits are at worst, for prompts that change places and part in two steps."""
    long_T, short_T, _ = tokens
    long, short = (4, 2) if way.padded else (4, 4)
    ids_RT = torch.stack([long_T[:long], torch.cat([short_T.new_zeros(long - short), short_T[:short]])])
    attended_RT = torch.arange(long, device=ids_RT.device) >= ids_RT.new_tensor([[0], [long - short]])
    rows = way.rows(model, Prompts([0, 1], ids_RT, attended_RT if way.padded else None))
    found = [rows.start()]
    wanted = [torch.stack([expected.long_TV[long - 1], expected.short_TV[short - 1]])]
    found.append(rows.branch(ids_RT.new_tensor([1, 0]), torch.stack([short_T[short], long_T[long]])))
    wanted.append(torch.stack([expected.short_TV[short], expected.long_TV[long]]))
    last_R = torch.stack([short_T[short + 1], long_T[long + 1], long_T[long + 1]])
    found.append(rows.branch(ids_RT.new_tensor([0, 1, 1]), last_R))
    wanted.append(torch.stack([expected.short_TV[short + 1], *[expected.long_TV[long + 1]] * 2]))
    return distance(torch.cat(found), torch.cat(wanted))
