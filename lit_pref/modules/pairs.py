"""Preference pairs as a view of a batch's completions: each row's first is chosen, its second is rejected."""

from torch import Tensor

from lit_pref.modules.language_model import _LanguageModule
from lit_pref.types import PairLogps, RowBatch


def sides(value_K: Tensor) -> tuple[Tensor, Tensor]:
    """What chosen and rejected have, [P] each."""
    chosen_P, rejected_P = value_K.view(-1, 2).unbind(1)
    return chosen_P, rejected_P


def pair_logps(batch: RowBatch, logps_K: Tensor) -> PairLogps:
    """Log-probs and lengths of both sides of each pair, [P]."""
    return PairLogps(*sides(logps_K), *sides(batch.trees.length_K.to(logps_K.dtype)))


def score_pairs(module: _LanguageModule, batch: RowBatch) -> PairLogps:
    """Log-probs and lengths of both sides of each pair under the module's weights, [P].

    Raises UserError for a batch of anything else than pairs.
    """
    module.check_kind(batch, "pair")
    return pair_logps(batch, module.score_completions(batch).logps_K)
