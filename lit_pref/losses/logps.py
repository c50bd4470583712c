"""Log-probs of tokens from hidden states, without the whole [N, V] matrix of logits, and their sums per completion.

Only the hidden states that predict completion tokens meet the LM head, in chunks over positions; the backward pass
computes each chunk's logits again. Entropy and greedy accuracy are by-products of the same pass, without gradient. Not
covered: which hidden states those are (`lit_pref.models`), and a vocabulary that is split over devices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, D] to logits [n, V], with the bias, scale and softcapping that the model has."""


@dataclass(frozen=True)
class LinearHead:
    """An LM head as numbers: logits are x = scale · (W h + b), or with a cap softcap · tanh(x / softcap)."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [n, V] of hidden states [n, D]."""
        return scaled(linear(hidden, self.weight_VD, self.bias_V), self.scale, self.softcap)


def scaled(scores: Tensor, scale: float, softcap: float | None) -> Tensor:
    if scale != 1.0:
        scores = scores * scale
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


class TokenScores(NamedTuple):
    """What the model says of each target token; only `logps_N` carries a gradient."""

    logps_N: Tensor  # fp32, in nats
    entropy_N: Tensor  # of the whole distribution at the token's position; fp32, in nats
    correct_N: Tensor  # bool: no token is likelier, so greedy decoding may choose it


