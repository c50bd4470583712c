"""Tensors in, tensors out: token log-probs, pairwise objectives, regularizers, losses of reward models."""

from lit_pref.losses.kto import KTO
from lit_pref.losses.logps import LinearHead, TokenScores, completion_logps, token_scores
from lit_pref.losses.objectives import DPO, IPO, DPOPositive, Hinge, PairObjective, SimPO
from lit_pref.losses.regularizers import ChosenNLL, LikelihoodBudget, Regularizer
from lit_pref.losses.rewards import BradleyTerry, PairRewards, RewardLoss

__all__ = [
    "DPO",
    "IPO",
    "KTO",
    "BradleyTerry",
    "ChosenNLL",
    "DPOPositive",
    "Hinge",
    "LikelihoodBudget",
    "LinearHead",
    "PairObjective",
    "PairRewards",
    "Regularizer",
    "RewardLoss",
    "SimPO",
    "TokenScores",
    "completion_logps",
    "token_scores",
]
