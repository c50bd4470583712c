"""A policy by its name as a generator that can be sent to another process, which opens it there, once.

Not covered: a model that needs more than one device (a server or vLLM holds it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.generation.local import LocalGenerator
from lit_pref.models import load_causal_lm, load_tokenizer, weights_fingerprint
from lit_pref.types import Completion, Generator, Sampling, Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _Opened(NamedTuple):
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    weights: str


@dataclass(frozen=True)
class PolicyGenerator(Generator):
    """Samples from an embedded model, a model folder or a hub id, in this process.

    Args:
        policy: its name.
        batch_size: sequences decoded side by side; a part of what is drawn.
    """

    policy: str
    batch_size: int = 32

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """As `LocalGenerator.generate`; Raises UserError where the policy cannot be opened."""
        model, tokenizer, _ = _open(self.policy)
        return LocalGenerator(model, tokenizer, tokenize_prompt, self.batch_size).generate(
            prompts, samples, sampling, seed
        )

    @property
    def weights(self) -> str:
        """The fingerprint of its weights, which tells it apart whatever it is called."""
        return _open(self.policy).weights


@lru_cache(maxsize=1)  # the next policy takes the place of the last one in memory
def _open(policy: str) -> _Opened:
    model, tokenizer = load_causal_lm(policy), load_tokenizer(policy)
    weights = weights_fingerprint(model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return _Opened(model, tokenizer, weights)
