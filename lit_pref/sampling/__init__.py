"""Samples of problems with their verdicts, and what is made of them: pairs, demonstrations."""

from lit_pref.sampling.drawing import Draw
from lit_pref.sampling.execution import (
    ExecutionPairs,
    PairStrategy,
    distinct_answers,
    execution_pairs,
    passing_demonstrations,
)
from lit_pref.sampling.graded_samples import GradedSamples, SamplingJob, cached_samples, kept_samples
from lit_pref.sampling.grading import GradedSample

__all__ = [
    "Draw",
    "ExecutionPairs",
    "GradedSample",
    "GradedSamples",
    "PairStrategy",
    "SamplingJob",
    "cached_samples",
    "distinct_answers",
    "execution_pairs",
    "kept_samples",
    "passing_demonstrations",
]
