"""Problems that know how to grade a completion."""

from lit_pref.tasks.custom import CustomCodeTask
from lit_pref.tasks.doctests.task import DoctestTask
from lit_pref.tasks.embedded.code.task import CodeTask
from lit_pref.tasks.embedded.deduction import DeductionTask
from lit_pref.tasks.embedded.mixture import Mixture
from lit_pref.tasks.embedded.reasoning.task import ReasoningTask
from lit_pref.tasks.published.gsm8k import GSM8K
from lit_pref.tasks.published.gsm8k_solutions import GSM8KSolutions
from lit_pref.tasks.published.human_eval import HumanEval, HumanEvalPlus
from lit_pref.tasks.published.logiqa2 import LogiQA2
from lit_pref.tasks.published.math_problems import MATH
from lit_pref.tasks.published.math_shepherd import MathShepherd
from lit_pref.tasks.published.mbpp import MBPP, MBPPPlus
from lit_pref.tasks.published.reclor import ReClor

__all__ = [
    "GSM8K",
    "MATH",
    "MBPP",
    "CodeTask",
    "CustomCodeTask",
    "DeductionTask",
    "DoctestTask",
    "GSM8KSolutions",
    "HumanEval",
    "HumanEvalPlus",
    "LogiQA2",
    "MBPPPlus",
    "MathShepherd",
    "Mixture",
    "ReClor",
    "ReasoningTask",
]
