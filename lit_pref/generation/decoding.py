"""How a model can be sampled exactly: in slots, with padded prompts, with prompts of one length, or without a cache.

Tried once for each architecture and config with the very classes that decode, on two short random sequences; where
only long ones would tell, configs are read. Exact is what the model says of each prompt with its completion.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.generation.rows import CachedRows, RecomputedRows, Rows, UnplacedRows
from lit_pref.models import rope_regime
from lit_pref.models.attention.tree_kernels import can_attend_by_tree
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


class Group(NamedTuple):
    """Prompts, shortest first, that may be decoded side by side, and the rows that do it."""

    rows: type[Rows]
    prompts: list[int]


class Decoding(NamedTuple):
    """padded: whether prompts of unlike length may be decoded side by side."""

    rows: type[Rows]
    padded: bool

    def groups(self, model: "PreTrainedModel", lengths: Mapping[int, int], new: int) -> list[Group]:
        """lengths: of each prompt, in tokens; new: tokens that a completion has at most."""
        alike: dict[int | None, list[int]] = {}
        for prompt in sorted(lengths, key=lambda prompt: (lengths[prompt], prompt)):
            # A rope that changes on the way must change for all rows at once.
            apart = not self.padded or any(rope_regime(model, lengths[prompt] + new))
            alike.setdefault(lengths[prompt] if apart else None, []).append(prompt)
        together = CachedRows if self.rows.joins else self.rows
        return [Group(self.rows if length is None else together, prompts) for length, prompts in alike.items()]


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


def _ways() -> list[Decoding]:
    """All of them, fastest first."""
    from lit_pref.generation.slots import SlotRows

    return [
        Decoding(SlotRows, padded=True),
        Decoding(CachedRows, padded=True),
        Decoding(CachedRows, padded=False),
        Decoding(UnplacedRows, padded=False),
        Decoding(RecomputedRows, padded=False),
    ]


def _try(model: "PreTrainedModel") -> Decoding | str:
    """Or why there is none."""
    name = type(model).__name__
    tokens = probe(model, long=7, short=6)

    def run(ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = model(input_ids=ids_BT, use_cache=False).logits
        return logits_BTV.float()

    given = alone(model, tokens, run)
    if not isinstance(given, Alone):
        return given or _ways()[1]  # what broken weights say is refused by prompt
    long_TV, short_TV, limit = given
    if distance(long_TV[: tokens.common], short_TV[: tokens.common]) > limit:
        if sees_later_tokens(run, tokens.long_T, long_TV, limit):
            return f"{name} {NOT_CAUSAL}"
        return _ways()[-1]  # what it computes of a token follows the length of all, as no cache can
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
    config, ways = model.config.get_text_config(), _ways()
    if model._is_stateful:
        return ways[-1:]
    by_column = {"chunked_attention"}.intersection(getattr(config, "layer_types", None) or ())
    if by_column or getattr(config, "attn_temperature_tuning", False):
        return ways[2:]
    return ways if can_attend_by_tree(model) else ways[1:]


def _distance(model: "PreTrainedModel", way: Decoding, tokens: Probe, expected: Alone) -> float:
    """How far off logits are at worst, for prompts that change places, part, and are joined by another."""
    long, short = tokens.long_T.tolist(), tokens.short_T.tolist()
    of_long, of_short = (4, 2) if way.padded else (4, 4)
    rows = way.rows(model)
    rows.add([long[: of_long - 1], short[: of_short - 1]])
    found = [rows.step([long[of_long - 1], short[of_short - 1]])]
    wanted = [torch.stack([expected.long_TV[of_long - 1], expected.short_TV[of_short - 1]])]
    going = [(long, expected.long_TV, of_long), (short, expected.short_TV, of_short)]
    for parents in ([1, 0], [0, 1, 1]):
        stands = rows.keep(parents)
        going = [going[parents[stands.index(row)]] for row in range(len(parents))]
        if rows.joins and len(parents) == 3:
            rows.add([long[:1]])
            going.append((long, expected.long_TV, 1))
        found.append(rows.step([ids[place] for ids, _, place in going]))
        wanted.append(torch.stack([logits_TV[place] for _, logits_TV, place in going]))
        going = [(ids, logits_TV, place + 1) for ids, logits_TV, place in going]
    return distance(torch.cat(found), torch.cat(wanted))
