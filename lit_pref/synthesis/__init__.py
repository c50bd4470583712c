"""Raw material to preference data."""

from lit_pref.synthesis.decontamination import Decontaminated, Overlap, decontaminate
from lit_pref.synthesis.execution import (
    ExecutionPairs,
    GradedSample,
    PairStrategy,
    SampleSettings,
    execution_pairs,
    passing_demonstrations,
)
from lit_pref.synthesis.graded_samples import GradedSamples, SamplingJob, cached_samples, kept_samples

__all__ = [
    "Decontaminated",
    "ExecutionPairs",
    "GradedSample",
    "GradedSamples",
    "Overlap",
    "PairStrategy",
    "SampleSettings",
    "SamplingJob",
    "cached_samples",
    "decontaminate",
    "execution_pairs",
    "kept_samples",
    "passing_demonstrations",
]
