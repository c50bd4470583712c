"""Figures of preference pairs, and intervals of means: pure functions; Lightning averages what is logged."""

from lit_pref.metrics.intervals import Interval, across_seeds_interval, mean_interval, paired_difference_interval
from lit_pref.metrics.preference import preference_statistics
from lit_pref.metrics.reward import reward_statistics

__all__ = [
    "Interval",
    "across_seeds_interval",
    "mean_interval",
    "paired_difference_interval",
    "preference_statistics",
    "reward_statistics",
]
