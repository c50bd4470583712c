"""Keys and values in slots that are written in place: a prompt's once, however many rows go on from it; each row's own.

Buffers are [S, H, T, d], slots by columns; they grow, and are never copied at a step.
"""

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

_ALIGNED = 16  # columns: kernels of some devices want strides of masks to be a multiple


def aligned(columns: int) -> int:
    return -(-columns // _ALIGNED) * _ALIGNED


class Slots(Cache):  # type: ignore[misc]  # transformers states no types
    """A layer's new keys and values, one a row, are written behind the row's own.

    latest: the layer whose keys were written last, and which therefore attends next.
    """

    latest: "SlotLayer"

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._length_R = torch.zeros(0, dtype=torch.long)
        self._columns = 0

    def begin(self, length_R: Tensor, longest: int) -> None:
        """A step of rows that have so many tokens of their own each, `longest` with the new one."""
        self._length_R, self._columns = length_R, aligned(longest)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        self.latest = self.layer(layer_idx)
        rows = len(key_states)
        self.latest.own.reserve(key_states, value_states, rows, self._columns)
        own, row_R = self.latest.own, torch.arange(rows, device=key_states.device)
        own.keys[row_R, :, self._length_R] = key_states[:, :, 0]
        own.values[row_R, :, self._length_R] = value_states[:, :, 0]
        return own.keys[:rows, :, : self._columns], own.values[:rows, :, : self._columns]

    def put_prompts(self, slots: Sequence[int], filled: Cache) -> None:
        """What a forward pass of prompts has filled, into slots of prompts."""
        for index, layer in enumerate(filled.layers):
            if layer.is_initialized:
                self.layer(index).prompts.put(slots, layer.keys, layer.values)

    def copy(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """Rows' own columns, of which each has at most `width`."""
        for layer in self.layers:
            layer.own.copy(sources, targets, width)

    def layer(self, index: int) -> "SlotLayer":
        while len(self.layers) <= index:
            self.layers.append(SlotLayer())
        layer: SlotLayer = self.layers[index]
        return layer

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._columns


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """The keys and values of one layer; what transformers asks of one is answered by `Slots`."""

    is_sliding = False
    is_initialized = True

    def __init__(self) -> None:
        self.prompts, self.own = _Buffers(), _Buffers()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise NotImplementedError

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def get_seq_length(self) -> int:
        raise NotImplementedError

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise NotImplementedError

    def get_max_length(self) -> int:
        return -1


class _Buffers:
    """keys and values are zeros at first, since a NaN that a mask hides would still be one."""

    keys: Tensor
    values: Tensor
    _slots = _columns = 0

    def put(self, slots: Sequence[int], keys: Tensor, values: Tensor) -> None:
        self.reserve(keys, values, max(slots) + 1, keys.shape[2])
        width = keys.shape[2]
        self.keys[slots, :, :width], self.values[slots, :, :width] = keys, values

    def copy(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        self.reserve(self.keys, self.values, max(targets) + 1, width)
        for buffer in (self.keys, self.values):
            buffer[targets, :, :width] = buffer[sources, :, :width]

    def reserve(self, keys: Tensor, values: Tensor, slots: int, columns: int) -> None:
        """Room for so many, of keys and values as these; what grows grows by a quarter, so that little is copied."""
        if slots <= self._slots and columns <= self._columns:
            return
        there = self._slots, self._columns
        self._slots = there[0] if slots <= there[0] else max(slots, there[0] * 5 // 4)
        self._columns = there[1] if columns <= there[1] else aligned(max(columns, there[1] * 5 // 4))
        grown = [_zeros((self._slots, like.shape[1], self._columns, like.shape[3]), like) for like in (keys, values)]
        if there[0]:
            grown[0][: there[0], :, : there[1]], grown[1][: there[0], :, : there[1]] = self.keys, self.values
        self.keys, self.values = grown


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """On a CPU of pages that take memory only as they are written, and that go back to the system when they are freed:
    blocks of the heap that grow in turns would leave holes, several times what is in use."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    pages = mmap.mmap(-1, max(1, math.prod(shape)) * like.element_size())
    return torch.frombuffer(pages, dtype=like.dtype)[: math.prod(shape)].view(shape)
