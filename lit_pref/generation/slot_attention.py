"""Attention of one new token a row to its prompt, which rows share, and to the row's own tokens.

Softmax over both is the mean of the two attentions, each weighted by the sum of its exponentials. A prompt's keys are
read once for all rows that go on from it, and those that query heads share once for all these heads.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lit_pref.generation.slot_cache import Slots, aligned
from lit_pref.models.attention.tree_kernels import SpanMask

_TOGETHER = 16  # rows at least that a CPU attends to in one call, with as many columns as the longest of them has


class Sharing(NamedTuple):
    """Which rows go on from which prompt.

    row_PN: the rows of each prompt; any row stands in the padding. place_R: where each row stands in that, flattened.
    """

    row_PN: Tensor
    place_R: Tensor

    @classmethod
    def of(cls, prompt_R: Sequence[int], device: torch.device) -> Self:
        rows: list[list[int]] = [[] for _ in range(max(prompt_R) + 1)]
        for row, prompt in enumerate(prompt_R):
            rows[prompt].append(row)
        width = max(map(len, rows))
        place = {row: prompt * width + n for prompt, several in enumerate(rows) for n, row in enumerate(several)}
        padded = [several + [0] * (width - len(several)) for several in rows]
        return cls(
            torch.tensor(padded, device=device),
            torch.tensor([place[row] for row in range(len(prompt_R))], device=device),
        )


class RowMask(SpanMask):
    """What the one query of each row sees.

    seen_RT: of the row's own columns; before_PNT: of its prompt's, where N is 1 if all rows of a prompt see the same.
    parts: rows that are attended to together, and how many of their own columns.
    """

    slots: Slots
    sharing: Sharing
    own_R11T: Tensor
    before_P1NT: Tensor | None
    parts: list[tuple[slice, int]]

    @classmethod
    def of_rows(
        cls, slots: Slots, sharing: Sharing, seen_RT: Tensor, before_PNT: Tensor | None, length_R: Sequence[int]
    ) -> Self:
        mask = cls.over((), 1, seen_RT.shape[1], seen_RT.device)
        mask.slots, mask.sharing = slots, sharing
        mask.own_R11T = _added(seen_RT[:, None, None])
        mask.before_P1NT = None if before_PNT is None else _added(before_PNT[:, None])
        # Rows of an age are near each other; an accelerator would rather have one call.
        size = max(_TOGETHER, -(-len(length_R) // 4)) if seen_RT.device.type == "cpu" else len(length_R)
        starts = range(0, len(length_R), size)
        mask.parts = [(slice(at, at + size), aligned(max(length_R[at : at + size]) + 1)) for at in starts]
        return mask

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float | None) -> Tensor:
        """[R, 1, H, d]."""
        rows, heads, _, width = query.shape
        scale = width**-0.5 if scale is None else scale
        grouped = query.view(rows, key.shape[1], -1, width)
        own = [
            _attend(
                grouped[part],
                key[part, :, :columns],
                value[part, :, :columns],
                self.own_R11T[part, ..., :columns],
                scale,
            )
            for part, columns in self.parts
        ]
        found = _Part(torch.cat([part.output for part in own]), torch.cat([part.logsumexp for part in own]))
        if self.before_P1NT is not None:
            before = self._of_prompts(grouped, scale)
            share = (found.logsumexp - before.logsumexp).sigmoid()[..., None]
            found = found._replace(output=share * found.output + (1 - share) * before.output)
        return found.output.to(value.dtype).view(rows, 1, heads, -1)

    def _of_prompts(self, query_RKGd: Tensor, scale: float) -> "_Part":
        assert self.before_P1NT is not None
        (prompts, several), (_, heads, group, width) = self.sharing.row_PN.shape, query_RKGd.shape
        columns = self.before_P1NT.shape[-1]
        buffers = self.slots.latest.prompts
        query = query_RKGd[self.sharing.row_PN].transpose(1, 2).reshape(prompts, heads, several * group, width)
        mask = self.before_P1NT
        if mask.shape[2] > 1:  # rows of one prompt see different columns of it
            mask = mask.repeat_interleave(group, 2)
        part = _attend(query, buffers.keys[:prompts, :, :columns], buffers.values[:prompts, :, :columns], mask, scale)
        output = part.output.view(prompts, heads, several, group, -1).transpose(1, 2).flatten(0, 1)
        logsumexp = part.logsumexp.view(prompts, heads, several, group).transpose(1, 2).flatten(0, 1)
        return _Part(output[self.sharing.place_R], logsumexp[self.sharing.place_R])


class _Part(NamedTuple):
    """Attention to some of the columns: [R, K, G, d], and the log of the sum of its exponentials, [R, K, G] in fp32."""

    output: Tensor
    logsumexp: Tensor


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> _Part:
    mask = mask.to(query.dtype)
    if query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16, torch.float16):
        # What scaled_dot_product_attention itself runs here, which keeps the sums from its caller.
        return _Part(
            *torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, False, attn_mask=mask, scale=scale
            )
        )
    score = (query @ key.transpose(-1, -2)).float() * scale + mask
    logsumexp = score.logsumexp(-1)
    return _Part((score - logsumexp[..., None]).exp().to(value.dtype) @ value, logsumexp)


def _added(seen: Tensor) -> Tensor:
    """As numbers that are added to scores: small enough to hide, and finite, so that what sees nothing is no NaN."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, _HIDDEN)


_HIDDEN = -1e30
