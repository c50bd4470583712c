"""Raw material to preference data."""

from lit_pref.synthesis.check_filter import CheckReport, KillFilter, summarize
from lit_pref.synthesis.code_pairs import (
    ClippedDescription,
    Construction,
    MutatedRejected,
    OriginalChosen,
    PairFilters,
    StrongWeak,
)
from lit_pref.synthesis.completions import Completions
from lit_pref.synthesis.decontamination import Decontaminated, Overlap, decontaminate
from lit_pref.synthesis.descriptions import Describer
from lit_pref.synthesis.execution import (
    ExecutionPairs,
    GradedSample,
    PairStrategy,
    SampleSettings,
    execution_pairs,
    passing_demonstrations,
)
from lit_pref.synthesis.graded_samples import GradedSamples, SamplingJob, cached_samples, kept_samples
from lit_pref.synthesis.ray_runner import RayRunner
from lit_pref.synthesis.runners import LocalRunner, Runner
from lit_pref.synthesis.task_pairs import TaskPairs
from lit_pref.synthesis.test_writing import recorded_check, with_checks, write_checks
from lit_pref.synthesis.written_tests import ProblemsWithTests, WriteTests, refuse_untested, with_tests

__all__ = [
    "CheckReport",
    "ClippedDescription",
    "Completions",
    "Construction",
    "Decontaminated",
    "Describer",
    "ExecutionPairs",
    "GradedSample",
    "GradedSamples",
    "KillFilter",
    "LocalRunner",
    "MutatedRejected",
    "OriginalChosen",
    "Overlap",
    "PairFilters",
    "PairStrategy",
    "ProblemsWithTests",
    "RayRunner",
    "Runner",
    "SampleSettings",
    "SamplingJob",
    "StrongWeak",
    "TaskPairs",
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
