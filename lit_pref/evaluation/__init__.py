"""Held-out figures: pass@k, pairs, best-of-N, multiple choice."""

from lit_pref.evaluation.base import Evaluation
from lit_pref.evaluation.best_of_n import BestOfN
from lit_pref.evaluation.multiple_choice import MultipleChoiceAccuracy
from lit_pref.evaluation.pair_accuracy import PairAccuracy
from lit_pref.evaluation.pass_at_k import PassAtK, pass_at_k

__all__ = [
    "BestOfN",
    "Evaluation",
    "MultipleChoiceAccuracy",
    "PairAccuracy",
    "PassAtK",
    "pass_at_k",
]
