"""Raw material to preference data."""

from lit_pref.synthesis.checks.check_filter import CheckReport, KillFilter, summarize
from lit_pref.synthesis.checks.check_writing import recorded_check, with_checks, write_checks
from lit_pref.synthesis.checks.written import ProblemsWithTests, WriteTests, refuse_untested, with_tests
from lit_pref.synthesis.code_pairs.completions import Completions
from lit_pref.synthesis.code_pairs.constructions import (
    ClippedDescription,
    Construction,
    MutatedRejected,
    OriginalChosen,
    PairFilters,
    StrongWeak,
)
from lit_pref.synthesis.code_pairs.descriptions import Describer
from lit_pref.synthesis.code_pairs.strong_weak import StrongWeakPairs
from lit_pref.synthesis.decontamination import Decontaminated, Overlap, decontaminate
from lit_pref.synthesis.stages.local import LocalRunner, Runner
from lit_pref.synthesis.stages.ray import RayRunner

__all__ = [
    "CheckReport",
    "ClippedDescription",
    "Completions",
    "Construction",
    "Decontaminated",
    "Describer",
    "KillFilter",
    "LocalRunner",
    "MutatedRejected",
    "OriginalChosen",
    "Overlap",
    "PairFilters",
    "ProblemsWithTests",
    "RayRunner",
    "Runner",
    "StrongWeak",
    "StrongWeakPairs",
    "WriteTests",
    "decontaminate",
    "recorded_check",
    "refuse_untested",
    "summarize",
    "with_checks",
    "with_tests",
    "write_checks",
]
