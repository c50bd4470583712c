"""Rows of unlike length and age in one batch: a row that ends makes room for the next prompt (continuous batching).

Keys and values lie in buffers with a slot a row, which are written in place and never copied whole: [S, H, T, d], of
which a step sees the first R slots and as many columns as the longest row has. Query heads that share a key head are
attended to as queries of one head, so that keys are not repeated for them.
Not covered: models whose layers take no attention but their own, and state that is no keys and values (`rows.py`).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

from lit_pref.generation.rows import Ids, Rows, last_alone
from lit_pref.models.attention.tree_attention import attend_by_tree, masks_by_window
from lit_pref.models.attention.tree_kernels import SpanMask, trees_alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFILL = 4096  # tokens of prompts in one forward pass
_TOGETHER = 16  # rows at least that a CPU attends to in one call, with as many columns as the longest of them has
_ALIGNED = 16  # columns: kernels of some devices want strides of masks to be a multiple


class SlotRows(Rows):
    """A slot a row, the first R of them in use."""

    joins = True

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__(model)
        self._slots = _Slots()
        self._length_R: list[int] = []

    def keep(self, parent_R: Sequence[int]) -> list[int]:
        """A row stays in its slot if that is one of those in use afterwards; the others move or are copied there."""
        count, here = len(parent_R), dict[int, int]()
        for row, parent in enumerate(parent_R):
            if parent < count:
                here.setdefault(parent, row)
        place = {row: slot for slot, row in here.items()}
        free = iter(sorted(set(range(count)) - set(here)))
        moves = {row: next(free) for row in range(count) if row not in place}
        place |= moves
        length_R = [0] * count
        for row, parent in enumerate(parent_R):
            length_R[place[row]] = self._length_R[parent]
        if moves:
            width = max(length_R[slot] for slot in moves.values())
            self._slots.copy([parent_R[row] for row in moves], list(moves.values()), width)
        self._length_R = length_R
        return [place[row] for row in range(count)]

    def add(self, prompts: Sequence[Ids]) -> None:
        for some in _passes(prompts):
            first, width = len(self._length_R), max(map(len, some))
            if width:
                self._slots.put(first, self._prefilled(some, width))
            self._length_R += map(len, some)

    def _prefilled(self, prompts: Sequence[Ids], width: int) -> Cache:
        """Padded on the right, where no token sees it."""
        ids = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
        filled = DynamicCache()
        attend_by_tree(self._model)
        self._model(
            input_ids=torch.tensor(ids, device=self._model.device),
            position_ids=torch.arange(width, device=self._model.device).expand(len(ids), -1),
            past_key_values=filled,
            use_cache=True,
            **last_alone(self._model),
        )
        return filled

    def step(self, token_R: Sequence[int]) -> Tensor:
        length_R = torch.tensor(self._length_R, device=self._model.device)
        longest = max(self._length_R) + 1
        columns = self._slots.begin(length_R, longest)
        column_T = torch.arange(columns, device=length_R.device)

        def mask(window: int | None) -> RowMask:
            seen_RT = column_T <= length_R[:, None]
            if window is not None:
                seen_RT &= column_T > length_R[:, None] - window
            return RowMask.of_rows(seen_RT, self._length_R)

        attend_by_tree(self._model)
        with trees_alone():
            out = self._model(
                input_ids=torch.tensor(token_R, device=length_R.device)[:, None],
                position_ids=length_R[:, None],
                attention_mask=masks_by_window(self._model, longest, mask),
                past_key_values=self._slots,
                use_cache=True,
            )
        self._length_R = [length + 1 for length in self._length_R]
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


class RowMask(SpanMask):
    """What the one query of each row sees of its slot. parts: rows that are attended to together, and their columns."""

    seen_R11T: Tensor
    parts: list[tuple[slice, int]]

    @classmethod
    def of_rows(cls, seen_RT: Tensor, length_R: Sequence[int]) -> Self:
        mask = cls.over((), 1, seen_RT.shape[1], seen_RT.device)
        mask.seen_R11T = seen_RT[:, None, None]
        # Rows of an age are near each other; an accelerator would rather have one call.
        size = max(_TOGETHER, -(-len(length_R) // 4)) if seen_RT.device.type == "cpu" else len(length_R)
        starts = range(0, len(length_R), size)
        mask.parts = [(slice(at, at + size), _aligned(max(length_R[at : at + size]) + 1)) for at in starts]
        return mask

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None) -> Tensor:
        """[R, 1, H, d]."""
        rows, heads, _, width = query.shape
        grouped = query.view(rows, key.shape[1], -1, width)
        outputs = [
            scaled_dot_product_attention(
                grouped[part],
                key[part, :, :columns],
                value[part, :, :columns],
                self.seen_R11T[part, :, :, :columns],
                dropout,
                scale=scale,
            )
            for part, columns in self.parts
        ]
        return torch.cat(outputs).view(rows, 1, heads, -1)


class _Slots(Cache):  # type: ignore[misc]  # transformers states no types
    """A layer's keys and values are written behind what each row has of them."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.length_R = torch.zeros(0, dtype=torch.long)
        self.columns = 0  # that a step sees

    def begin(self, length_R: Tensor, longest: int) -> int:
        """A step of rows that have so many tokens each; the columns that it sees."""
        self.length_R, self.columns = length_R, _aligned(longest)
        return self.columns

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        return self._layer(layer_idx).update(key_states, value_states)

    def put(self, first: int, filled: Cache) -> None:
        for index, layer in enumerate(filled.layers):
            if layer.is_initialized:
                self._layer(index).put(first, layer.keys, layer.values)

    def copy(self, sources: list[int], targets: list[int], width: int) -> None:
        for layer in self.layers:
            if layer.is_initialized:
                layer.copy(sources, targets, width)

    def _layer(self, index: int) -> "_SlotLayer":
        while len(self.layers) <= index:
            self.layers.append(_SlotLayer(self))
        layer: _SlotLayer = self.layers[index]
        return layer


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """keys and values are [S, H, T, d]: zeros at first, since a masked NaN would still be one."""

    is_sliding = False

    def __init__(self, slots: _Slots) -> None:
        super().__init__()
        self._slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = key_states[:0, :, :0], value_states[:0, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        rows, columns = len(key_states), self._slots.columns
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._reserve(rows, columns)
        row_R, length_R = torch.arange(rows, device=key_states.device), self._slots.length_R
        self.keys[row_R, :, length_R] = key_states[:, :, 0]
        self.values[row_R, :, length_R] = value_states[:, :, 0]
        return self.keys[:rows, :, :columns], self.values[:rows, :, :columns]

    def put(self, first: int, keys: Tensor, values: Tensor) -> None:
        end, width = first + len(keys), keys.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._reserve(end, width)
        self.keys[first:end, :, :width], self.values[first:end, :, :width] = keys, values

    def copy(self, sources: list[int], targets: list[int], width: int) -> None:
        self._reserve(max(targets) + 1, width)
        for buffer in (self.keys, self.values):
            buffer[targets, :, :width] = buffer[sources, :, :width]

    def _reserve(self, rows: int, columns: int) -> None:
        """Room for so many rows and columns; what grows grows by a quarter, so that little is copied in all."""
        there_rows, there_columns = self.keys.shape[0], self.keys.shape[2]
        if rows <= there_rows and columns <= there_columns:
            return
        rows = there_rows if rows <= there_rows else max(rows, there_rows * 5 // 4)
        columns = there_columns if columns <= there_columns else max(columns, there_columns * 5 // 4)
        columns = _aligned(columns)
        self.keys, self.values = _grown(self.keys, rows, columns), _grown(self.values, rows, columns)

    def get_seq_length(self) -> int:
        return self._slots.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._slots.columns, 0

    def get_max_length(self) -> int:
        return -1


def _aligned(columns: int) -> int:
    return -(-columns // _ALIGNED) * _ALIGNED


def _grown(buffer: Tensor, rows: int, columns: int) -> Tensor:
    there_rows, heads, there_columns, width = buffer.shape
    grown = buffer.new_zeros(rows, heads, columns, width)
    grown[:there_rows, :, :there_columns] = buffer
    return grown
