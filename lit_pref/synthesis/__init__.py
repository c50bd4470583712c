"""Raw material to preference data."""

from lit_pref.synthesis.checks.check_filter import KillFilter
from lit_pref.synthesis.checks.written import WriteTests, refuse_untested, with_tests
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
from lit_pref.synthesis.decontamination import decontaminate
from lit_pref.synthesis.stages.local import LocalRunner, Runner
from lit_pref.synthesis.stages.ray import RayRunner

__all__ = ["ClippedDescription", "Completions", "Construction", "Describer", "KillFilter", "LocalRunner"]
__all__ += ["MutatedRejected", "OriginalChosen", "PairFilters", "RayRunner", "Runner", "StrongWeak", "StrongWeakPairs"]
__all__ += ["WriteTests", "decontaminate", "refuse_untested", "with_tests"]
