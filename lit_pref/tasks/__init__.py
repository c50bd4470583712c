"""Problems that know how to grade a completion."""

from lit_pref.tasks.code import CodeTask
from lit_pref.tasks.code_problems import CodeProblems
from lit_pref.tasks.human_eval import HumanEval, HumanEvalPlus
from lit_pref.tasks.mbpp import MBPP, MBPPPlus

__all__ = ["MBPP", "CodeProblems", "CodeTask", "HumanEval", "HumanEvalPlus", "MBPPPlus"]
