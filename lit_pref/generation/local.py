"""Completions from a causal LM in this process: batched, KV cache, several samples from one prefill, seeded.

Any Hugging Face causal LM works, wherever it lies (CPU or GPU), without changing its weights or mode, in the fastest
way that is exact for it (`decoding`); recurrent and hybrid ones without a cache, hence slowly.
Not covered: speculative decoding, beam search, stop strings, sharded models (a server does those better).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.generation.decoding import decoding
from lit_pref.generation.rows import Prompts, Rows
from lit_pref.models import check_vocabulary, evaluating
from lit_pref.types import Completion, Generator, Sampling, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
"""Called with (completions done, completions in all)."""


_QUIET = 5.0  # seconds without a word of how far a batch is


@dataclass
class LocalGenerator(Generator):
    """Samples from `model`.

    encode: a prompt's tokens; the same function that training tokenizes prompts with.
    batch_size: sequences decoded side by side.
    on_progress: told after each batch how far it is, and every few seconds within a long one, by its steps.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    encode: "Callable[[Text, PreTrainedTokenizerBase], Sequence[int]]"
    batch_size: int = 1024
    on_progress: Progress | None = None

    def generate(self, prompts: Sequence[Text], samples: int, sampling: Sampling, seed: int) -> list[list[Completion]]:
        """`samples` completions for each prompt, in order; the same arguments give the same completions.

        Greedy decoding (temperature 0) gives one completion a prompt, whatever `samples` says it is to be copied to.
        Raises UserError for a prompt without tokens, a tokenizer that is larger than the model's embedding, logits that
        are no numbers, and a model that cannot be sampled.
        """
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        distinct = 1 if sampling.temperature == 0 else samples
        check_vocabulary(self.model, self.tokenizer)
        encoded = [tuple(self.encode(prompt, self.tokenizer)) for prompt in prompts]
        if () in encoded:
            raise UserError(f"prompt {encoded.index(())} has no token: expected a prompt with text")
        results: list[list[Completion]] = [[] for _ in prompts]
        done = 0
        with evaluating(self.model), torch.inference_mode():
            way = decoding(self.model)
            groups = way.groups(self.model, list(map(len, encoded)), sampling.max_new_tokens)
            for number, batch in enumerate(self._batches(encoded, groups, max(1, self.batch_size // distinct))):
                # Seeded by batch, so that no batch's draws depend on how long the earlier ones ran; the numbers come
                # from the CPU, where they are the same for every device.
                draws = torch.Generator().manual_seed(seed * 1_000_003 + number)
                rows, size = way.rows(self.model, batch), len(batch.rows) * samples
                tell = partial(self._tell, done, size, len(prompts) * samples)
                sequences = self._decode(batch, rows, distinct, sampling, draws, tell)
                for place, row in enumerate(batch.rows):
                    completions = sequences[place * distinct : (place + 1) * distinct]
                    results[row] = completions * (samples // distinct)
                done += size
                if self.on_progress is not None:
                    self.on_progress(done, len(prompts) * samples)
        return results

    def _tell(self, done: int, size: int, total: int, share: float) -> None:
        """share: of a batch of `size` completions, after the `done` ones of earlier batches."""
        if self.on_progress is not None:
            self.on_progress(done + int(share * size), total)

    def _batches(self, encoded: list[tuple[int, ...]], groups: list[list[int]], size: int) -> "Iterator[Prompts]":
        """Prompts of like length together, so that little is padded."""
        for group in groups:
            for start in range(0, len(group), size):
                yield self._padded(encoded, group[start : start + size])

    def _padded(self, encoded: list[tuple[int, ...]], rows: list[int]) -> Prompts:
        device, width = self.model.device, max(len(encoded[row]) for row in rows)
        padding = [width - len(encoded[row]) for row in rows]
        ids = [[0] * pad + list(encoded[row]) for row, pad in zip(rows, padding, strict=True)]
        attended = None
        if any(padding):
            attended = torch.arange(width, device=device) >= torch.tensor(padding, device=device)[:, None]
        return Prompts(rows, torch.tensor(ids, device=device), attended)

    def _decode(
        self,
        batch: Prompts,
        rows: Rows,
        samples: int,
        sampling: Sampling,
        draws: torch.Generator,
        tell: Callable[[float], None],
    ) -> list[Completion]:
        """The completions of each prompt of the batch, `samples` of each side by side.

        Samples of a prompt that agree so far have the same state, so they are one row until they part: each step draws
        a token for every sample still going (A of them) from its row's distribution (R rows).
        """
        device, prompts = batch.input_ids.device, len(batch.rows)
        stops = torch.tensor(sorted(self.stop_ids), device=device)
        tokens_ST = torch.zeros(prompts * samples, sampling.max_new_tokens, dtype=torch.long, device=device)
        logps_ST = torch.zeros(prompts * samples, sampling.max_new_tokens, device=device)
        count_S = torch.zeros(prompts * samples, dtype=torch.long, device=device)
        finished_S = torch.zeros_like(count_S, dtype=torch.bool)

        logits_RV = rows.start()
        sample_A = torch.arange(prompts * samples, device=device)
        row_A = sample_A // samples
        told = time.monotonic()
        for step in range(sampling.max_new_tokens):
            if time.monotonic() - told > _QUIET:
                told = time.monotonic()
                tell(step / sampling.max_new_tokens)
            _check_logits(logits_RV, batch.rows, sample_A, row_A, samples)
            token_A = _draw(logits_RV, row_A, sampling, draws)
            tokens_ST[sample_A, step] = token_A
            logps_ST[sample_A, step] = logits_RV.log_softmax(-1)[row_A, token_A]
            count_S[sample_A] = step + 1
            going_A = ~torch.isin(token_A, stops)
            finished_S[sample_A[~going_A]] = True
            if step + 1 == sampling.max_new_tokens or not going_A.any():
                break
            sample_A, vocabulary = sample_A[going_A], logits_RV.shape[1]
            branch_R, row_A = torch.unique((row_A * vocabulary + token_A)[going_A], return_inverse=True)
            logits_RV = rows.branch(branch_R // vocabulary, branch_R % vocabulary)
        return self._completions(tokens_ST, logps_ST, count_S, finished_S)

    def _completions(self, tokens: Tensor, logps: Tensor, count: Tensor, finished: Tensor) -> list[Completion]:
        rows = zip(tokens.tolist(), logps.tolist(), count.tolist(), finished.tolist(), strict=True)
        cut = [(ids[:n], scores[:n], ended) for ids, scores, n, ended in rows]
        bodies = [ids[:-1] if ended else ids for ids, _, ended in cut]
        texts = self.tokenizer.batch_decode(bodies, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [
            Completion(text, tuple(ids), tuple(scores), ended)
            for text, (ids, scores, ended) in zip(texts, cut, strict=True)
        ]

    @property
    def stop_ids(self) -> set[int]:
        """Tokens that end a completion: the tokenizer's EOS and those of the model's generation config."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        several = configured if isinstance(configured, list) else [configured]
        return {stop for stop in [*several, self.tokenizer.eos_token_id] if stop is not None}


def _check_logits(logits_RV: Tensor, prompts: list[int], sample_A: Tensor, row_A: Tensor, samples: int) -> None:
    """Raise UserError, naming the prompt, where no token is likelier than another: NaN, or nothing but −inf."""
    largest_R = logits_RV.amax(-1)
    if not bool(largest_R.isfinite().all()):
        first = int((~largest_R.isfinite()[row_A]).nonzero()[0])
        raise UserError(
            f"prompt {prompts[int(sample_A[first]) // samples]}: the model's largest logit is "
            f"{largest_R[row_A[first]].item()}, so that no token can be drawn: do its weights hold NaN, or does its "
            "precision overflow? Load it in fp32, or take an earlier checkpoint"
        )


def _draw(logits_RV: Tensor, row_A: Tensor, sampling: Sampling, draws: torch.Generator) -> Tensor:
    """A token for each sample from its row's distribution, [A]."""
    if sampling.temperature == 0:
        return logits_RV.argmax(-1)[row_A]
    device = logits_RV.device
    if device.type == "mps":  # has no float64
        logits_RV, row_A = logits_RV.cpu(), row_A.cpu()
    probs_RV = (logits_RV / sampling.temperature).softmax(-1).double()
    if sampling.top_p < 1:
        descending_RV, order_RV = probs_RV.sort(-1, descending=True)
        # A token stays if the mass before it has not yet reached top_p; so the likeliest always does.
        is_outside_RV = descending_RV.cumsum(-1) - descending_RV >= sampling.top_p
        probs_RV = torch.zeros_like(probs_RV).scatter(-1, order_RV, descending_RV.masked_fill(is_outside_RV, 0.0))
    # Inverse transform for all rows at once: row r's cumulative distribution lies in (r, r + 1] of one sorted line.
    cumulative_RV = probs_RV.cumsum(-1)
    cumulative_RV /= cumulative_RV[:, -1:].clone()
    line = (cumulative_RV + torch.arange(len(probs_RV), device=probs_RV.device)[:, None]).flatten()
    uniform_A = torch.rand(len(row_A), generator=draws, dtype=torch.float64).to(line.device)
    return (torch.searchsorted(line, row_A + uniform_A, right=True) - row_A * probs_RV.shape[1]).to(device)
