"""Token log-probs by chunks against log_softmax of the whole matrix of logits."""

import math

import pytest
import torch
from torch import Tensor, nn

from lit_pref.losses import completion_logps, token_scores


class Head(nn.Module):
    """A linear head with a bias, a scale and a softcap, which remembers how many positions came at a time."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, vocabulary)
        self.positions: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.positions.append(len(hidden))
        return 5.0 * torch.tanh(1.5 * self.linear(hidden) / 5.0)


@pytest.fixture
def head() -> Head:
    torch.manual_seed(0)
    return Head(16, 50)


@pytest.fixture
def hidden_ND() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(23, 16, requires_grad=True)


@pytest.fixture
def target_N() -> Tensor:
    return torch.arange(23) * 7 % 50


def plain_logps(head: Head, hidden_ND: Tensor, target_N: Tensor) -> Tensor:
    return head(hidden_ND).log_softmax(-1)[torch.arange(len(target_N)), target_N]


@pytest.mark.parametrize("chunk_size", [1, 5, 23, 1024])
def test_logps_and_gradients_equal_those_of_whole_logits(head, hidden_ND, target_N, chunk_size):
    weight_N = torch.linspace(-1, 1, 23)
    leaves = [hidden_ND, *head.parameters()]
    expected_N = plain_logps(head, hidden_ND, target_N)
    expected_gradients = torch.autograd.grad((weight_N * expected_N).sum(), leaves)

    logps_N = token_scores(hidden_ND, head, target_N, chunk_size).logps_N
    gradients = torch.autograd.grad((weight_N * logps_N).sum(), leaves)

    torch.testing.assert_close(logps_N, expected_N, rtol=0, atol=1e-6)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_logps_of_known_logits():
    # Logits 0 and log 3 over two tokens: probabilities 1/4 and 3/4.
    scores = token_scores(torch.tensor([[0.0, math.log(3)]] * 2), nn.Identity(), torch.tensor([0, 1]))
    torch.testing.assert_close(scores.logps_N, torch.tensor([1 / 4, 3 / 4]).log())
    entropy = -(1 / 4 * math.log(1 / 4) + 3 / 4 * math.log(3 / 4))
    torch.testing.assert_close(scores.entropy_N, torch.tensor([entropy, entropy]))
    assert scores.correct_N.tolist() == [False, True]  # the second token is the likelier one


def test_only_logps_carry_a_gradient(head, hidden_ND, target_N):
    scores = token_scores(hidden_ND, head, target_N)
    assert scores.logps_N.requires_grad
    assert not scores.entropy_N.requires_grad
    assert not scores.correct_N.requires_grad


def test_logits_exist_by_chunks_and_are_made_again_in_the_backward_pass(head, hidden_ND, target_N):
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps_N = token_scores(hidden_ND, head, target_N, chunk_size=10).logps_N
    assert head.positions == [10, 10, 3]  # 23 positions
    # Between the passes nothing as large as a chunk's logits, 10 * 50, is kept; the hidden states are 10 * 16.
    assert max(kept, default=0) < 500
    logps_N.sum().backward()
    assert sorted(head.positions) == [3, 3, 10, 10, 10, 10]  # each once more


def test_without_a_gradient_each_position_meets_the_head_once(head, hidden_ND, target_N):
    expected_N = plain_logps(head, hidden_ND, target_N)
    head.positions.clear()
    with torch.no_grad():
        scores = token_scores(hidden_ND, head, target_N, chunk_size=10)
    assert head.positions == [10, 10, 3]
    assert not scores.logps_N.requires_grad
    torch.testing.assert_close(scores.logps_N, expected_N.detach(), rtol=0, atol=1e-6)


def test_a_frozen_head_passes_the_gradient_on(head, hidden_ND, target_N):
    head.requires_grad_(False)
    token_scores(hidden_ND, head, target_N, chunk_size=10).logps_N.sum().backward()
    assert hidden_ND.grad is not None and hidden_ND.grad.abs().min() > 0


def test_a_frozen_backbone_still_trains_the_head(head, hidden_ND, target_N):
    token_scores(hidden_ND.detach(), head, target_N, chunk_size=10).logps_N.sum().backward()
    assert head.linear.weight.grad is not None and head.linear.weight.grad.abs().max() > 0


def test_no_tokens_give_zero_gradients(head):
    hidden_ND = torch.zeros(0, 16, requires_grad=True)
    scores = token_scores(hidden_ND, head, torch.zeros(0, dtype=torch.long))
    assert [len(x) for x in scores] == [0, 0, 0]
    completion_logps(scores.logps_N, torch.zeros(0, dtype=torch.long), completions=2).sum().backward()
    torch.testing.assert_close(head.linear.weight.grad, torch.zeros(50, 16))


@pytest.mark.parametrize("way", ["autocast", "half"])
def test_softmax_is_fp32_in_half_precision(head, hidden_ND, target_N, way):
    # 8 bits of mantissa: a bf16 softmax would be off by up to 2^-8 of a log-prob near 4, 0.016. The logits here are
    # the same bf16 numbers for both sides, so that the difference is the softmax's alone.
    if way == "half":
        head, hidden_ND = head.bfloat16(), hidden_ND.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        logits_NV = head(hidden_ND)
        scores = token_scores(hidden_ND, head, target_N, chunk_size=23)
        scores.logps_N.sum().backward()
    assert logits_NV.dtype == torch.bfloat16
    assert scores.logps_N.dtype == scores.entropy_N.dtype == torch.float32
    expected_N = logits_NV.detach().double().log_softmax(-1)[torch.arange(23), target_N]
    torch.testing.assert_close(scores.logps_N.double(), expected_N, rtol=0, atol=1e-6)


def test_a_chunk_needs_a_position(head, hidden_ND, target_N):
    with pytest.raises(ValueError, match="chunk_size must be >= 1, got 0"):
        token_scores(hidden_ND, head, target_N, chunk_size=0)


def test_completion_logps_are_sums_in_fp32():
    # Completion 0: -1 - 2 = -3; completion 1 has no tokens; completion 2: -4. Tokens may come in any order.
    logps_N = torch.tensor([-1.0, -4.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    logps_K = completion_logps(logps_N, torch.tensor([0, 2, 0]), completions=3)
    torch.testing.assert_close(logps_K, torch.tensor([-3.0, 0.0, -4.0]))
    logps_K[0].backward()
    assert logps_N.grad is not None and logps_N.grad.tolist() == [1.0, 0.0, 1.0]
