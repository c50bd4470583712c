"""What a data module asks of the policy that it makes tokens for: a module in a fit, or only a policy's name."""

from functools import cached_property
from typing import Any, Protocol

import torch

from lit_pref.models import load_causal_lm, load_tokenizer, saved_append_eos
from lit_pref.models.compute import row_layout
from lit_pref.types import RowLayout


class PolicyModule(Protocol):
    """Its model and tokenizer, how it lays out batches, whether EOS ends a completion, and whether a loss of its is a
    mean over imitated tokens."""

    @property
    def model(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def policy(self) -> str: ...
    @property
    def row_layout(self) -> RowLayout: ...
    @property
    def append_eos(self) -> bool: ...
    @property
    def averages_tokens(self) -> bool: ...


class NamedPolicy:
    """A policy by its name, for a look at data without a module: tokens and batches are those of a fit.

    The model has no weights: those are only loaded where completions are sampled.
    """

    averages_tokens = True  # whoever takes the batches may be one that does

    def __init__(self, policy: str) -> None:
        self.policy, self.tokenizer = policy, load_tokenizer(policy)

    @cached_property
    def model(self) -> Any:
        with torch.device("meta"):
            return load_causal_lm(self.policy, random_init=True)

    @property
    def row_layout(self) -> RowLayout:
        return row_layout(self.model, "auto")

    @property
    def append_eos(self) -> bool:
        return saved_append_eos(self.model)
