"""Rows of unlike length and age in one batch: a row that ends makes room for the next prompt (continuous batching).

Rows of one prompt share its keys and values (`slot_cache`, `slot_attention`), so that it is read once for all.
Not covered: models whose layers take no attention but their own, and state that is no keys and values (`rows.py`).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from lit_pref.generation.rows import Ids, Rows
from lit_pref.generation.slot_attention import RowMask, Sharing
from lit_pref.generation.slot_cache import Slots, aligned
from lit_pref.models.attention.tree_attention import attend_by_tree, masks_by_window
from lit_pref.models.attention.tree_kernels import trees_alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFILL = 4096  # tokens of prompts in one forward pass


class SlotRows(Rows):
    """A slot a row, the first R of them in use, and a slot a prompt."""

    joins = True

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__(model)
        self._slots = Slots()
        self._own_R: list[int] = []  # tokens that a row has of its own
        self._prompt_R: list[int] = []  # the slot of its prompt
        self._length_P: list[int] = []  # tokens of the prompt in each slot, whether rows still go on from it or not

    def keep(self, parent_R: Sequence[int]) -> list[int]:
        """A row stays in its slot if that is one of those in use afterwards; the others move or are copied there."""
        count, place = len(parent_R), dict[int, int]()
        stays = dict[int, int]()
        for row, parent in enumerate(parent_R):
            if parent < count and parent not in stays:
                stays[parent] = place[row] = parent
        free = iter(sorted(set(range(count)) - set(stays)))
        moves = {row: next(free) for row in range(count) if row not in place}
        place |= moves
        own_R, prompt_R = [0] * count, [0] * count
        for row, parent in enumerate(parent_R):
            own_R[place[row]], prompt_R[place[row]] = self._own_R[parent], self._prompt_R[parent]
        if moves:
            width = max(own_R[slot] for slot in moves.values())
            self._slots.copy([parent_R[row] for row in moves], list(moves.values()), width)
        self._own_R, self._prompt_R = own_R, prompt_R
        return [place[row] for row in range(count)]

    def add(self, prompts: Sequence[Ids]) -> None:
        used = set(self._prompt_R)
        free = [slot for slot in range(len(self._length_P) + len(prompts)) if slot not in used][: len(prompts)]
        self._length_P += [0] * (max(free) + 1 - len(self._length_P))
        for some in _passes(prompts):
            slots, free = free[: len(some)], free[len(some) :]
            width = max(map(len, some))
            if width:
                self._slots.put_prompts(slots, self._prefilled(some, width))
            for slot, prompt in zip(slots, some, strict=True):
                self._length_P[slot] = len(prompt)
                self._prompt_R.append(slot)
                self._own_R.append(0)

    def _prefilled(self, prompts: Sequence[Ids], width: int) -> Cache:
        """Padded on the right, where no token sees it."""
        ids = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
        filled = DynamicCache()
        attend_by_tree(self._model)
        self._model.base_model(
            input_ids=torch.tensor(ids, device=self._model.device),
            position_ids=torch.arange(width, device=self._model.device).expand(len(ids), -1),
            past_key_values=filled,
            use_cache=True,
        )
        return filled

    def step(self, token_R: Sequence[int]) -> Tensor:
        device = self._model.device
        own_R, before_P = torch.tensor(self._own_R, device=device), torch.tensor(self._length_P, device=device)
        prompt_R = torch.tensor(self._prompt_R, device=device)
        position_R = before_P[prompt_R] + own_R
        sharing = Sharing.of(self._prompt_R, device)
        own, before = max(self._own_R) + 1, max(self._length_P[slot] for slot in self._prompt_R)
        own_T, before_T = torch.arange(aligned(own), device=device), torch.arange(aligned(before), device=device)
        before_PT = before_T < before_P[: len(sharing.row_PN), None]

        def mask(window: int | None) -> RowMask:
            seen_RT, before_PNT = own_T <= own_R[:, None], before_PT[:, None]
            if window is not None:
                first_R = position_R - window + 1  # the first position that a row sees
                seen_RT = seen_RT & (own_T >= (first_R - before_P[prompt_R])[:, None])
                before_PNT = before_PNT & (before_T >= first_R[sharing.row_PN][..., None])
            return RowMask.of_rows(self._slots, sharing, seen_RT, before_PNT if before else None, self._own_R)

        self._slots.begin(own_R, own)
        attend_by_tree(self._model)
        with trees_alone():
            out = self._model(
                input_ids=torch.tensor(token_R, device=device)[:, None],
                position_ids=position_R[:, None],
                attention_mask=masks_by_window(self._model, int(position_R.max()) + 1, mask),
                past_key_values=self._slots,
                use_cache=True,
            )
        self._own_R = [length + 1 for length in self._own_R]
        logits_RV: Tensor = out.logits[:, -1].float()
        return logits_RV


def _passes(prompts: Sequence[Ids]) -> Iterator[Sequence[Ids]]:
    """Prompts that go through the model together."""
    start, width = 0, 0
    for end, prompt in enumerate(prompts):
        width = max(width, len(prompt))
        if end > start and (end + 1 - start) * width > _PREFILL:
            yield prompts[start:end]
            start, width = end, len(prompt)
    yield prompts[start:]
