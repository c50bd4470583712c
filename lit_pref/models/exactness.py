"""What a model computes for two short random sequences in our layouts, against what it computes for each by itself.

Tried once for each architecture and config when a model is opened, so that one which nobody has tried here is exact or
refused by name. Not covered: what shows only in longer sequences, for which configs are read (`rope`,
`sharing_obstacle`), and sampling (`lit_pref.generation.decoding`).
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.models.heads import lm_head
from lit_pref.models.modes import evaluating
from lit_pref.models.trial import Probe, probe, tree_rows
from lit_pref.types import TreeBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = Literal["padded", "equal", "single"]
"""Which sequences may be rows of one forward pass: any, padded on the right; those of one length; none."""

_NOISES = 50  # what is off by more than so many times what rounding the embeddings changes is no rounding


NOT_CAUSAL = "sees later tokens: it is no causal language model as it is configured"


class Exactness(NamedTuple):
    """What gives the same as each sequence by itself.

    refusal: why the model cannot be scored at all; sharing: why completions cannot share a prompt; head: why its logits
    cannot be made from its last hidden states. None where nothing is in the way.
    """

    refusal: str | None = None
    rows: Rows = "padded"
    sharing: str | None = None
    head: str | None = None


TreeRun = Callable[["PreTrainedModel", TreeBatch], Tensor]
"""Hidden states [B, T, D] of a batch of trees."""

_known: dict[tuple[object, ...], Exactness] = {}
_of_model: "WeakKeyDictionary[PreTrainedModel, Exactness]" = WeakKeyDictionary()


def exactness(model: "PreTrainedModel", run_trees: TreeRun | None) -> Exactness:
    """run_trees: how trees are run; None where it is known that they cannot be."""
    if model not in _of_model:
        if any(parameter.is_meta for parameter in model.parameters()):
            return Exactness()  # nothing to run it with yet
        key = (*identity(model), run_trees is None)
        if key not in _known:
            with undisturbed(model):
                _known[key] = _try(model, run_trees)
        _of_model[model] = _known[key]
    return _of_model[model]


def known_exactness(model: "PreTrainedModel") -> Exactness | None:
    """What an earlier call has found of this very model."""
    return _of_model.get(model)


def identity(model: "PreTrainedModel") -> tuple[object, ...]:
    """What the outcome of a check depends on: architecture and config, not the weights."""
    settings = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    return type(model), settings, model.config.get_text_config()._attn_implementation, model.dtype


@contextmanager
def undisturbed(model: "PreTrainedModel") -> Iterator[None]:
    """No dropout, gradients or autocast for the while; the random state and all modes are as before afterwards."""
    device = model.device
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        evaluating(model),
    ):
        yield


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of a vector, over the last dimension."""
    off = (found.double() - expected.double()).norm(dim=-1) / expected.double().norm(dim=-1).clamp_min(1e-30)
    return float(off.max())


def rounding(model: "PreTrainedModel", run: Callable[[], Tensor], expected: Tensor) -> float:
    """The distance up to which two results are the same but for rounding, found by rounding the embeddings."""
    precision = torch.finfo(model.dtype).eps
    draws = torch.Generator().manual_seed(1)

    def disturb(module: Any, inputs: Any, embedded: Tensor) -> Tensor:
        noise = torch.rand(embedded.shape, generator=draws, dtype=torch.float32).to(embedded.device) * 2 - 1
        return (embedded * (1 + precision * noise)).to(embedded.dtype)

    handle = model.get_input_embeddings().register_forward_hook(disturb)
    try:
        return _NOISES * max(distance(run(), expected), precision)
    finally:
        handle.remove()


def sees_later_tokens(run: Callable[[Tensor], Tensor], ids_T: Tensor, expected_TD: Tensor, limit: float) -> bool:
    """Whether another last token changes what is computed at the tokens before it."""
    changed_T = torch.cat([ids_T[:-1], ids_T[:1]])
    return distance(run(changed_T[None])[0, :-1], expected_TD[:-1]) > limit


