"""Raw material to preference data."""

from lit_pref.synthesis.execution import (
    ExecutionPairs,
    GradedSample,
    SampleSettings,
    execution_pairs,
    passing_demonstrations,
)
from lit_pref.synthesis.graded_samples import GradedSamples, graded_samples

__all__ = [
    "ExecutionPairs",
    "GradedSample",
    "GradedSamples",
    "SampleSettings",
    "execution_pairs",
    "graded_samples",
    "passing_demonstrations",
]
