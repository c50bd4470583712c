"""The LightningDataModules: one a data source."""

from lit_pref.datamodules.demonstrations import DemonstrationsDataModule
from lit_pref.datamodules.execution import ExecutionPairsDataModule, PassingSamplesDataModule
from lit_pref.datamodules.pairs import PairsDataModule

__all__ = [
    "DemonstrationsDataModule",
    "ExecutionPairsDataModule",
    "PairsDataModule",
    "PassingSamplesDataModule",
]
