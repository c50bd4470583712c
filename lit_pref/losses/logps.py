"""Log-probs of tokens from hidden states, without the whole [N, V] matrix of logits, and their sums per completion.

Only the hidden states that predict completion tokens meet the LM head, in chunks over positions; the backward pass
makes each chunk's logits again. Entropy and greedy hits fall off on the way, without a gradient and without a second
pass. Not covered: which hidden states those are (`lit_pref.models`), and a vocabulary that is split over devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, D] to logits [n, V], with the bias, scale and softcapping that the model has."""


class TokenScores(NamedTuple):
    """What the model says of each target token; only `logps_N` carries a gradient."""

    logps_N: Tensor  # fp32, in nats
    entropy_N: Tensor  # of the whole distribution at the token's place; fp32, in nats
    correct_N: Tensor  # bool: no token is likelier, so that greedy decoding may choose it


def token_scores(hidden_ND: Tensor, head: Head, target_N: Tensor, chunk_size: int = 1024) -> TokenScores:
    """Score each target token given the hidden state that predicts it.

    chunk_size: positions whose logits exist at a time; the softmax is fp32 also under autocast or for half precision
        hidden states, so this is about three fp32 tensors of [chunk_size, V].
    N may be 0: every gradient is then zero, as distributed training needs it.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, got {chunk_size}")
    chunks = []
    for hidden_nD, target_n in zip(torch.split(hidden_ND, chunk_size), torch.split(target_N, chunk_size), strict=True):
        if torch.is_grad_enabled():
            # Not a custom autograd.Function: that is at most 8% faster, and it cannot see the parameters in `head`.
            chunks.append(checkpoint(_score, head, hidden_nD, target_n, use_reentrant=False))
        else:
            chunks.append(_score(head, hidden_nD, target_n))
    return TokenScores(*map(torch.cat, zip(*chunks, strict=True)))


def completion_logps(logps_N: Tensor, completion_N: Tensor, completions: int) -> Tensor:
    """Summed log-prob of each completion, [K], fp32, in nats; 0 for a completion without tokens.

    completion_N: the completion, 0..K-1, that each token belongs to. completions: K.
    """
    return logps_N.new_zeros(completions, dtype=torch.float32).index_add(0, completion_N, logps_N.float())


def _score(head: Head, hidden_nD: Tensor, target_n: Tensor) -> TokenScores:
    logps_nV = head(hidden_nD).float().log_softmax(-1)
    logps_n = logps_nV.gather(-1, target_n[:, None]).squeeze(-1)
    # Saves nothing for the backward pass, whose recomputation therefore stops before it. In place, and a maximum
    # instead of an argmax: on a CPU with a small vocabulary that is a seventh of the whole call.
    with torch.no_grad():
        entropy_n = -logps_nV.exp().mul_(logps_nV).sum(-1)
        correct_n = logps_n >= logps_nV.amax(-1)
    return TokenScores(logps_n, entropy_n, correct_n)
