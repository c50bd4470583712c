"""Rope whose frequencies follow a sequence's length: dynamic NTK and longrope (Phi-3's).

transformers sets them by the largest position of a whole forward pass, so that a short sequence is told otherwise
beside a long one, and keeps those of dynamic NTK for later passes. What stands here tells which sequences may share a
pass. Not covered: frequencies that are no business of transformers' `dynamic_rope_update`.
"""

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _MovingRope(NamedTuple):
    module: Any
    kind: str  # dynamic or longrope
    prefix: str  # of the module's buffers: a layer type, where each has its own rope
    limit: int  # tokens up to which frequencies are the first ones


_ropes: "WeakKeyDictionary[PreTrainedModel, list[_MovingRope]]" = WeakKeyDictionary()


def rope_regime(model: "PreTrainedModel", length: int) -> tuple[int, ...]:
    """What decides the frequencies of a sequence of so many tokens: those of one regime may share a forward pass.

    All zeros up to the limit; beyond it longrope has one other set of frequencies, dynamic NTK one for each length.
    """
    regimes = ((0 if length <= rope.limit else 1 if rope.kind == "longrope" else length) for rope in _moving(model))
    return tuple(regimes)


def rope_obstacle(model: "PreTrainedModel") -> str | None:
    """What keeps sequences of unlike length out of one forward pass; None if nothing does."""
    ropes = _moving(model)
    if not ropes:
        return None
    kind, limit = ropes[0].kind, ropes[0].limit
    return f"{type(model).__name__} has a rope whose frequencies follow the length ({kind}, beyond {limit:,} tokens)"


def forget_length(model: "PreTrainedModel") -> None:
    """Have the next forward pass set its frequencies anew, as in a model that has seen no longer sequence."""
    for module, kind, prefix, _ in _moving(model):
        if kind == "dynamic":
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
            module.register_buffer(
                f"{prefix}inv_freq",
                getattr(module, f"{prefix}original_inv_freq").to(getattr(module, f"{prefix}inv_freq").device),
                persistent=False,
            )


def _moving(model: "PreTrainedModel") -> list[_MovingRope]:
    if model not in _ropes:
        _ropes[model] = [rope for module in model.modules() for rope in _of_module(module)]
    return _ropes[model]


def _of_module(module: Any) -> list[_MovingRope]:
    kinds = getattr(module, "rope_type", None)  # transformers' rotary modules have it, one or one a layer type
    if not isinstance(kinds, str | dict):
        return []
    found = []
    for layer_type, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
        settings = module.config.rope_parameters if layer_type is None else module.config.rope_parameters[layer_type]
        prefix = "" if layer_type is None else f"{layer_type}_"
        if "dynamic" in kind:
            found.append(_MovingRope(module, "dynamic", prefix, module.original_max_seq_len))
        elif kind == "longrope":
            found.append(_MovingRope(module, kind, prefix, settings["original_max_position_embeddings"]))
    return found
