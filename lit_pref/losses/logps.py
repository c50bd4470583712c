"""Log-probs of tokens from hidden states, without the whole [N, V] matrix of logits, and their sums per completion.

Only the hidden states that predict completion tokens meet the LM head, in chunks over positions; the backward pass
makes each chunk's logits again. Entropy and greedy hits fall off on the way, without a gradient and without a second
pass. Not covered: which hidden states those are (`lit_pref.models`), and a vocabulary that is split over devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from lit_pref.types import LinearHead

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, D] to logits [n, V], with the bias, scale and softcapping that the model has."""


class TokenScores(NamedTuple):
    """What the model says of each target token; only `logps_N` carries a gradient."""

    logps_N: Tensor  # fp32, in nats
    entropy_N: Tensor  # of the whole distribution at the token's place; fp32, in nats
    correct_N: Tensor  # bool: no token is likelier, so that greedy decoding may choose it


def token_scores(hidden_ND: Tensor, head: Head, target_N: Tensor, chunk_size: int | None = None) -> TokenScores:
    """Score each target token given the hidden state that predicts it.

    head: a `LinearHead` is scored by a hand-written backward pass, which keeps one gradient of the weights whatever the
        number of chunks; any other callable through autograd, chunk by chunk.
    chunk_size: positions whose logits exist at a time; None is `default_chunk_size`. The softmax is fp32 also under
        autocast or for half precision hidden states, so this is about two fp32 tensors of [chunk_size, V]; three for
        another callable than a `LinearHead`.
    N may be 0: every gradient is then zero, as distributed training needs it.
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
    """Positions whose fp32 logits exist at a time: all of them where these fit into 128 MiB, else what fits into 64.

    On CUDA both are a 128th of the device's memory, up to 1 GiB. What exists whole is not made again in the backward
    pass. Larger chunks are no faster on a CPU; smaller ones pay for adding up the weights' gradient more often.
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
    # Saves nothing for the backward pass, whose recomputation therefore stops before it.
    with torch.no_grad():
        entropy_n = _entropy(logps_nV.exp(), logps_nV)
        correct_n = logps_n >= logps_nV.amax(-1)  # a maximum costs less than an argmax
    return TokenScores(logps_n, entropy_n, correct_n)


def _entropy(softmax_nV: Tensor, logps_nV: Tensor) -> Tensor:
    with torch.autocast(logps_nV.device.type, enabled=False):  # else products would be of half precision
        entropy_n: Tensor = -torch.linalg.vecdot(softmax_nV, logps_nV)
    return entropy_n


class _LinearScores(torch.autograd.Function):
    """`_score` of a linear head: one gradient buffer for its weights, and no second pass where one chunk holds all.

    Autograd would make a [V, D] gradient for each chunk and add them up, which at V = 152k costs as much as the
    matrix products. Softmax p gives d log p_target / d logits = onehot − p.
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
        keeps = any(ctx.needs_input_grad[:3]) and softcap is None and len(hidden_ND) <= size
        ctx.softmax_NV = None
        chunks = []
        for hidden_nD, target_n in zip(torch.split(hidden_ND, size), torch.split(target_N, size), strict=True):
            logits_nV = _logits(head, hidden_nD)
            softmax_nV = logits_nV.softmax(-1)
            target_logit_n = logits_nV.gather(-1, target_n[:, None]).squeeze(-1)
            top_n = logits_nV.amax(-1)
            log_top_n = softmax_nV.amax(-1).log_()  # at least -log V; top - log_top is the log-sum-exp
            logps_n = (target_logit_n - top_n) + log_top_n
            with torch.autocast(logits_nV.device.type, enabled=False):  # else the product would be of half precision
                entropy_n = (top_n - torch.linalg.vecdot(softmax_nV, logits_nV)) - log_top_n
            chunks.append((logps_n, entropy_n, target_logit_n >= top_n))
            ctx.softmax_NV = softmax_nV if keeps else None
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N)
        ctx.scale, ctx.softcap, ctx.size = scale, softcap, size
        logps_N, entropy_N, correct_N = map(torch.cat, zip(*chunks, strict=True))
        ctx.mark_non_differentiable(entropy_N, correct_N)
        return logps_N, entropy_N, correct_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_N: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, target_N = ctx.saved_tensors
        kept_NV, ctx.softmax_NV = ctx.softmax_NV, None  # changed in place: a second backward pass makes it again
        head = LinearHead(weight_VD, bias_V, ctx.scale, ctx.softcap)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        weight = weight_VD.to(hidden_ND.dtype)
        grad_hidden = torch.empty_like(hidden_ND) if for_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if for_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=torch.float32) if for_bias else None
        for start in range(0, len(hidden_ND), ctx.size):
            place = slice(start, start + ctx.size)
            hidden_nD, target_n, gradient_n = hidden_ND[place], target_N[place], gradient_N[place]
            if kept_NV is not None:
                softmax_nV, slope_nV = kept_NV, None
            else:
                logits_nV = _logits(head, hidden_nD)
                softmax_nV = logits_nV.softmax(-1)
                slope_nV = None if ctx.softcap is None else 1 - logits_nV.div_(ctx.softcap).square_()
            gradient_n = gradient_n[:, None] * ctx.scale
            change_nV = softmax_nV.mul_(-gradient_n).scatter_add_(1, target_n[:, None], gradient_n)
            change_nV = change_nV if slope_nV is None else change_nV.mul_(slope_nV)
            change_nV = change_nV.to(hidden_ND.dtype)
            if grad_hidden is not None:
                torch.mm(change_nV, weight, out=grad_hidden[place])
            if grad_weight is not None:
                if grad_weight.dtype == change_nV.dtype:
                    grad_weight.addmm_(change_nV.T, hidden_nD)
                else:
                    grad_weight += change_nV.T @ hidden_nD
            if grad_bias is not None:
                grad_bias += change_nV.sum(0)
        grad_weight = None if grad_weight is None else grad_weight.to(weight_VD.dtype)
        return (
            grad_hidden,
            grad_weight,
            None if grad_bias is None else grad_bias.to(bias_V.dtype),
            None,
            None,
            None,
            None,
        )


def _logits(head: LinearHead, hidden_nD: Tensor) -> Tensor:
    """[n, V] in fp32, the matrix product in the hidden states' precision."""
    dtype = hidden_nD.dtype
    with torch.autocast(hidden_nD.device.type, enabled=False):
        bias_V = None if head.bias_V is None else head.bias_V.to(dtype)
        logits_nV = linear(hidden_nD, head.weight_VD.to(dtype), bias_V).float()
    if head.scale != 1.0:
        logits_nV = logits_nV * head.scale
    return logits_nV if head.softcap is None else torch.tanh(logits_nV / head.softcap) * head.softcap
