"""Token log-probs of a `LinearHead`, whose backward pass is written by hand, against autograd through whole logits."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_pref.losses import LinearHead, logps, token_scores

N, D, V = 23, 16, 50
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"scale": 0.25},
    "capped": {"softcap": 2.0},
    "biased": {"bias_V": torch.linspace(-1, 1, V)},
    "all": {"bias_V": torch.linspace(-1, 1, V), "scale": 1.5, "softcap": 3.0},
}


def head_of(name: str, **changes: Any) -> LinearHead:
    settings: dict[str, Any] = {"bias_V": None, "scale": 1.0, "softcap": None} | HEADS[name] | changes
    if settings["bias_V"] is not None:
        settings["bias_V"] = settings["bias_V"].clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    return LinearHead(torch.randn(V, D, generator=generator).requires_grad_(), **settings)


@pytest.fixture
def hidden_ND() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.fixture
def target_N() -> Tensor:
    return torch.arange(N) * 7 % V


def by_hand(head: LinearHead, hidden_ND: Tensor) -> Tensor:
    """[N, V] log-probs, in the order of the definition."""
    logits = hidden_ND @ head.weight_VD.T
    if head.bias_V is not None:
        logits = logits + head.bias_V
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits.log_softmax(-1)


def leaves(head: LinearHead, hidden_ND: Tensor) -> list[Tensor]:
    return [x for x in (hidden_ND, head.weight_VD, head.bias_V) if x is not None]


@pytest.mark.parametrize("chunk_size", [1, 5, N, 1024])  # the last two keep the softmax, the others make it again
@pytest.mark.parametrize("name", HEADS)
def test_scores_and_gradients_equal_those_of_whole_logits(name: str, chunk_size: int, hidden_ND, target_N):
    head = head_of(name)
    weight_N = torch.linspace(-1, 1, N)
    logps_NV = by_hand(head, hidden_ND)
    expected_N = logps_NV[torch.arange(N), target_N]
    expected = torch.autograd.grad((weight_N * expected_N).sum(), leaves(head, hidden_ND), retain_graph=True)

    scores = token_scores(hidden_ND, head, target_N, chunk_size)
    gradients = torch.autograd.grad((weight_N * scores.logps_N).sum(), leaves(head, hidden_ND))

    torch.testing.assert_close(scores.logps_N, expected_N, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.entropy_N, torch.special.entr(logps_NV.exp()).sum(-1), rtol=0, atol=1e-5)
    assert torch.equal(scores.correct_N, logps_NV.argmax(-1) == target_N)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [5, N])
def test_a_second_backward_pass_gives_the_same(chunk_size: int, hidden_ND, target_N):
    head = head_of("biased")
    total = token_scores(hidden_ND, head, target_N, chunk_size).logps_N.sum()
    first = torch.autograd.grad(total, leaves(head, hidden_ND), retain_graph=True)

    for gradient, again in zip(first, torch.autograd.grad(total, leaves(head, hidden_ND)), strict=True):
        torch.testing.assert_close(again, gradient, rtol=1e-5, atol=1e-6)


def test_tokens_far_from_the_likeliest_keep_their_log_probs(target_N):
    """A softmax of 0 in fp32 says nothing of how improbable a token is; its logit does."""
    spread = LinearHead(100 * torch.eye(V), None, 1.0, None)
    hidden_ND = torch.eye(V)[:N].requires_grad_()  # token i is sure at place i: logits of 100 and 0

    scores = token_scores(hidden_ND, spread, target_N)

    expected_N = torch.where(target_N == torch.arange(N), 0.0, -100.0)
    torch.testing.assert_close(scores.logps_N, expected_N, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.entropy_N, torch.zeros(N), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frozen", ["weight_VD", "bias_V", "hidden"])
def test_what_is_frozen_gets_no_gradient_and_passes_the_others_on(frozen: str, hidden_ND, target_N):
    head = head_of("all")
    weight_N = torch.linspace(-1, 1, N)
    trained = leaves(head, hidden_ND)
    still = hidden_ND if frozen == "hidden" else getattr(head, frozen)
    expected = torch.autograd.grad((weight_N * token_scores(hidden_ND, head, target_N, 5).logps_N).sum(), trained)
    still.requires_grad_(False)
    (weight_N * token_scores(hidden_ND, head, target_N, 5).logps_N).sum().backward()
    assert still.grad is None
    for leaf, gradient in zip(trained, expected, strict=True):
        if leaf is not still:
            assert torch.equal(leaf.grad, gradient)


def test_only_logps_carry_a_gradient(hidden_ND, target_N):
    scores = token_scores(hidden_ND, head_of("plain"), target_N)
    assert scores.logps_N.requires_grad and not scores.entropy_N.requires_grad and not scores.correct_N.requires_grad


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("chunk_size", [5, 1024])
def test_autocast_rounds_the_matrix_product_alone(name: str, chunk_size: int, hidden_ND, target_N):
    head = head_of(name)
    with torch.autocast("cpu", torch.bfloat16):
        scores = token_scores(hidden_ND, head, target_N, chunk_size)
    scores.logps_N.sum().backward()
    # What autocast makes of linear(): operands and result in bf16; all behind it in fp32.
    bias_V = None if head.bias_V is None else head.bias_V.bfloat16()
    rounded_NV = torch.nn.functional.linear(hidden_ND.bfloat16(), head.weight_VD.bfloat16(), bias_V).float()
    rounded_NV = rounded_NV * head.scale
    if head.softcap is not None:
        rounded_NV = head.softcap * torch.tanh(rounded_NV / head.softcap)
    expected_N = rounded_NV.log_softmax(-1)[torch.arange(N), target_N]
    expected = torch.autograd.grad(expected_N.sum(), leaves(head, hidden_ND))
    torch.testing.assert_close(scores.logps_N, expected_N, rtol=0, atol=1e-5)
    for leaf, gradient in zip(leaves(head, hidden_ND), expected, strict=True):
        assert leaf.grad.dtype == torch.float32
        torch.testing.assert_close(leaf.grad, gradient, rtol=0.02, atol=0.02)  # bf16 keeps 8 bits


def test_no_tokens_give_zero_gradients(hidden_ND):
    head = head_of("all")
    scores = token_scores(hidden_ND[:0], head, torch.empty(0, dtype=torch.long))
    scores.logps_N.sum().backward()
    for leaf in leaves(head, hidden_ND):
        assert not leaf.grad.any()


@pytest.mark.parametrize("chunks", [1, 8])
def test_logits_of_one_chunk_exist_at_a_time(chunks: int, monkeypatch: pytest.MonkeyPatch, target_N, hidden_ND):
    seen: list[int] = []
    places: set[int] = set()
    made = logps._Chunks.logits_and_softmax

    def counted(self: logps._Chunks, place: slice) -> tuple[Tensor, Tensor]:
        both = made(self, place)
        seen.append(len(both[0]))
        places.update(x.data_ptr() for x in both)
        return both

    monkeypatch.setattr(logps._Chunks, "logits_and_softmax", counted)
    size = -(-N // chunks)
    token_scores(hidden_ND, head_of("plain"), target_N, size).logps_N.sum().backward()
    assert len(places) <= 4  # two buffers for all chunks of a pass
    # One chunk keeps its softmax; several are made again in the backward pass.
    assert sum(seen) == (N if chunks == 1 else 2 * N) and max(seen) == size


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_vocabulary(target_N, hidden_ND):
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        token_scores(hidden_ND, head_of("plain"), target_N, 5)
    assert max(kept) == max(N * D, V * D)  # hidden states and weights, no logits


def test_the_default_chunk_follows_the_vocabulary():
    cpu = torch.device("cpu")
    most = 2**27 // (4 * 4096)  # positions whose logits take 128 MiB
    assert logps.default_chunk_size(most, 4096, cpu) == most
    assert logps.default_chunk_size(most + 1, 4096, cpu) == most // 2  # 64 MiB
    assert logps.default_chunk_size(1000, 152_000, cpu) == 2**26 // (4 * 152_000)
    assert logps.default_chunk_size(2, 2**40, cpu) == 1


def test_on_cuda_the_default_chunk_follows_the_memory(monkeypatch: pytest.MonkeyPatch):
    def with_memory(gigabytes: int) -> int:
        properties = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return logps.default_chunk_size(10**9, 4096, torch.device("cuda"))

    row = 4 * 4096
    assert with_memory(24) == 2**27 // row  # a 128th is 192 MiB, rounded down to a power of two
    assert with_memory(1) == 2**26 // row  # never less than 64 MiB
    assert with_memory(4096) == 2**30 // row  # never more than a GiB
