"""Held-out figures: pass@k, pairs."""

from lit_pref.evaluation.base import Evaluation
from lit_pref.evaluation.held_out_pairs import HeldOutPairs
from lit_pref.evaluation.pass_at_k import PassAtK, pass_at_k

__all__ = ["Evaluation", "HeldOutPairs", "PassAtK", "pass_at_k"]
