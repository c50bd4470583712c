"""The rows of a batch while it is decoded: what a model keeps of each, and what it says comes next.

`CachedRows` keeps keys and values. `RecomputedRows` keeps tokens alone and runs the whole row at every step: exact for
models whose state cannot be split between rows (recurrent and hybrid ones), and slower by the length of a completion.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Prompts(NamedTuple):
    """One batch: its prompts' places in the caller's list, and their tokens, padded on the left."""

    rows: list[int]
    input_ids: Tensor
    attended: Tensor | None  # True where a token stands; None where no row is padded


class Rows(ABC):
    """R rows of tokens under a model."""

    @abstractmethod
    def start(self) -> Tensor:
        """Logits of the token after each prompt, [R, V] in fp32."""

    @abstractmethod
    def branch(self, parent_R: Tensor, token_R: Tensor) -> Tensor:
        """Replace the rows by continuations of theirs, each `parent` with one `token` more; logits after it, [R, V]."""


class CachedRows(Rows):
    """One token a step, keys and values of the others kept."""

    def __init__(self, model: "PreTrainedModel", prompts: Prompts) -> None:
        self._model, self._prompts = model, prompts
        self._cache: Any = None  # a transformers Cache after the first forward pass
        self._attended_RT = prompts.attended
        if prompts.attended is None:
            self._position_RT = torch.arange(prompts.input_ids.shape[1], device=prompts.input_ids.device)[None]
        else:
            self._position_RT = (prompts.attended.long().cumsum(1) - 1).clamp(min=0)

    def start(self) -> Tensor:
        logits_RV = self._forward(self._prompts.input_ids)
        self._position_RT = self._position_RT[:, -1:].expand(len(self._prompts.rows), 1)
        return logits_RV

    def branch(self, parent_R: Tensor, token_R: Tensor) -> Tensor:
        self._cache.batch_select_indices(parent_R)
        self._position_RT = self._position_RT[parent_R] + 1
        if self._attended_RT is not None:
            seen_RT = self._attended_RT[parent_R]
            self._attended_RT = torch.cat([seen_RT, seen_RT.new_ones(len(parent_R), 1)], 1)
        return self._forward(token_R[:, None])

    def _forward(self, input_ids: Tensor) -> Tensor:
        out = self._model(
            input_ids=input_ids,
            attention_mask=None if self._attended_RT is None else self._attended_RT.long(),
            position_ids=self._position_RT,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        logits_RV: Tensor = out.logits[:, -1].float()
        return logits_RV


class RecomputedRows(Rows):
    """The whole row at every step; prompts must be of one length, since a state runs over padding too."""

    def __init__(self, model: "PreTrainedModel", prompts: Prompts) -> None:
        assert prompts.attended is None
        self._model, self._ids_RT = model, prompts.input_ids

    def start(self) -> Tensor:
        return self._forward()

    def branch(self, parent_R: Tensor, token_R: Tensor) -> Tensor:
        self._ids_RT = torch.cat([self._ids_RT[parent_R], token_R[:, None]], 1)
        return self._forward()

    def _forward(self) -> Tensor:
        logits_RV: Tensor = self._model(input_ids=self._ids_RT, use_cache=False).logits[:, -1].float()
        return logits_RV