def token_scores(hidden_ND: Tensor, head: Head, target_N: Tensor, chunk_size: int | None = None) -> TokenScores:
    """Score each target token given the hidden state that predicts it.

    head: a `LinearHead` has a hand-written backward pass, which keeps one gradient of the weights for any number of
        chunks; any other callable goes through autograd, chunk by chunk.
    chunk_size: positions whose logits exist at a time; None is `default_chunk_size`. The softmax is fp32, also under
        autocast and for half precision hidden states, so this is about two fp32 tensors of [chunk_size, V]; three if
        the head is no `LinearHead`.
    N may be 0: every gradient is then zero, as distributed training needs.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, got {chunk_size}")
    if isinstance(head, LinearHead) and len(hidden_ND):
        size = chunk_size or default_chunk_size(len(hidden_ND), len(head.weight_VD), hidden_ND.device)
        # Rounded as autocast would round them, whose state the backward pass does not see.
        if torch.is_autocast_enabled(hidden_ND.device.type):
            hidden_ND = hidden_ND.to(torch.get_autocast_dtype(hidden_ND.device.type))
        scores: TokenScores = _LinearScores.apply(  # type: ignore[no-untyped-call]
            hidden_ND, head.weight_VD, head.bias_V, target_N, head.scale, head.softcap, size
        )
        return TokenScores(*scores)
    chunks = []
    size = chunk_size or 1024
    for hidden_nD, target_n in zip(torch.split(hidden_ND, size), torch.split(target_N, size), strict=True):
        if torch.is_grad_enabled():
            chunks.append(checkpoint(_score, head, hidden_nD, target_n, use_reentrant=False))
        else:
            chunks.append(_score(head, hidden_nD, target_n))
    return TokenScores(*map(torch.cat, zip(*chunks, strict=True)))


def default_chunk_size(positions: int, vocabulary: int, device: torch.device) -> int:
    """Positions whose fp32 logits exist at a time: all of them if these fit into 128 MiB, else what fits into 64.

    On CUDA both are a 128th of the device's memory, up to 1 GiB. If all exist at once, the backward pass does not
    compute them again. Larger chunks are no faster on a CPU; smaller ones add up the weights' gradient more often.
    """
    whole, several = 2**27, 2**26
    if device.type == "cuda":  # a power of two, so that like machines sum in like order
        memory = torch.cuda.get_device_properties(device).total_memory
        whole = several = min(max(1 << (memory // 128).bit_length() - 1, several), 2**30)
    row = 4 * vocabulary
    return positions if positions * row <= whole else max(1, several // row)


def completion_logps(logps_N: Tensor, completion_N: Tensor, completions: int) -> Tensor:
    """Summed log-prob of each completion, [K], fp32, in nats; 0 for a completion without tokens.

    completion_N: the completion, 0..K-1, that each token belongs to. completions: K.
    """
    return logps_N.new_zeros(completions, dtype=torch.float32).index_add(0, completion_N, logps_N.float())


def _score(head: Callable[[Tensor], Tensor], hidden_nD: Tensor, target_n: Tensor) -> TokenScores:
    logps_nV = head(hidden_nD).float().log_softmax(-1)
    logps_n = logps_nV.gather(-1, target_n[:, None]).squeeze(-1)
    # Saves nothing for the backward pass, so its recomputation stops before this.
    with torch.no_grad():
        entropy_n = _entropy(logps_nV.exp(), logps_nV)
        correct_n = logps_n >= logps_nV.amax(-1)  # a maximum costs less than an argmax
    return TokenScores(logps_n, entropy_n, correct_n)


def _entropy(softmax_nV: Tensor, logps_nV: Tensor) -> Tensor:
    with torch.autocast(logps_nV.device.type, enabled=False):  # else products would be of half precision
        entropy_n: Tensor = -torch.linalg.vecdot(softmax_nV, logps_nV)
    return entropy_n


class _LinearScores(torch.autograd.Function):
    """`_score` of a linear head: one gradient buffer for its weights, and no second pass if one chunk holds all.

    Autograd would build a [V, D] gradient for each chunk and add them up, which at V = 152k costs as much as the
    matrix products. Softmax p gives d log p_target / d logits = onehot − p. All chunks share their buffers: if each
    allocated its own, small results between them would leave holes that are too small for the next.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        scale: float,
        softcap: float | None,
        size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = LinearHead(weight_VD, bias_V, scale, softcap)
        logps_N, entropy_N = torch.empty((2, len(hidden_ND)), dtype=torch.float32, device=hidden_ND.device)
        correct_N = torch.empty_like(logps_N, dtype=torch.bool)
        chunks = _Chunks(head, hidden_ND, size)
        for place in chunks:
            logits_nV, softmax_nV = chunks.logits_and_softmax(place)
            target_logit_n = logits_nV.gather(-1, target_N[place, None]).squeeze(-1)
            top_n = logits_nV.amax(-1)
            log_top_n = softmax_nV.amax(-1).log_()  # at least -log V; top - log_top is the log-sum-exp
            logps_N[place] = (target_logit_n - top_n) + log_top_n
            with torch.autocast(hidden_ND.device.type, enabled=False):  # else the product would be of half precision
                entropy_N[place] = (top_n - torch.linalg.vecdot(softmax_nV, logits_nV)) - log_top_n
            correct_N[place] = target_logit_n >= top_n  # a maximum costs less than an argmax
        whole = any(ctx.needs_input_grad[:3]) and softcap is None and len(hidden_ND) <= size
        ctx.softmax_NV = softmax_nV if whole else None
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N)
        ctx.scale, ctx.softcap, ctx.size = scale, softcap, size
        ctx.mark_non_differentiable(entropy_N, correct_N)
        return logps_N, entropy_N, correct_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_N: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, target_N = ctx.saved_tensors
        kept_NV, ctx.softmax_NV = ctx.softmax_NV, None  # changed in place: a second backward pass computes it again
        head = LinearHead(weight_VD, bias_V, ctx.scale, ctx.softcap)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_ND) if for_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if for_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=torch.float32) if for_bias else None
        chunks = _Chunks(head, hidden_ND, ctx.size)
        for place in chunks:
            if kept_NV is not None:
                softmax_nV = logits_nV = kept_NV  # only of a head without a cap, which needs nothing but the softmax
            else:
                logits_nV, softmax_nV = chunks.logits_and_softmax(place)
            gradient_n = gradient_N[place, None] * ctx.scale
            change_nV = softmax_nV.mul_(-gradient_n).scatter_add_(1, target_N[place, None], gradient_n)
            if ctx.softcap is not None:  # d/dx of c·tanh(x / c) is 1 − tanh²
                change_nV.mul_(logits_nV.div_(ctx.softcap).square_().neg_().add_(1))
            change_nV, hidden_nD = change_nV.to(hidden_ND.dtype), hidden_ND[place]
            if grad_hidden is not None:
                torch.mm(change_nV, chunks.weight_VD, out=grad_hidden[place])
            if grad_weight is not None:
                if grad_weight.dtype == change_nV.dtype:
                    grad_weight.addmm_(change_nV.T, hidden_nD)
                else:
                    grad_weight += change_nV.T @ hidden_nD
            if grad_bias is not None:
                grad_bias += change_nV.sum(0)
        grad_weight = None if grad_weight is None else grad_weight.to(weight_VD.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(bias_V.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


class _Chunks:
    """Slices of the hidden states whose logits exist at a time, in two buffers [size, V] of fp32."""

    def __init__(self, head: LinearHead, hidden_ND: Tensor, size: int) -> None:
        self._head, self._hidden_ND, self._size = head, hidden_ND, min(size, len(hidden_ND))
        dtype = hidden_ND.dtype
        self.weight_VD = head.weight_VD.to(dtype)
        self._bias_V = None if head.bias_V is None else head.bias_V.to(dtype)
        self._logits_NV: Tensor | None = None
        self._softmax_NV: Tensor | None = None

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, len(self._hidden_ND), self._size):
            yield slice(start, start + self._size)

    def logits_and_softmax(self, place: slice) -> tuple[Tensor, Tensor]:
        """[n, V] each, the matrix product in the hidden states' precision; they last until the next call."""
        hidden_nD, head = self._hidden_ND[place], self._head
        if self._logits_NV is None or self._softmax_NV is None:
            shape, device = (self._size, len(self.weight_VD)), hidden_nD.device
            self._logits_NV, self._softmax_NV = (
                torch.empty(shape, dtype=torch.float32, device=device) for _ in range(2)
            )
        logits_nV, softmax_nV = self._logits_NV[: len(hidden_nD)], self._softmax_NV[: len(hidden_nD)]
        with torch.autocast(hidden_nD.device.type, enabled=False):
            if hidden_nD.dtype != torch.float32:
                logits_nV.copy_(linear(hidden_nD, self.weight_VD, self._bias_V))
            elif self._bias_V is None:
                torch.mm(hidden_nD, self.weight_VD.T, out=logits_nV)
            else:
                torch.addmm(self._bias_V, hidden_nD, self.weight_VD.T, out=logits_nV)
        if head.scale != 1.0:
            logits_nV.mul_(head.scale)
        if head.softcap is not None:
            logits_nV.div_(head.softcap).tanh_().mul_(head.softcap)
        return logits_nV, torch.softmax(logits_nV, -1, out=softmax_nV)
