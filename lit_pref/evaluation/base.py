"""What an evaluation is: figures of fixed held-out items, one value an item, so that before and after can be paired."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from lightning.pytorch import LightningModule
from torch import Tensor


class Evaluation(ABC):
    """Measures a module's model on held-out items; the same items in the same order at each call.

    left_out: items that no figure is over, by name, and why; known once it was called.
    """

    left_out: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def __call__(self, module: LightningModule) -> dict[str, Tensor]:
        """Figures by name; each [items], fp32, on the CPU."""
