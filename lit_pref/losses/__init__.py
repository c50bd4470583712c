"""Tensors in, tensors out: token log-probs, pairwise objectives, regularizers."""

from lit_pref.losses.logps import TokenScores, completion_logps, token_scores
from lit_pref.losses.objectives import DPO, IPO, DPOPositive, Hinge, PairObjective, SimPO
from lit_pref.losses.regularizers import ChosenNLL, LikelihoodBudget, Regularizer

__all__ = [
    "DPO",
    "IPO",
    "ChosenNLL",
    "DPOPositive",
    "Hinge",
    "LikelihoodBudget",
    "PairObjective",
    "Regularizer",
    "SimPO",
    "TokenScores",
    "completion_logps",
    "token_scores",
]
