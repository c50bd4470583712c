"""A policy by its name: opened here, or as a generator that is sent to another process, which opens it there, once.

Not covered: a model that needs more than one device (a server or vLLM holds it).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.generation.local import MAX_TOKENS, LocalGenerator
from lit_pref.machine.processors import tell_slow_bf16
from lit_pref.models import load_causal_lm, load_tokenizer, round_weights, weights_fingerprint
from lit_pref.types import Completion, Drawn, Dtype, Generator, Sampling, Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class OpenPolicy(NamedTuple):
    """A policy on its device. weights: their fingerprint, which tells it apart whatever it is called."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    weights: str

    def generator(self, max_tokens_per_batch: int = MAX_TOKENS) -> LocalGenerator:
        return LocalGenerator(self.model, self.tokenizer, tokenize_prompt, max_tokens_per_batch)


def open_policy(
    policy: str,
    model: "PreTrainedModel | None" = None,
    device: torch.device | str | None = None,
    dtype: Dtype = "float32",
) -> OpenPolicy:
    """A policy by its name; Raises UserError where it cannot be opened.

    model: trained from it, in its place; it is rounded to `dtype` too.
    device: None is the first GPU, or the CPU where there is none.
    """
    model, tokenizer = model or load_causal_lm(policy, dtype=dtype), load_tokenizer(policy)
    round_weights(model, dtype)
    weights = weights_fingerprint(model)
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype == "bfloat16" and model.device.type == "cpu":
        tell_slow_bf16("dtype bfloat16")
    return OpenPolicy(model, tokenizer, weights)


_kept_open = lru_cache(maxsize=1)(open_policy)  # the next policy takes the place of the last one in memory


@dataclass(frozen=True)
class PolicyGenerator(Generator):
    """Samples from an embedded model, a model folder, a .gguf file or a hub id, in this process.

    Args:
        policy: its name.
        max_tokens_per_batch: tokens held side by side, as of `LocalGenerator`.
        dtype: of its weights; bfloat16 halves the memory, and the time where the processor multiplies it.
    """

    policy: str
    max_tokens_per_batch: int = field(default=MAX_TOKENS, compare=False)
    dtype: Dtype = "float32"

    @property
    def _open(self) -> OpenPolicy:
        return _kept_open(self.policy, dtype=self.dtype)

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """As `LocalGenerator.generate`; Raises UserError where the policy cannot be opened."""
        return self._open.generator(self.max_tokens_per_batch).generate(prompts, samples, sampling, seed)

    def each(
        self,
        prompts: Sequence[Text],
        samples: int,
        sampling: Sampling,
        seed: int,
        done: Collection[tuple[int, int]] = (),
    ) -> Iterator[Drawn]:
        """As `LocalGenerator.each`."""
        return self._open.generator(self.max_tokens_per_batch).each(prompts, samples, sampling, seed, done)

    @property
    def weights(self) -> str:
        """The fingerprint of its weights."""
        return self._open.weights
