"""The next token of each sample, drawn from its row's distribution.

By inverse transform from one uniform number a sample, so that a draw depends on nothing else. A vocabulary of 150,000
is gone through once, a few rows at a time as they fit the processor's cache: what is kept of it is the mass of each
block of tokens, and only the block that a number falls into is looked at again.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lit_pref.types import Sampling

_AT_ONCE = 1 << 20  # logits
_LIKELIEST = (64, 1024, 16_384)  # tokens that are sorted for top_p, until they hold enough of the mass


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
    uniform_A = uniform_A.to(logits_RV.device)
    masses = _masses(logits_RV, sampling.temperature or 1.0)
    if sampling.temperature == 0:
        token_A = masses.likeliest_R[row_A]
    elif sampling.top_p < 1:
        token_A = _of_nucleus(logits_RV, masses, row_A, sampling, uniform_A)
    else:
        token_A = _of_all(logits_RV, masses, row_A, sampling.temperature, uniform_A)
    own = masses if sampling.temperature in (0, 1) else _masses(logits_RV, 1.0)
    logsumexp_R = own.largest_R.double() + own.mass_RB.sum(-1).log()
    logp_A = logits_RV[row_A, token_A] - logsumexp_R[row_A]
    return Draws(token_A.tolist(), logp_A.tolist())


class _Masses(NamedTuple):
    """Of each row the largest logit and its token, and in fp64 what its blocks of tokens weigh.

    A token weighs exp((logit − largest) / temperature), the likeliest 1.
    """

    largest_R: Tensor
    likeliest_R: Tensor
    mass_RB: Tensor


def _masses(logits_RV: Tensor, temperature: float) -> _Masses:
    vocabulary = logits_RV.shape[1]
    block = _block(vocabulary)
    whole = vocabulary - vocabulary % block
    found = []
    for some_RV in torch.split(logits_RV, max(1, _AT_ONCE // vocabulary)):
        largest_R, likeliest_R = some_RV.max(-1)
        weight_RV = _weigh(some_RV - largest_R[:, None], temperature)
        mass_RB = weight_RV[:, :whole].view(len(some_RV), -1, block).sum(-1)
        if whole < vocabulary:
            mass_RB = torch.cat([mass_RB, weight_RV[:, whole:].sum(-1, keepdim=True)], 1)
        found.append(_Masses(largest_R, likeliest_R, mass_RB.double()))
    return _Masses(*map(torch.cat, zip(*found, strict=True)))


def _block(vocabulary: int) -> int:
    """Tokens of a block: a power of two near the root, 512 of 150,000, so that no sum in fp32 runs over more."""
    return 1 << (vocabulary.bit_length() // 2)


def _weigh(below: Tensor, temperature: float) -> Tensor:
    """In place, of logits less the row's largest."""
    if temperature != 1:
        below /= temperature
    return below.exp_()


def _of_all(logits_RV: Tensor, masses: _Masses, row_A: Tensor, temperature: float, uniform_A: Tensor) -> Tensor:
    """First a block of the vocabulary, then a token of it."""
    vocabulary = logits_RV.shape[1]
    block_A, rest_A = _place(masses.mass_RB[row_A], uniform_A)
    size = _block(vocabulary)
    column_AK = block_A[:, None] * size + torch.arange(size, device=block_A.device)
    logit_AK = logits_RV[row_A[:, None], column_AK.clamp(max=vocabulary - 1)]
    weight_AK = _weigh(logit_AK - masses.largest_R[row_A, None], temperature).double()
    within_A, _ = _place(weight_AK.masked_fill_(column_AK >= vocabulary, 0.0), rest_A)
    return block_A * size + within_A


def _of_nucleus(logits_RV: Tensor, masses: _Masses, row_A: Tensor, sampling: Sampling, uniform_A: Tensor) -> Tensor:
    """Of the likeliest tokens that hold the mass top_p: one stays if the mass before it has not yet reached that."""
    enough_R = sampling.top_p * masses.mass_RB.sum(-1)
    token_A = masses.likeliest_R[row_A]
    open_R = enough_R > 1  # elsewhere the likeliest is enough
    for count in _counts(logits_RV.shape[1]):
        rows = open_R.nonzero()[:, 0]
        if not len(rows):
            break
        logit_OK, token_OK = logits_RV[rows].topk(count, -1)
        weight_OK = _weigh(logit_OK - masses.largest_R[rows, None], sampling.temperature).double()
        sum_OK = weight_OK.cumsum(-1)
        is_settled_O = (sum_OK[:, -1] >= enough_R[rows]) | (count == logits_RV.shape[1])
        weight_OK.masked_fill_(sum_OK - weight_OK >= enough_R[rows, None], 0.0)
        place_R = torch.zeros_like(masses.likeliest_R).index_put_((rows,), torch.arange(len(rows), device=rows.device))
        settled_R = torch.zeros_like(open_R).index_put_((rows,), is_settled_O)
        samples = settled_R[row_A].nonzero()[:, 0]
        if len(samples):
            place = place_R[row_A[samples]]
            token_A[samples] = token_OK[place, _place(weight_OK[place], uniform_A[samples]).place_A]
        open_R = open_R & ~settled_R
    return token_A


def _counts(vocabulary: int) -> Iterator[int]:
    yield from (count for count in _LIKELIEST if count < vocabulary)
    yield vocabulary


class _Placed(NamedTuple):
    """Where a uniform number falls, and how far into that place, which is again uniform in [0, 1]."""

    place_A: Tensor
    within_A: Tensor


def _place(mass_AK: Tensor, uniform_A: Tensor) -> _Placed:
    """By mass, in fp64; never a place without any."""
    end_AK = mass_AK.cumsum(-1)
    target_A1 = (uniform_A * end_AK[:, -1])[:, None]
    last_A1 = (end_AK < end_AK[:, -1:]).sum(-1, keepdim=True)  # the last one with a mass, which rounding could pass by
    place_A1 = torch.searchsorted(end_AK, target_A1, right=True).minimum(last_A1)
    mass_A1 = mass_AK.gather(1, place_A1)
    within_A1 = (target_A1 - (end_AK.gather(1, place_A1) - mass_A1)) / mass_A1
    return _Placed(place_A1[:, 0], within_A1[:, 0].clamp(0.0, 1.0))
