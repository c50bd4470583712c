"""The rows of a batch while it is decoded: what a model keeps of each, and what it says comes next.

`CachedRows` keeps keys and values. `RecomputedRows` keeps only tokens and runs the whole row at every step: exact for
models whose state cannot be split between rows (recurrent and hybrid ones), and slower by the length of a completion.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_pref.models import forget_length, rope_regime

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Prompts(NamedTuple):
    """One batch: its prompts' places in the caller's list, and their tokens, padded on the left."""

    rows: list[int]
    input_ids: Tensor
    attended: Tensor | None  # True where a token stands; None where no row is padded


class Rows(ABC):
    """R rows of tokens under a model; one of unlike length are padded on the left where `attended` says so."""

    def __init__(self, model: "PreTrainedModel", prompts: Prompts) -> None:
        self._model, self._ids_RT, self._attended_RT = model, prompts.input_ids, prompts.attended

    @abstractmethod
    def start(self) -> Tensor:
        """Logits of the token after each prompt, [R, V] in fp32."""

    def branch(self, parent_R: Tensor, token_R: Tensor) -> Tensor:
        """Replace the rows by continuations of theirs, each `parent` with one `token` more; logits after it, [R, V]."""
        self._ids_RT = torch.cat([self._ids_RT[parent_R], token_R[:, None]], 1)
        if self._attended_RT is not None:
            seen_RT = self._attended_RT[parent_R]
            self._attended_RT = torch.cat([seen_RT, seen_RT.new_ones(len(parent_R), 1)], 1)
        return self._go_on(parent_R)

    @abstractmethod
    def _go_on(self, parent_R: Tensor) -> Tensor:
        """Logits after the rows as they are, each of which was the row `parent` a token ago."""


class CachedRows(Rows):
    """One token a step, keys and values of the others kept."""

    _cache: Any = None  # a transformers Cache after the first forward pass

    def start(self) -> Tensor:
        return self._forward(self._ids_RT)

    def _go_on(self, parent_R: Tensor) -> Tensor:
        width = self._ids_RT.shape[1]
        if rope_regime(self._model, width) != rope_regime(self._model, width - 1):  # what is kept was rotated otherwise
            self._cache = None
            return self._forward(self._ids_RT)
        self._cache.batch_select_indices(parent_R)
        return self._forward(self._ids_RT[:, -1:])

    def _forward(self, input_ids: Tensor) -> Tensor:
        if self._cache is None:
            forget_length(self._model)
        out = self._model(
            input_ids=input_ids, **self._places(input_ids.shape[1]), past_key_values=self._cache, use_cache=True,
            **_last_alone(self._model),
        )  # fmt: skip
        self._cache = out.past_key_values
        logits_RV: Tensor = out.logits[:, -1].float()
        return logits_RV

    def _places(self, new: int) -> dict[str, Tensor | None]:
        """The columns that a row sees, and the positions of its newest tokens."""
        if self._attended_RT is None:
            width = self._ids_RT.shape[1]
            position_RT = torch.arange(width, device=self._ids_RT.device).expand(len(self._ids_RT), -1)
            return {"attention_mask": None, "position_ids": position_RT[:, -new:]}
        attended_RT = self._attended_RT.long()
        return {"attention_mask": attended_RT, "position_ids": (attended_RT.cumsum(1) - 1).clamp(min=0)[:, -new:]}


class UnplacedRows(CachedRows):
    """The same of prompts of one length, whose places the model counts in its own way (RoBERTa's start at 2)."""

    def _places(self, new: int) -> dict[str, Tensor | None]:
        return {}


class RecomputedRows(Rows):
    """The whole row at every step; prompts must be of one length, since a state runs over padding too."""

    def start(self) -> Tensor:
        return self._forward()

    def _go_on(self, parent_R: Tensor) -> Tensor:
        return self._forward()

    def _forward(self) -> Tensor:
        forget_length(self._model)
        out = self._model(input_ids=self._ids_RT, use_cache=False, **_last_alone(self._model))
        logits_RV: Tensor = out.logits[:, -1].float()
        return logits_RV


def _last_alone(model: "PreTrainedModel") -> dict[str, int]:
    """Have the model make only the last column's logits, if it knows how to."""
    return {"logits_to_keep": 1} if _keeps_some(type(model).forward) else {}


@cache
def _keeps_some(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
