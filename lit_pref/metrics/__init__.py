"""Figures of pairs, of samples and of means: pure functions, and a torchmetrics Metric of what is logged."""

from lit_pref.metrics.best_of_n import best_of_n, oracle_best_of_n, rank_weights
from lit_pref.metrics.calibration import expected_calibration_error, pair_brier, pair_nll
from lit_pref.metrics.figures import Figures
from lit_pref.metrics.intervals import Interval, across_seeds_interval, mean_interval, paired_difference_interval
from lit_pref.metrics.preference import preference_statistics
from lit_pref.metrics.reward import reward_statistics

__all__ = [
    "Figures",
    "Interval",
    "across_seeds_interval",
    "best_of_n",
    "expected_calibration_error",
    "mean_interval",
    "oracle_best_of_n",
    "pair_brier",
    "pair_nll",
    "paired_difference_interval",
    "preference_statistics",
    "rank_weights",
    "reward_statistics",
]