def reason(error: Exception) -> str:
    """An exception in a few words."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:160]}"


class Alone(NamedTuple):
    """What a model gives of each sequence of a probe by itself, a row a token, and how far off rounding may be."""

    long_TV: Tensor
    short_TV: Tensor
    limit: float


def alone(model: "PreTrainedModel", tokens: Probe, run: Callable[[Tensor], Tensor]) -> Alone | str | None:
    """Or why it gives nothing; None where its weights are broken, which tells nothing of an architecture."""
    name = type(model).__name__
    try:
        long_TV, short_TV = run(tokens.long_T[None])[0], run(tokens.short_T[None])[0]
        if not (long_TV.isfinite().all() and short_TV.isfinite().all()):
            return None
        limit = rounding(model, lambda: run(tokens.long_T[None])[0], long_TV)
    except Exception as error:  # noqa: BLE001 - an architecture may raise anything
        return f"{name} does not run on token ids alone ({reason(error)})"
    return Alone(long_TV, short_TV, limit) if len(long_TV) == len(tokens.long_T) else f"{name} gives no row a token"


def _try(model: "PreTrainedModel", run_trees: TreeRun | None) -> Exactness:
    name = type(model).__name__
    long_T, _, common = tokens = probe(model)

    def run(ids_BT: Tensor) -> Tensor:
        hidden_BTD: Tensor = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        return hidden_BTD

    given = alone(model, tokens, run)
    if not isinstance(given, Alone):
        return Exactness(refusal=given)  # broken weights are told of elsewhere
    long_TD, short_TD, limit = given
    if sees_later_tokens(run, long_T, long_TD, limit):
        return Exactness(refusal=f"{name} {NOT_CAUSAL}")

    def same(found: Callable[[], Tensor], expected: Tensor) -> str | None:
        """Why not, in words."""
        try:
            off = distance(found(), expected)
        except Exception as error:  # noqa: BLE001 - an architecture may raise anything
            return reason(error)
        return None if off <= limit else f"hidden states are off by {off:.1g}"

    rows: Rows = "padded"
    if same(lambda: _of_padded(run, tokens, _fillers(model)), torch.cat([long_TD, short_TD.repeat(3, 1)])):
        other_T = long_T.flip(0)
        pair = torch.cat([long_TD, run(other_T[None])[0]])
        rows = "single" if same(lambda: run(torch.stack([long_T, other_T])).flatten(0, 1), pair) else "equal"
    sharing = None
    if run_trees is not None:
        tree_TD = torch.cat([long_TD, short_TD[common:]])
        packed, shared = tree_rows(tokens)
        off = same(lambda: run_trees(model, packed)[0], torch.cat([tree_TD, short_TD])) or same(
            lambda: run_trees(model, shared).flatten(0, 1)[: len(tree_TD) + len(short_TD)],
            torch.cat([tree_TD, short_TD]),
        )
        sharing = off and f"{name} is not exact where completions share a prompt ({off})"
    return Exactness(rows=rows, sharing=sharing, head=_head_obstacle(model, long_T, long_TD, limit))


def _head_obstacle(model: "PreTrainedModel", ids_T: Tensor, hidden_TD: Tensor, limit: float) -> str | None:
    try:
        head = lm_head(model)
    except UserError as error:
        return str(error)
    off = distance(head(hidden_TD), model(input_ids=ids_T[None], use_cache=False).logits[0])
    name = type(model).__name__
    return None if off <= limit else f"{name} makes its logits from something else than its last hidden states"


def _fillers(model: "PreTrainedModel") -> list[int]:
    """What may stand in the padding: the id 0, the config's pad token, and any other."""
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    return [0, pad if isinstance(pad, int) and pad >= 0 else 0, len(model.get_input_embeddings().weight) - 1]


def _of_padded(run: Callable[[Tensor], Tensor], tokens: Probe, fillers: list[int]) -> Tensor:
    """The hidden states of the long sequence's tokens, then those of the short one's in each padded row."""
    long_T, short_T, _ = tokens
    width, length = len(long_T), len(short_T)
    padded = [torch.cat([short_T, short_T.new_full((width - length,), filler)]) for filler in fillers]
    hidden_BTD = run(torch.stack([long_T, *padded]))
    return torch.cat([hidden_BTD[0], *hidden_BTD[1:, :length]])
