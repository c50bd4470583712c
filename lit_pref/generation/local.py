"""Completions from a causal LM in this process: batched, KV cache, several samples from one prefill, seeded.

Any Hugging Face causal LM works, wherever it lies (CPU or GPU), without changing its weights or mode, in the fastest
way that is exact for it (`decoding`): where the model allows it, a sample that ends makes room for the next prompt;
recurrent and hybrid models go without a cache, hence slowly.
Not covered: speculative decoding, beam search, sharded models (a server does those better).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_pref.errors import UserError
from lit_pref.generation.batch import Batch, Limits
from lit_pref.generation.decoding import decoding
from lit_pref.models import check_vocabulary, evaluating
from lit_pref.types import Completion, Drawn, Generator, Sampling, Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
"""Called with (completions done, tokens drawn) so far."""

MAX_TOKENS = 65_536
"""Held side by side unless told otherwise: 90 completions of 500 tokens, 1 to 3 GB of keys and values at 0.5B."""

_QUIET = 5.0  # seconds without a word of how far it is


@dataclass
class LocalGenerator(Generator):
    """Samples from `model`.

    encode: a prompt's tokens; the same function that training tokenizes prompts with.
    max_tokens_per_batch: tokens held side by side; a completion counts with its prompt and the most that it may take.
    on_progress: told whenever completions end, and every few seconds between.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    encode: "Callable[[Text, PreTrainedTokenizerBase], Sequence[int]]"
    max_tokens_per_batch: int = MAX_TOKENS
    on_progress: Progress | None = None

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """`samples` completions for each prompt, in order; the same arguments give the same completions.

        Greedy decoding (temperature 0) makes one completion a prompt and copies it.
        Raises UserError for a prompt without tokens, a tokenizer that is larger than the model's embedding, logits that
        are no numbers, and a model that cannot be sampled.
        """
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        drawn = {(each.prompt, each.sample): each.completion for each in self.each(prompts, samples, sampling, seed)}
        return [[drawn[prompt, sample] for sample in range(samples)] for prompt in range(len(prompts))]

    def each(
        self,
        prompts: Sequence[Text],
        samples: int,
        sampling: Sampling,
        seed: int,
        done: Collection[tuple[int, int]] = (),
    ) -> Iterator[Drawn]:
        """As `Generator.each`, and truly one by one; raises as `generate`.

        What a sample is depends on its seed, prompt and number, and but for rounding on no other one beside it.
        """
        check_vocabulary(self.model, self.tokenizer)
        encoded = [tuple(self.encode(prompt, self.tokenizer)) for prompt in prompts]
        if () in encoded:
            raise UserError(f"prompt {encoded.index(())} has no token: expected a prompt with text")
        left, skipped = defaultdict[int, list[int]](list), set(done)
        for prompt in range(len(prompts)):
            for sample in range(samples):
                if (prompt, sample) not in skipped:
                    left[prompt].append(sample)
        lengths = {prompt: len(encoded[prompt]) for prompt in left}
        tokens = ended = 0
        told = time.monotonic()
        for group in decoding(self.model).groups(self.model, lengths, sampling.max_new_tokens):
            waiting = [(prompt, left[prompt]) for prompt in group.prompts]
            limits = Limits(sampling, self.stop_ids, self.max_tokens_per_batch)
            batch = Batch(group.rows(self.model), encoded, waiting, limits, self.tokenizer, seed)
            while batch.unfinished:
                # Not around the whole: whoever takes the completions must not find gradients switched off.
                with evaluating(self.model), torch.inference_mode():
                    found = batch.step()
                tokens, ended = tokens + batch.drawn, ended + len(found)
                if self.on_progress is not None and (found or time.monotonic() - told > _QUIET):
                    told = time.monotonic()
                    self.on_progress(ended, tokens)
                yield from found

    @property
    def stop_ids(self) -> set[int]:
        """Tokens that end a completion: the tokenizer's EOS and those of the model's generation config."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        several = configured if isinstance(configured, list) else [configured]
        return {stop for stop in [*several, self.tokenizer.eos_token_id] if stop is not None}
