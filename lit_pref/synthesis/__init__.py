"""Raw material to preference data."""

from lit_pref.synthesis.check_filter import CheckReport, KillFilter, summarize
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
from lit_pref.synthesis.test_writing import recorded_check, with_checks, write_checks
from lit_pref.synthesis.written_tests import ProblemsWithTests, WriteTests, refuse_untested, with_tests

__all__ = [
    "CheckReport",
    "Decontaminated",
    "ExecutionPairs",
    "GradedSample",
    "GradedSamples",
    "KillFilter",
    "Overlap",
    "PairStrategy",
    "ProblemsWithTests",
    "SampleSettings",
    "SamplingJob",
    "WriteTests",
    "cached_samples",
    "decontaminate",
    "execution_pairs",
    "kept_samples",
    "passing_demonstrations",
    "recorded_check",
    "refuse_untested",
    "summarize",
    "with_checks",
    "with_tests",
    "write_checks",
]
