"""Hidden states of only some tokens, for which the last layer runs at these tokens and no others.

A reward is read at each response's last token, log-probs where a response's tokens are predicted. Of all other tokens
only the last layer's keys and values count; their queries, attention outputs and feed-forward parts do not. Leaving
these out is exact wherever prompts can be shared, since there tokens meet only in attention. Models stay unpatched:
during one forward pass the last layer runs twice, first on all other tokens, up to attention, to get their keys and
values; then on the requested tokens.
Not covered, where the whole layer runs: FlexAttention and dense masks, layers that are sharded, hooked or in training
mode (dropout would be drawn otherwise).
"""

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from lit_pref.models.attention.tree_attention import Kernel, check_scoring, tree_hidden_states
from lit_pref.models.attention.tree_by_tree import chosen, rearranged
from lit_pref.models.attention.tree_kernels import AttentionGoesOnError, SpanMask, attention_is_over
from lit_pref.types import TreeBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

_goes_on: "WeakSet[PreTrainedModel]" = WeakSet()  # models that attend after what is the last of their layers by order


def hidden_states_at(model: "PreTrainedModel", batch: TreeBatch, token_n: Tensor, kernel: Kernel = "auto") -> Tensor:
    """[n, D] last hidden states of some tokens: rows of `tree_hidden_states`, which see.

    token_n: flat indices (row * T + column) in any order, of which some may be the same.
    """
    check_scoring(model)  # before a layer runs in two: a model's trial is one of whole forward passes
    layer = None if batch.plain or model in _goes_on else _last_layer(model)
    if layer is not None:
        own = vars(layer).get("forward")
        whole = layer.forward
        layer.forward = _InTwo(whole, getattr(own, "plain", whole), token_n)
        try:
            return tree_hidden_states(model, batch, kernel).flatten(0, 1)[token_n]
        except AttentionGoesOnError:
            _goes_on.add(model)
        finally:
            del layer.forward  # of the instance: its class's shows again
            if own is not None:
                layer.forward = own
    return tree_hidden_states(model, batch, kernel).flatten(0, 1)[token_n]


def predictor_hidden_states(model: "PreTrainedModel", batch: TreeBatch, kernel: Kernel = "auto") -> Tensor:
    """[N, D] hidden states which predict the completion tokens, in the order of `batch.target_N`.

    Raises UserError as `tree_hidden_states`, and for a model whose logits are not made of them.
    """
    check_scoring(model, logps=True)
    return hidden_states_at(model, batch, batch.predictor_N, kernel)


def outermost_layers(module: nn.Module) -> "Iterator[nn.Module]":
    """The blocks that an architecture repeats; those within another one belong to it."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from outermost_layers(child)


def _last_layer(model: "PreTrainedModel") -> nn.Module | None:
    """None where its forward must run as a whole."""
    layers = list(outermost_layers(model.base_model))
    return layers[-1] if layers and all(map(_is_bare, layers[-1].modules())) else None


def _is_bare(part: nn.Module) -> bool:
    """Neither hooked, wrapped nor random; its forward its class's own, or replaced by one that has it as `plain`."""
    hooked = part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
    own = vars(part).get("forward")
    wrapped = hasattr(part, "_fsdp_wrapped_module") or not (own is None or hasattr(own, "plain"))
    random = part.training and not isinstance(part, nn.Identity | nn.ModuleDict | nn.ModuleList)
    return not (hooked or wrapped or random)


class _CannotPartError(Exception):
    """A layer takes or gives what is not known to be one row a token, or does not attend once."""


class _KeysReachedError(Exception):
    """Thrown to leave a layer where it attends."""


class _KeysAlone(SpanMask):
    """Keeps the keys and values of the tokens that a layer runs at, and has it stop there."""

    key: Tensor
    value: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None) -> Tensor:
        self.key, self.value = key, value
        raise _KeysReachedError


