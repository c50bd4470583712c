"""Regularizers: the identities of a likelihood budget, with numbers and gradients."""

import math

import pytest
import torch

from lit_pref.losses import DPO, ChosenNLL, LikelihoodBudget, Regularizer
from lit_pref.types import PairLogps


def logps(chosen: float, rejected: float = -5.0, chosen_length: float = 4.0) -> PairLogps:
    return PairLogps(*(torch.tensor([x]) for x in (chosen, rejected, chosen_length, 2.0)))


START = logps(-6.0)
FALLEN = logps(-9.0)  # chosen has lost 3 nats, 0.75 a token
RISEN = logps(-2.0)


def gradient(regularizer: Regularizer, policy: PairLogps, reference: PairLogps | None = START) -> float:
    """Of the penalty, on the chosen log-prob."""
    chosen = policy.chosen.clone().requires_grad_()
    penalty_P = regularizer(policy._replace(chosen=chosen), reference)
    return torch.autograd.grad(penalty_P.sum(), chosen)[0].item()


def test_beyond_the_budget_each_nat_costs_the_weight():
    # Fall 3, budget 1, weight 2: 2 · (3 − 1) = 4; gradient −2 on lw.
    budget = LikelihoodBudget(budget=1.0, weight=2.0)
    assert budget(FALLEN, START).tolist() == [4.0]
    assert gradient(budget, FALLEN) == -2.0


def test_inside_the_budget_nothing_is_charged():
    budget = LikelihoodBudget(budget=3.5)
    assert budget(FALLEN, START).tolist() == [0.0]
    assert gradient(budget, FALLEN) == 0.0


def test_a_budget_exactly_spent_is_inside():
    budget = LikelihoodBudget(budget=3.0)
    assert budget(FALLEN, START).tolist() == [0.0]
    assert gradient(budget, FALLEN) == 0.0
    assert budget.statistics(FALLEN, START)["budget/over"].tolist() == [0.0]


@pytest.mark.parametrize("per", ["sequence", "token"])
@pytest.mark.parametrize("budget", [0.0, 1.0])
def test_at_the_start_penalty_and_gradient_are_zero(budget, per):
    regularizer = LikelihoodBudget(budget=budget, per=per)
    assert regularizer(START, START).tolist() == [0.0]
    assert gradient(regularizer, START) == 0.0


def test_a_rise_is_never_charged():
    assert LikelihoodBudget(budget=0.0)(RISEN, START).tolist() == [0.0]
    assert gradient(LikelihoodBudget(budget=0.0), RISEN) == 0.0


def test_the_rejected_side_is_free():
    fallen = logps(-6.0, rejected=-500.0)
    assert LikelihoodBudget(budget=0.0)(fallen, START).tolist() == [0.0]


def test_per_token_divides_by_the_chosen_length():
    # Fall 3 over 4 tokens = 0.75 a token; budget 0.5, weight 2: 2 · 0.25 = 0.5; gradient −2/4.
    budget = LikelihoodBudget(budget=0.5, weight=2.0, per="token")
    assert budget(FALLEN, START).tolist() == [0.5]
    assert gradient(budget, FALLEN) == -0.5
    assert LikelihoodBudget(budget=0.75, per="token")(FALLEN, START).tolist() == [0.0]


def objective_gradients(regularizer: Regularizer | None, policy: PairLogps) -> list[torch.Tensor]:
    """Of DPO with a regularizer, on chosen and rejected."""
    chosen, rejected = policy.chosen.clone().requires_grad_(), policy.rejected.clone().requires_grad_()
    moved = policy._replace(chosen=chosen, rejected=rejected)
    loss_P = DPO()(moved, START)
    if regularizer is not None:
        loss_P = loss_P + regularizer(moved, START)
    return list(torch.autograd.grad(loss_P.sum(), [chosen, rejected]))


@pytest.mark.parametrize("policy", [START, FALLEN, RISEN])
def test_an_unlimited_budget_is_the_plain_objective(policy):
    unlimited = LikelihoodBudget(budget=1e30)
    torch.testing.assert_close(DPO()(policy, START) + unlimited(policy, START), DPO()(policy, START), rtol=0, atol=0)
    torch.testing.assert_close(objective_gradients(unlimited, policy), objective_gradients(None, policy))


@pytest.mark.parametrize("per", ["sequence", "token"])
@pytest.mark.parametrize("policy", [START, FALLEN, RISEN])
def test_a_budget_far_below_zero_has_the_gradient_of_nll(policy, per):
    demanding = LikelihoodBudget(budget=-1e6, weight=0.7, per=per)
    nll = ChosenNLL(weight=0.7, per=per)
    # Per sequence the gradient on lw is −0.7 more than the objective's, per token −0.7/4.
    extra = -0.7 if per == "sequence" else -0.7 / 4
    plain = objective_gradients(None, policy)
    torch.testing.assert_close(objective_gradients(demanding, policy), [plain[0] + extra, plain[1]])
    torch.testing.assert_close(objective_gradients(demanding, policy), objective_gradients(nll, policy))


def test_budget_statistics_tell_share_and_penalty():
    # Falls 3 and −4 with budget 1 and weight 2: over 1 and 0, penalties 4 and 0.
    policy = PairLogps(*(torch.cat(sides) for sides in zip(FALLEN, RISEN, strict=True)))
    reference = PairLogps(*(torch.cat(sides) for sides in zip(START, START, strict=True)))
    policy = policy._replace(chosen=policy.chosen.requires_grad_())
    statistics = LikelihoodBudget(budget=1.0, weight=2.0).statistics(policy, reference)
    assert {name: value.tolist() for name, value in statistics.items()} == {
        "budget/over": [1.0, 0.0],
        "budget/penalty": [4.0, 0.0],
    }
    assert not any(value.requires_grad for value in statistics.values())


def test_chosen_nll_per_token_and_per_sequence():
    # −lw = 9 over 4 tokens: 0.5 · 9/4 = 1.125 and 0.5 · 9 = 4.5; no reference.
    assert ChosenNLL(weight=0.5)(FALLEN, None).tolist() == [1.125]
    assert ChosenNLL(weight=0.5, per="sequence")(FALLEN, None).tolist() == [4.5]
    assert gradient(ChosenNLL(weight=0.5), FALLEN, None) == -0.125
    assert gradient(ChosenNLL(weight=0.5, per="sequence"), FALLEN, None) == -0.5
    assert ChosenNLL(weight=0.5).statistics(FALLEN, None)["nll_loss"].tolist() == [2.25]  # unweighted


def test_a_missing_reference_is_named():
    with pytest.raises(ValueError, match="LikelihoodBudget compares with a reference, got None"):
        LikelihoodBudget(budget=1.0)(FALLEN, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LikelihoodBudget(budget=math.nan), "budget must be finite, got nan"),
        (lambda: LikelihoodBudget(budget=math.inf), "budget must be finite, got inf"),
        (lambda: LikelihoodBudget(budget=1.0, weight=-1.0), "weight must be >= 0 and finite, got -1.0"),
        (lambda: LikelihoodBudget(budget=1.0, weight=math.nan), "weight must be >= 0 and finite, got nan"),
        (lambda: LikelihoodBudget(budget=1.0, per="word"), "per must be 'sequence' or 'token', got 'word'"),
        (lambda: ChosenNLL(weight=-1.0), "weight must be >= 0 and finite, got -1.0"),
    ],
)
def test_settings_fail_with_their_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
