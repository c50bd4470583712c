"""Logged figures over all items of all batches and processes, of an optimizer step or a validation.

States are sums and counts, so batches and processes of unlike size, or without an item, weigh by their items.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric


class Figures(Metric):
    """Figures by name, each over its own items (pairs, tokens): their means, or extremes.

    lowest, highest: names of figures whose least or greatest value is wanted instead of the mean.
    """

    full_state_update = False
    totals: Tensor  # sum and count of each mean, [F, 2]; a single 0 before the first update
    extremes: Tensor  # the greatest value of each of `highest`, and the greatest of minus each of `lowest`

    def __init__(self, lowest: Collection[str] = (), highest: Collection[str] = ()) -> None:
        super().__init__()
        self.signs = dict.fromkeys(highest, 1) | dict.fromkeys(lowest, -1)
        self.means: tuple[str, ...] = ()
        self.add_state("totals", torch.tensor(0.0), dist_reduce_fx="sum")
        if self.signs:
            self.add_state("extremes", torch.full((len(self.signs),), -torch.inf), dist_reduce_fx="max")

    def update(self, figures: Mapping[str, Tensor], counted: bool = True) -> None:
        """Figures by name, [items] each, the same names for every batch and process.

        counted: False for a batch that only keeps a process in step with the others.
        """
        # In fp64, where there is such: counts stay exact, and sums do not depend on how the items were split.
        dtype = torch.float32 if self.totals.device.type == "mps" else torch.float64
        values = {name: (x.detach() if counted else x.detach()[:0]).to(dtype) for name, x in figures.items()}
        self.means = tuple(name for name in values if name not in self.signs)
        sums_F = torch.stack([values[name].sum() for name in self.means])
        counts_F = torch.tensor([len(values[name]) for name in self.means], dtype=dtype).to(sums_F.device)
        self.totals = self.totals + torch.stack([sums_F, counts_F], -1)
        if self.signs and counted:
            greatest = torch.stack([(sign * values[name]).amax() for name, sign in self.signs.items()])
            self.extremes = torch.maximum(self.extremes, greatest.to(self.extremes.dtype))

    def compute(self) -> dict[str, Tensor]:
        """One value a figure, fp32; NaN for a mean without items, infinite for an extreme without."""
        found = dict(zip(self.means, (self.totals[:, 0] / self.totals[:, 1]).float(), strict=True))
        for place, (name, sign) in enumerate(self.signs.items()):
            found[name] = sign * self.extremes[place]
        return found
