"""Samples that are decoded side by side: they join where there is room, share a row until they part, leave as they end.

Samples of a prompt that agree so far have the same state, so they are one row: each step draws a token for every sample
that is going (A of them) from its row's distribution (R rows).
"""

import random
from collections import deque
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.generation.draws import draw
from lit_pref.generation.rows import Ids, Rows
from lit_pref.types import Completion, Drawn, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROOM = 1 / 8  # of a batch, before the next prompts join: each forward pass of prompts has its own cost


class Limits(NamedTuple):
    """How samples are drawn, the tokens that end one, and the tokens that are held side by side."""

    sampling: Sampling
    stop_ids: Set[int]
    max_tokens: int


@dataclass(slots=True)
class _Sample:
    """numbers: which of the prompt's samples it is; greedy decoding makes all of them at once."""

    prompt: int
    numbers: list[int]
    uniform: random.Random
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class Batch:
    """Decodes what is waiting, step by step.

    encoded: every prompt's tokens.
    waiting: prompts, shortest first, each with the numbers of the samples to draw.
    """

    def __init__(
        self,
        rows: Rows,
        encoded: Sequence[Ids],
        waiting: Iterable[tuple[int, list[int]]],
        limits: Limits,
        tokenizer: "PreTrainedTokenizerBase",
        seed: int,
    ) -> None:
        self._rows, self._encoded, self._waiting, self._limits = rows, encoded, deque(waiting), limits
        self._tokenizer, self._seed = tokenizer, seed
        self._going: list[_Sample] = []
        self._row_A: list[int] = []
        self._token_R: list[int] = []
        self.drawn = 0  # tokens of the last step

    @property
    def unfinished(self) -> bool:
        return bool(self._waiting or self._going)

    def step(self) -> list[Drawn]:
        """A token for each sample; what ended by it."""
        self._join()
        logits_RV = self._rows.step(self._token_R)
        self._check(logits_RV)
        sampling, device = self._limits.sampling, logits_RV.device
        uniform_A = torch.tensor([sample.uniform.random() for sample in self._going], dtype=torch.float64)
        drawn = draw(logits_RV, torch.tensor(self._row_A, device=device), sampling, uniform_A)
        for sample, token, logp in zip(self._going, *drawn, strict=True):
            sample.tokens.append(token)
            sample.logps.append(logp)
        self.drawn = len(self._going)
        ended = self._ended()
        self._go_on([place for place in range(len(self._going)) if place not in ended])
        return [
            Drawn(sample.prompt, number, completion)
            for sample, completion in ended.values()
            for number in sample.numbers
        ]

    def _join(self) -> None:
        """Take in prompts as long as there is room for all their samples, or for some of more than ever have room."""
        if self._going and not self._rows.joins:
            return
        sampling, joined = self._limits.sampling, list[int]()
        while self._waiting:
            prompt, numbers = self._waiting[0]
            limit = max(1, self._limits.max_tokens // (len(self._encoded[prompt]) + sampling.max_new_tokens))
            wanted = 1 if sampling.temperature == 0 else min(len(numbers), limit)
            room = limit - len(self._going)
            if room < wanted or (not joined and self._going and room < limit * _ROOM):
                break
            samples = [numbers] if sampling.temperature == 0 else [[number] for number in numbers[:wanted]]
            self._waiting.popleft()
            if left := numbers[sum(map(len, samples)) :]:
                self._waiting.appendleft((prompt, left))
            for several in samples:
                uniform = random.Random(f"{self._seed}:{prompt}:{several[0]}")
                self._going.append(_Sample(prompt, several, uniform))
                self._row_A.append(len(self._token_R))
            self._token_R.append(self._encoded[prompt][-1])
            joined.append(prompt)
        if joined:
            self._rows.add([self._encoded[prompt][:-1] for prompt in joined])

    def _go_on(self, places: list[int]) -> None:
        """Keep the samples at these places, and give those that have parted rows of their own."""
        rows = dict[tuple[int, int], int]()  # the row and the token that each next row goes on from
        going = [self._going[place] for place in places]
        row_A = [rows.setdefault((self._row_A[place], self._going[place].tokens[-1]), len(rows)) for place in places]
        stands_R = self._rows.keep([row for row, _ in rows])
        self._token_R = [0] * len(rows)
        for stands, (_, token) in zip(stands_R, rows, strict=True):
            self._token_R[stands] = token
        self._going, self._row_A = going, [stands_R[row] for row in row_A]

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _ended(self) -> dict[int, tuple[_Sample, Completion]]:
        """By place: those whose last token, or the text that it completes, is an end, and those at their longest."""
        sampling, stop_ids = self._limits.sampling, self._limits.stop_ids
        at_stop = self._at_stop_text()
        over = [
            place
            for place, sample in enumerate(self._going)
            if sample.tokens[-1] in stop_ids or place in at_stop or len(sample.tokens) == sampling.max_new_tokens
        ]
        by_id = {place for place in over if self._going[place].tokens[-1] in stop_ids}
        texts = self._decode([self._going[place].tokens[: -1 if place in by_id else None] for place in over])
        ended = {}
        for place, text in zip(over, texts, strict=True):
            sample = self._going[place]
            finished = place in by_id or place in at_stop
            completion = Completion(at_stop.get(place, text), tuple(sample.tokens), tuple(sample.logps), finished)
            ended[place] = sample, completion
        return ended

    def _at_stop_text(self) -> dict[int, str]:
        """The text before the first stop text, of each sample whose last token completes one."""
        stops = self._limits.sampling.stop
        if not stops:
            return {}
        # A token holds a byte at least, so that the end of a stop text stands in so many last tokens.
        last = max(len(stop.encode()) for stop in stops) + 4
        tails = self._decode([sample.tokens[-last:] for sample in self._going])
        near = [place for place, tail in enumerate(tails) if any(stop in tail for stop in stops)]
        whole = self._decode([self._going[place].tokens for place in near])
        ends = {
            place: min((text.find(stop) for stop in stops if stop in text), default=None)
            for place, text in zip(near, whole, strict=True)
        }
        return {place: text[: ends[place]] for place, text in zip(near, whole, strict=True) if ends[place] is not None}

    def _decode(self, ids: list[list[int]]) -> list[str]:
        texts: list[str] = []
        if ids:
            texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return texts

    def _check(self, logits_RV: Tensor) -> None:
        """Raise UserError, naming the prompt, where no token is likelier than another: NaN, or nothing but −inf."""
        largest_R = logits_RV.amax(-1)
        if bool(largest_R.isfinite().all()):
            return
        broken = set((~largest_R.isfinite()).nonzero()[:, 0].tolist())
        first = next(place for place, row in enumerate(self._row_A) if row in broken)
        raise UserError(
            f"prompt {self._going[first].prompt}: the model's largest logit is "
            f"{largest_R[self._row_A[first]].item()}, so that no token can be drawn: do its weights hold NaN, or does "
            "its precision overflow? Load it in fp32, or take an earlier checkpoint"
        )