class _Chosen(SpanMask):
    """Lets the tokens that a layer runs at look at all tokens: at their own keys and at those of the others."""

    others: _KeysAlone
    order_F: Tensor  # the tokens that look, then the others
    back_F: Tensor  # its inverse
    calls = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None) -> Tensor:
        self.calls += 1
        if query.shape[2] + self.others.key.shape[2] != len(self.order_F):
            raise _CannotPartError
        key, value = (self._of_all(*pair) for pair in ((key, self.others.key), (value, self.others.value)))
        return super().attend(query, key, value, dropout, scale)

    def _of_all(self, own_1HnD: Tensor, others_1HmD: Tensor) -> Tensor:
        x_FHD = torch.cat([own_1HnD, others_1HmD], 2)[0].transpose(0, 1)
        return rearranged(x_FHD, self.back_F, self.order_F).transpose(0, 1)[None]


class _InTwo:
    """A layer's `forward` whose output is right at some tokens, and 0 elsewhere.

    whole: how it runs at all tokens; plain: the same neither compiled nor checkpointed.
    """

    def __init__(self, whole: "Callable[..., Any]", plain: "Callable[..., Any]", token_n: Tensor) -> None:
        self.whole, self.plain, self.token_n = whole, plain, token_n

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        masks = [value for value in (*args, *kwargs.values()) if isinstance(value, SpanMask)]
        if not args or len(masks) != 1:
            return self.whole(*args, **kwargs)
        chosen_n, tokens = torch.unique(self.token_n), args[0].shape[:2].numel()
        # Of most tokens less is saved than a compiled layer gains, or a checkpointed one takes up.
        if not 0 < len(chosen_n) < (tokens if self.plain is self.whole else tokens / 2):
            return self.whole(*args, **kwargs)
        try:
            output = self._in_two(args, kwargs, masks[0], chosen_n)
        except _CannotPartError:
            return self.whole(*args, **kwargs)
        attention_is_over()
        return output

    def _in_two(self, args: tuple[Any, ...], kwargs: dict[str, Any], mask: SpanMask, chosen_n: Tensor) -> Tensor:
        shape, device = args[0].shape[:2], chosen_n.device
        is_other_F = torch.ones(shape.numel(), dtype=torch.bool, device=device)
        other_m = is_other_F.index_fill_(0, chosen_n, False).nonzero().flatten()
        order_F = torch.cat([chosen_n, other_m])
        back_F = order_F.argsort()
        hidden_FD = rearranged(args[0].flatten(0, 1), order_F, back_F)
        chosen_nD, other_mD = torch.split(hidden_FD, [len(chosen_n), len(other_m)])

        def run(hidden_nD: Tensor, token_n: Tensor, mask: SpanMask) -> Any:
            others, named = _of_tokens((args[1:], kwargs), token_n, shape, mask)
            return self.plain(hidden_nD[None], *others, **named)

        keys = _KeysAlone.over((), len(other_m), shape.numel(), device)
        try:
            run(other_mD, other_m, keys)
        except _KeysReachedError:
            lookers = _Chosen.over(list(chosen(mask.plan, chosen_n)), len(chosen_n), shape.numel(), device)
        else:
            raise _CannotPartError
        lookers.others, lookers.order_F, lookers.back_F = keys, order_F, back_F
        output = run(chosen_nD, chosen_n, lookers)
        if lookers.calls != 1 or not isinstance(output, Tensor) or output.shape[:2] != (1, len(chosen_n)):
            raise _CannotPartError
        whole_FD = output.new_zeros(shape.numel(), output.shape[2]).index_copy(0, chosen_n, output[0])
        return whole_FD.view(*shape, -1)


def _of_tokens(value: Any, token_n: Tensor, shape: torch.Size, mask: SpanMask) -> Any:
    """What a layer is given, cut down to some tokens [1, n, ...]; shape: [B, T]. Raises _CannotPartError."""
    if isinstance(value, SpanMask):
        return mask
    if isinstance(value, tuple | list):
        return tuple(_of_tokens(each, token_n, shape, mask) for each in value)
    if isinstance(value, dict):
        return {key: _of_tokens(each, token_n, shape, mask) for key, each in value.items()}
    if not isinstance(value, Tensor) or not value.dim():
        return value
    if value.dim() == 1 and shape[0] == 1 and value.shape[0] == shape[1]:  # a position's column
        return value[token_n]
    if value.dim() < 2 or value.shape[1] != shape[1] or value.shape[0] not in (1, shape[0]):
        raise _CannotPartError
    return value.expand(*shape, *value.shape[2:]).flatten(0, 1)[token_n][None]
