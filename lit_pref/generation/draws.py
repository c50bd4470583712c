"""The next token of each sample, drawn from its row's distribution.

By inverse transform from one uniform number a sample, so that a draw depends on nothing else; a vocabulary of 150,000
is gone through block by block, and no sum runs over more than a block in fp32.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_pref.types import Sampling

_BLOCK = 512  # tokens
_LIKELIEST = 256  # tokens that are sorted for top_p, as long as they hold enough of the mass


class Draws(NamedTuple):
    """Tokens [A] and the log-probs that the model gives them, before temperature and top_p."""

    tokens: list[int]
    logps: list[float]


def draw(logits_RV: Tensor, row_A: Tensor, sampling: Sampling, uniform_A: Tensor) -> Draws:
    """A token for each of A samples, from the logits of its row.

    logits_RV: fp32; each row has a largest one.
    uniform_A: numbers in [0, 1), in fp64; greedy decoding does not use them.
    """
    if logits_RV.device.type == "mps":  # has no float64
        logits_RV, row_A = logits_RV.cpu(), row_A.cpu()
    if sampling.temperature == 0:
        token_A = logits_RV.argmax(-1)[row_A]
    elif sampling.top_p < 1:
        token_A = _of_nucleus(_weights(logits_RV, sampling.temperature), row_A, sampling.top_p, uniform_A)
    else:
        token_A = _of_all(_weights(logits_RV, sampling.temperature), row_A, uniform_A)
    logp_A = logits_RV[row_A, token_A] - logits_RV.logsumexp(-1)[row_A]
    return Draws(token_A.tolist(), logp_A.tolist())


def _weights(logits_RV: Tensor, temperature: float) -> Tensor:
    """Proportional to probabilities; the likeliest token's is 1."""
    weight_RV = logits_RV - logits_RV.amax(-1, keepdim=True)
    return weight_RV.div_(temperature).exp_()


def _of_all(weight_RV: Tensor, row_A: Tensor, uniform_A: Tensor) -> Tensor:
    """First a block of the vocabulary, then a token of it."""
    rows, vocabulary = weight_RV.shape
    whole = vocabulary - vocabulary % _BLOCK
    mass_RB = weight_RV[:, :whole].view(rows, -1, _BLOCK).sum(-1)
    if whole < vocabulary:
        mass_RB = torch.cat([mass_RB, weight_RV[:, whole:].sum(-1, keepdim=True)], 1)
    mass_AB = mass_RB.double()[row_A]
    block_A, rest_A = _place(mass_AB, uniform_A)
    column_AK = block_A[:, None] * _BLOCK + torch.arange(_BLOCK, device=block_A.device)
    weight_AK = weight_RV[row_A[:, None], column_AK.clamp(max=vocabulary - 1)].double()
    within_A, _ = _place(weight_AK.masked_fill_(column_AK >= vocabulary, 0.0), rest_A)
    return block_A * _BLOCK + within_A


def _of_nucleus(weight_RV: Tensor, row_A: Tensor, top_p: float, uniform_A: Tensor) -> Tensor:
    """Of the likeliest tokens that hold the mass top_p: one stays if the mass before it has not yet reached that."""
    total_R = weight_RV.sum(-1, dtype=torch.float64)
    count, vocabulary = _LIKELIEST, weight_RV.shape[1]
    while True:
        weight_RK, token_RK = weight_RV.topk(min(count, vocabulary), -1)
        weight_RK = weight_RK.double()
        before_RK = weight_RK.cumsum(-1) - weight_RK
        is_outside_RK = before_RK >= (top_p * total_R)[:, None]
        if count >= vocabulary or bool(is_outside_RK[:, -1].all()):
            break
        count *= 8
    place_A, _ = _place(weight_RK.masked_fill_(is_outside_RK, 0.0)[row_A], uniform_A)
    return token_RK[row_A, place_A]


class _Placed(NamedTuple):
    """Where a uniform number falls, and how far into that place, which is again uniform in [0, 1)."""

    place_A: Tensor
    within_A: Tensor


def _place(mass_AK: Tensor, uniform_A: Tensor) -> _Placed:
    """By mass, in fp64; never a place without any."""
    end_AK = mass_AK.cumsum(-1)
    target_A1 = (uniform_A.to(mass_AK.device) * end_AK[:, -1])[:, None]
    last_A1 = (end_AK < end_AK[:, -1:]).sum(-1, keepdim=True)  # the last one with a mass, which rounding could pass by
    place_A1 = torch.searchsorted(end_AK, target_A1, right=True).minimum(last_A1)
    mass_A1 = mass_AK.gather(1, place_A1)
    within_A1 = (target_A1 - (end_AK.gather(1, place_A1) - mass_A1)) / mass_A1
    return _Placed(place_A1[:, 0], within_A1[:, 0].clamp(0.0, 1.0))
