"""Confidence intervals of means: of items, of paired differences, of seeds. Pure functions, in float64.

Not covered: items that depend on each other (several samples of one problem: average them first), and comparisons of
more than two runs.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

_EXACT_UP_TO = 200  # degrees of freedom; beyond, the expansion is within 1e-8 up to confidence 0.99


class Interval(NamedTuple):
    """A mean, the bounds of its confidence interval, and the number of values that it is of."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Tensor | Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval of a mean of independent items: Wilson's where every value is 0 or 1, Student's otherwise.

    Student's interval of a single value is infinite. Raises ValueError for no values.
    """
    values_N = _flat(values)
    if bool(((values_N == 0) | (values_N == 1)).all()):
        return _wilson(values_N, confidence)
    return _student(values_N, confidence)


def paired_difference_interval(
    before: Tensor | Sequence[float], after: Tensor | Sequence[float], confidence: float = 0.95
) -> Interval:
    """Student's interval of the mean of after − before, item by item; both hold the same items in the same order.

    Zero wide where every item changed by the same amount. Raises ValueError for unequal lengths and for no values.
    """
    before_N, after_N = _flat(before), _flat(after)
    if len(before_N) != len(after_N):
        raise ValueError(f"pairs need as many values after as before, got {len(before_N)} and {len(after_N)}")
    return _student(after_N - before_N, confidence)


def across_seeds_interval(values: Tensor | Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of one figure a seed, n − 1 degrees of freedom, whatever the values: a seed is no coin toss.

    Infinite for a single seed. Raises ValueError for no values.
    """
    return _student(_flat(values), confidence)


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


def _student(values_N: Tensor, confidence: float) -> Interval:
    _check_confidence(confidence)
    n, mean = len(values_N), float(values_N.mean())
    half = math.inf
    if n > 1:
        half = student_t_quantile(confidence, n - 1) * float(values_N.std()) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def _flat(values: Tensor | Sequence[float]) -> Tensor:
    values_N = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach().flatten()
    if len(values_N) == 0:
        raise ValueError("an interval needs at least one value, got none")
    return values_N


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
