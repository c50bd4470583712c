"""What an evaluation is: figures of fixed held-out items, one value an item, so that before and after can be paired."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.types import Split


class Evaluation(ABC):
    """Measures a module's model on held-out items; the same items in the same order at each call.

    split: which it measures; None is the one that is asked for: validation in a fit, test under `lit-pref test`.
    left_out: items that no figure is over, by name, and why; known once it was called.
    """

    split: Split | None = None
    left_out: Mapping[str, str] = MappingProxyType({})

    def measured(self, asked: Split) -> Split:
        """The split that it measures where one is asked for."""
        return self.split or asked

    @abstractmethod
    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        """Figures of the split that is asked for, by name; each [items], fp32, on the CPU."""


def there(splits: Sequence[Split], asked: Split) -> Split:
    """The split that is asked for; of a benchmark without it the last one that it has."""
    return asked if asked in splits else splits[-1]
