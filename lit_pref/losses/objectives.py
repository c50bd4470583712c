"""Pairwise objectives: one loss a pair, from the log-probs of its chosen and rejected response; callers reduce.

A new one is a frozen dataclass like those below, and one test. Throughout, `D` is the policy's log-ratio to the
reference on chosen minus that on rejected, lw − lw0 − (ll − ll0), from log-probs summed over the response's tokens.
Not covered: objectives of single responses (`kto.py`), and those that need more than log-probs and lengths.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from lit_pref.types import PairLogps


class LogRatios(NamedTuple):
    """log p(y | x) − log p_ref(y | x) of both sides, summed over tokens, in nats; each [P]."""

    chosen: Tensor
    rejected: Tensor


def log_ratios(policy: PairLogps, reference: PairLogps | None, owner: object) -> LogRatios:
    """Policy minus reference. Raises ValueError, naming the owner, if there is no reference."""
    if reference is None:
        raise ValueError(f"{type(owner).__name__} compares with a reference, got None for its log-probs")
    return LogRatios(policy.chosen - reference.chosen, policy.rejected - reference.rejected)


class PairObjective(ABC):
    """Loss of preference pairs from their log-probs.

    needs_reference: whether it compares with the frozen start policy.
    beta: scale of the implicit reward, beta · (log p − log p_ref), which `rewards/*` report.
    """

    needs_reference: ClassVar[bool]
    beta: float

    @abstractmethod
    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair losses, [P]. Raises ValueError if a reference is needed and there is none."""


@dataclass(frozen=True)
class DPO(PairObjective):
    """Direct preference optimization, arXiv 2305.18290; with label smoothing the conservative form, cDPO.

    −(1 − label_smoothing) · log σ(beta · D) − label_smoothing · log σ(−beta · D)

    Args:
        beta: scale of the implicit rewards; the smaller it is, the further the policy may move.
        label_smoothing: the share of pairs that are taken to be in the wrong order, in [0, 0.5).
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), got {self.label_smoothing}")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair losses, [P]."""
        chosen_P, rejected_P = log_ratios(policy, reference, self)
        reward_gap_P = self.beta * (chosen_P - rejected_P)
        right_P, wrong_P = -logsigmoid(reward_gap_P), -logsigmoid(-reward_gap_P)
        return (1 - self.label_smoothing) * right_P + self.label_smoothing * wrong_P


@dataclass(frozen=True)
class IPO(PairObjective):
    """Identity preference optimization, arXiv 2310.12036, with log-ratios per token, as its authors confirmed.

    ((lw − lw0)/|y_w| − (ll − ll0)/|y_l| − 1/(2 · beta))²

    Args:
        beta: the paper's tau; the loss pulls pairs to a gap of 1/(2 · beta) nats per token.
    """

    beta: float = 0.1
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_beta(self.beta)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair losses, [P]."""
        chosen_P, rejected_P = log_ratios(policy, reference, self)
        gap_P = chosen_P / policy.chosen_length - rejected_P / policy.rejected_length
        return (gap_P - 1 / (2 * self.beta)).square()


@dataclass(frozen=True)
class SimPO(PairObjective):
    """Reference-free, length-normalized preference optimization: the objective of arXiv 2405.14734.

    −log σ(beta · (lw/|y_w| − ll/|y_l|) − margin)

    Args:
        beta: scale of the gap between mean log-probs.
        margin: gamma itself, not the gamma/beta ratio that the authors' code takes.
    """

    beta: float = 2.0
    margin: float = 1.0
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin must be >= 0 and finite, got {self.margin}")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair losses, [P]; the reference is ignored."""
        gap_P = policy.chosen / policy.chosen_length - policy.rejected / policy.rejected_length
        return -logsigmoid(self.beta * gap_P - self.margin)


@dataclass(frozen=True)
class Hinge(PairObjective):
    """DPO's implicit rewards with a hinge instead of the sigmoid: the loss of SLiC (arXiv 2305.10425), as in TRL.

    max(0, 1 − beta · D), with gradient 0 at equality.

    Args:
        beta: scale of the implicit rewards, as in DPO.
    """

    beta: float = 0.1
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_beta(self.beta)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair losses, [P]."""
        chosen_P, rejected_P = log_ratios(policy, reference, self)
        return relu(1 - self.beta * (chosen_P - rejected_P))


@dataclass(frozen=True)
class DPOPositive(PairObjective):
    """DPO-Positive (DPOP), arXiv 2402.13228: DPO that charges for a fall of chosen inside the sigmoid.

    −log σ(beta · D − beta · weight · max(0, lw0 − lw)); at equality the hinge has gradient 0.

    Args:
        beta: scale of the implicit rewards, as in DPO.
        weight: the paper's lambda (a keyword in Python); 0 is plain DPO.
    """

    beta: float = 0.1
    weight: float = 5.0
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be >= 0 and finite, got {self.weight}")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair losses, [P]."""
        chosen_P, rejected_P = log_ratios(policy, reference, self)
        return -logsigmoid(self.beta * (chosen_P - rejected_P - self.weight * relu(-chosen_P)))


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be > 0 and finite, got {beta}" if beta > 0 else f"beta must be > 0, got {beta}")
