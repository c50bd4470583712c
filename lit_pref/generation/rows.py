"""The rows of a batch while it is decoded: what a model keeps of each, and what it says comes next.

`SlotRows` (`slots.py`) takes prompts in at any step, beside rows that go on. Those here start together and have one
length: `CachedRows` keeps keys and values; `RecomputedRows` keeps only tokens and runs the whole row at every step:
exact for models whose state cannot be split between rows (recurrent and hybrid ones), and slower by the length of a
completion.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lit_pref.models import forget_length, rope_regime

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Ids = Sequence[int]


class Rows(ABC):
    """R rows of tokens under a model.

    A step: `keep` what goes on, `add` prompts, each without its last token, then `step` with the next token of each
    row, which of a new row is its prompt's last.
    joins: whether prompts may be added beside rows that go on; else only where there are none.
    """

    joins: ClassVar[bool] = False

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model = model

    @abstractmethod
    def keep(self, parent_R: Sequence[int]) -> list[int]:
        """Replace the rows by copies of some, which may be none, one or several of each; where each stands now."""

    @abstractmethod
    def add(self, prompts: Sequence[Ids]) -> None:
        """Rows behind those that there are."""

    @abstractmethod
    def step(self, token_R: Sequence[int]) -> Tensor:
        """One more token for each row; logits after it, [R, V] in fp32."""


class _RowsOfOneLength(Rows):
    """All tokens are kept, padded on the left where prompts are of unlike length."""

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__(model)
        self._ids_RT = torch.zeros(0, 0, dtype=torch.long, device=model.device)
        self._attended_RT: Tensor | None = None  # True where a token stands; None where no row is padded

    def keep(self, parent_R: Sequence[int]) -> list[int]:
        parents = torch.tensor(parent_R, dtype=torch.long, device=self._ids_RT.device)
        self._ids_RT = self._ids_RT[parents]
        if self._attended_RT is not None:
            self._attended_RT = self._attended_RT[parents]
        return list(range(len(parent_R)))

    def add(self, prompts: Sequence[Ids]) -> None:
        assert not len(self._ids_RT), "rows of one length start together"
        device, width = self._ids_RT.device, max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        ids = [[0] * pad + list(prompt) for prompt, pad in zip(prompts, padding, strict=True)]
        self._ids_RT = torch.tensor(ids, dtype=torch.long, device=device)
        self._attended_RT = None
        if any(padding):
            self._attended_RT = torch.arange(width, device=device) >= torch.tensor(padding, device=device)[:, None]

    def step(self, token_R: Sequence[int]) -> Tensor:
        token_R1 = torch.tensor(token_R, device=self._ids_RT.device)[:, None]
        self._ids_RT = torch.cat([self._ids_RT, token_R1], 1)
        if self._attended_RT is not None:
            self._attended_RT = torch.cat([self._attended_RT, self._attended_RT.new_ones(len(token_R), 1)], 1)
        return self._forward()

    @abstractmethod
    def _forward(self) -> Tensor:
        """Logits after the rows as they are."""


class CachedRows(_RowsOfOneLength):
    """Keys and values of what the model has seen are kept."""

    _cache: Any = None  # a transformers Cache after the first forward pass
    _seen = 0  # columns in it

    def keep(self, parent_R: Sequence[int]) -> list[int]:
        if not parent_R:
            self._forget()
        elif self._cache is not None:
            self._cache.batch_select_indices(torch.tensor(parent_R, device=self._ids_RT.device))
        return super().keep(parent_R)

    def _forget(self) -> None:
        self._cache, self._seen = None, 0

    def _forward(self) -> Tensor:
        width = self._ids_RT.shape[1]
        if rope_regime(self._model, width) != rope_regime(self._model, self._seen):
            self._forget()  # what is kept was rotated otherwise
        if self._cache is None:
            forget_length(self._model)
        new_RT = self._ids_RT[:, self._seen :]
        places = self._places(new_RT.shape[1])
        out = _last(self._model, input_ids=new_RT, **places, past_key_values=self._cache, use_cache=True)
        self._cache, self._seen = out.past_key_values, width
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


class RecomputedRows(_RowsOfOneLength):
    """The whole row at every step; prompts must be of one length, since a state runs over padding too."""

    def _forward(self) -> Tensor:
        forget_length(self._model)
        logits_RV: Tensor = _last(self._model, input_ids=self._ids_RT, use_cache=False).logits[:, -1].float()
        return logits_RV


def _last(model: "PreTrainedModel", **inputs: Any) -> Any:
    """What the model gives, with the last column's logits alone if it knows how to."""
    if not _keeps_some(type(model).forward):
        return model(**inputs)
    # The last columns of many lie apart, and torch's bf16 product on CPUs then copies the head's weights for each row.
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    try:
        return model(**inputs, logits_to_keep=1)
    finally:
        handle.remove()


@cache
def _keeps_some(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
