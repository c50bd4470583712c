"""Confidence intervals of means: of items, of paired differences, of seeds. Pure functions, in float64.

Shares get score intervals, which hold even if few items or none differ. Other values get Student's, unless their
spread cannot be known. Not covered: items that depend on each other (average several samples of one problem first), and
comparisons of more than two runs.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_FEW = 5  # values that differ from the commonest one; fewer say too little about the spread
_EXACT_UP_TO = 200  # degrees of freedom; beyond, the expansion is within 1e-8 up to confidence 0.99


class Interval(NamedTuple):
    """A mean, the bounds of its confidence interval, and the number of values.

    The bounds are infinite if the values give no interval; `is_known` is then False.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def text(self, digits: int, percent: bool = False, sign: str = "") -> str:
        """`mean [low, high]`, or only the mean if the interval is not known; sign "+" shows the mean's sign."""
        mean, low, high = (100 * x if percent else x for x in (self.mean, self.low, self.high))
        bounds = f" [{low:.{digits}f}, {high:.{digits}f}]" if self.is_known else ""
        return f"{mean:{sign}.{digits}f}{'%' if percent else ''}{bounds}"


def mean_interval(values: Tensor | Sequence[float], confidence: float = 0.95, bounded: bool = False) -> Interval:
    """Interval of a mean of independent items: Wilson's if every value is 0 or 1, Student's otherwise.

    bounded: the values cannot leave [0, 1], so the bounds do not either.

    Unknown for a single value, and if one value comes several times and fewer than 5 others differ from it. Raises
    ValueError for no values.
    """
    values_N = _flat(values)
    if len(values_N) > 1 and _are_outcomes(values_N):
        return _wilson(values_N, confidence)
    found = _student(values_N, confidence)
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high)) if bounded and found.is_known else found


def paired_difference_interval(
    before: Tensor | Sequence[float],
    after: Tensor | Sequence[float],
    confidence: float = 0.95,
    bounded: bool = False,
) -> Interval:
    """Interval of the mean of after − before, item by item; both hold the same items in the same order.

    If every value is 0 or 1, Tango's score interval of the difference of paired shares: with none of n changed it
    reaches z² / (n + z²) to both sides. Student's otherwise, unknown as in `mean_interval`.

    bounded: the values cannot leave [0, 1], as each item's share of samples cannot. Two more differences, −1 and 1, are
        then added, so that few changes give an interval too; for values of 0 and 1 this would be Bonett and Price's.

    Raises ValueError for unequal lengths and for no values.
    """
    before_N, after_N = _flat(before), _flat(after)
    if len(before_N) != len(after_N):
        raise ValueError(f"pairs need as many values after as before, got {len(before_N)} and {len(after_N)}")
    change_N = after_N - before_N
    if len(change_N) > 1 and _are_outcomes(before_N) and _are_outcomes(after_N):
        return _tango(change_N, confidence)
    if len(change_N) > 1 and bounded:
        widened = _student(torch.cat([change_N, change_N.new_tensor([-1.0, 1.0])]), confidence, few=0)
        return Interval(float(change_N.mean()), max(-1.0, widened.low), min(1.0, widened.high), len(change_N))
    return _student(change_N, confidence)


def across_seeds_interval(values: Tensor | Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of one figure a seed, with n − 1 degrees of freedom, for any values: a seed is no coin toss.

    Infinite for a single seed. Raises ValueError for no values.
    """
    return _student(_flat(values), confidence, few=0)


def student_t_quantile(confidence: float, degrees: int) -> float:
    """The t with P(−t < T < t) = confidence, for T of Student's distribution.

    Up to 200 degrees of freedom by bisection of the exact finite series (Abramowitz & Stegun 26.7.3, 26.7.4), in the
    angle atan(t / √degrees), which is bounded; above by the expansion around the normal quantile (26.7.5).
    """
    _check_confidence(confidence)
    if degrees < 1:
        raise ValueError(f"degrees must be >= 1, got {degrees}")
    if degrees > _EXACT_UP_TO:
        return _expanded_quantile(NormalDist().inv_cdf(0.5 + confidence / 2), degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _central_probability(angle, degrees) < confidence else (low, angle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central_probability(angle: float, degrees: int) -> float:
    """P(|T| < √degrees · tan(angle))."""
    cosine = math.cos(angle)
    odd = degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= k / (k + 1) * cosine**2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def _expanded_quantile(z: float, degrees: int) -> float:
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def _wilson(values_N: Tensor, confidence: float) -> Interval:
    _check_confidence(confidence)
    n, share = len(values_N), float(values_N.mean())
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def _tango(change_N: Tensor, confidence: float) -> Interval:
    """T. Tango, Statistics in Medicine 17 (1998) 891: the differences that a score test would not reject.

    Unlike Newcombe's hybrid interval of the same year it needs no correlation, which few changes estimate badly: with
    none of 1,000 items changed, that one reaches 2 items, and 3.8 would be right.
    """
    _check_confidence(confidence)
    n, won, lost = len(change_N), int((change_N > 0).sum()), int((change_N < 0).sum())
    z = NormalDist().inv_cdf(0.5 + confidence / 2)

    def score(difference: float) -> float:
        """Falls with the difference. `lost_share` is the likeliest share of items lost, given the difference."""
        half = won + lost - (2 * n - won + lost) * difference
        root = math.sqrt(max(0.0, half**2 + 8 * n * lost * difference * (1 - difference)))
        lost_share = (root + half) / (4 * n)
        variance = n * (2 * lost_share + difference * (1 - difference))
        off = won - lost - n * difference
        return off / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, off)

    mean = (won - lost) / n
    return Interval(mean, _root(score, z, -1.0, mean), _root(score, -z, mean, 1.0), n)


def _root(falling: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling function reaches the target, between two places."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return (low + high) / 2


def _student(values_N: Tensor, confidence: float, few: int = _FEW) -> Interval:
    """few: values that must differ from one that comes several times."""
    _check_confidence(confidence)
    n, mean = len(values_N), float(values_N.mean())
    commonest = int(np.unique(values_N.numpy(), return_counts=True)[1].max())
    if n == 1 or (commonest > 1 and n - commonest < few):
        return Interval(mean, -math.inf, math.inf, n)
    half = student_t_quantile(confidence, n - 1) * float(values_N.std()) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def _are_outcomes(values_N: Tensor) -> bool:
    return bool(((values_N == 0) | (values_N == 1)).all())


def _flat(values: Tensor | Sequence[float]) -> Tensor:
    values_N = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach().flatten()
    if len(values_N) == 0:
        raise ValueError("an interval needs at least one value, got none")
    return values_N


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
