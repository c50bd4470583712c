"""Samples of problems with their verdicts, and what is made of them: pairs, demonstrations."""

from lit_pref.sampling.execution import (
    ExecutionPairs,
    GradedSample,
    PairStrategy,
    SampleSettings,
    execution_pairs,
    passing_demonstrations,
)
from lit_pref.sampling.graded_samples import GradedSamples, SamplingJob, cached_samples, kept_samples

__all__ = [
    "ExecutionPairs",
    "GradedSample",
    "GradedSamples",
    "PairStrategy",
    "SampleSettings",
    "SamplingJob",
    "cached_samples",
    "execution_pairs",
    "kept_samples",
    "passing_demonstrations",
]
