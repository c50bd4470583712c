"""Every causal LM that transformers has: exact in our layouts and in sampling, or refused by name.

Those that cannot be built small are skipped with the reason (`pytest -m slow -rs`).
"""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lit_pref.data.batches.packing import collate_trees
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.models import check_scoring, lm_head, predictor_hidden_states, sharing_obstacle
from lit_pref.types import Sampling, TokenTree, TreeBatch
from tests.models.tiny_models import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of old architectures' own code

TREES = [
    TokenTree(tuple(range(3, 12)), ((21, 22, 23), (31, 32, 33, 34, 35))),
    TokenTree((50,), ((51, 52, 53, 54, 55, 56), (57,))),
]
LAYOUTS = {
    "repeated": collate_trees([TREES], pad_id=0, shared=False),
    "shared": collate_trees([[tree] for tree in TREES], pad_id=0),
    "packed": collate_trees([TREES], pad_id=0),
}
PROMPTS = ["5 6 7 8 9 10 11", "20", "30 31 32", "40 41 42"]
# Their linear attention goes token by token through Python, at sizes that no field of the config shrinks: minutes each.
HEAVY = {"bailing_hybrid", "kimi_linear"}
CHAOTIC = {"hrm_text"}  # goes through its layers again and again, and blows rounding up: compared in float64


class Ids:
    """A tokenizer of numbers."""

    eos_token_id, pad_token_id = 2, 0

    def __len__(self) -> int:
        return 61

    def batch_decode(self, rows: list[list[int]], **_: object) -> list[str]:
        return [" ".join(map(str, ids)) for ids in rows]


def tokens_of(prompt: str, tokenizer: Ids) -> tuple[int, ...]:
    return tuple(map(int, prompt.split()))


@pytest.fixture(scope="module", params=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    if request.param in HEAVY:
        pytest.skip("takes minutes on a CPU")
    try:
        made = tiny_model(request.param)
    except Exception as error:  # noqa: BLE001 - whatever an architecture asks for
        pytest.skip(f"cannot be built small: {type(error).__name__}: {str(error)[:200]}")
    return made.double() if request.param in CHAOTIC else made


def log_probs(model: PreTrainedModel, batch: TreeBatch) -> Tensor:
    logps_NV = lm_head(model)(predictor_hidden_states(model, batch)).log_softmax(-1)
    return logps_NV.gather(-1, batch.target_N[:, None]).squeeze(-1)


def alone(model: PreTrainedModel, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Tensor:
    """[tokens, V] log-probs from a plain forward pass of one sequence."""
    logits_TV = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
    return logits_TV[len(prompt) - 1 : -1].log_softmax(-1)


def test_log_probs_and_gradients_are_exact_or_refused_by_name(model: PreTrainedModel):
    try:
        check_scoring(model, logps=True, opened=True)
    except UserError as error:
        assert type(model).__name__ in str(error)
        return
    pieces = [
        alone(model, tree.prompt_ids, ids).gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)
        for tree in TREES
        for ids in tree.completion_ids
    ]
    expected_N = torch.cat(pieces)
    obstacle = sharing_obstacle(model)
    if obstacle is not None:
        assert type(model).__name__ in obstacle
        with torch.no_grad():
            assert_close("repeated", log_probs(model, LAYOUTS["repeated"]), expected_N)
        return
    weight = model.get_input_embeddings().weight
    gradient = torch.autograd.grad(expected_N.mean(), weight)[0]
    for layout, batch in LAYOUTS.items():
        logps_N = log_probs(model, batch)
        assert_close(layout, logps_N, expected_N)
        found = torch.autograd.grad(logps_N.mean(), weight)[0]
        assert_close(f"{layout}, gradient", found, gradient, scale=max(1.0, gradient.abs().max().item()))


def assert_close(what: str, found: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    # Rounding grows with the log-probs, which are in the tens where an architecture scales its logits up (MiniCPM 3).
    off = ((found - expected).abs() - 1e-6 * expected.abs()).max().item()
    assert off <= 1e-5 * scale, f"{what}: off by {off}"


def test_sampling_is_exact_or_refused_by_name(model: PreTrainedModel):
    try:
        found = LocalGenerator(model, Ids(), tokens_of).generate(PROMPTS, 1, Sampling(0.0, max_new_tokens=6), seed=0)
    except UserError as error:
        assert type(model).__name__ in str(error)
        return
    with torch.no_grad():
        for prompt, (completion,) in zip(PROMPTS, found, strict=True):
            logps_TV = alone(model, tokens_of(prompt, Ids()), completion.token_ids)
            kept_T = logps_TV.gather(-1, torch.tensor(completion.token_ids)[:, None]).squeeze(-1)
            tolerance = 1e-3 if model.dtype == torch.float64 else 1e-5  # kept log-probs are fp32
            assert (torch.tensor(completion.logps) - kept_T).abs().max() <= tolerance
            assert (logps_TV.amax(-1) - kept_T).max() <= tolerance  # the likeliest token, but for ties
