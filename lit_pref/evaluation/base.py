"""What an evaluation is: figures of fixed held-out items, one value an item, so that before and after can be paired."""

from abc import ABC, abstractmethod

from lightning.pytorch import LightningModule
from torch import Tensor


class Evaluation(ABC):
    """Measures a module's model on held-out items; the same items in the same order at each call."""

    @abstractmethod
    def __call__(self, module: LightningModule) -> dict[str, Tensor]:
        """Figures by name; each [items], fp32, on the CPU."""
