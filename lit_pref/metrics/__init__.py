"""torchmetrics.Metric shells over pure functions, and intervals of means."""

from lit_pref.metrics.intervals import Interval, across_seeds_interval, mean_interval, paired_difference_interval
from lit_pref.metrics.preference import PreferenceMetrics, preference_statistics

__all__ = [
    "Interval",
    "PreferenceMetrics",
    "across_seeds_interval",
    "mean_interval",
    "paired_difference_interval",
    "preference_statistics",
]
