"""The LightningDataModules: one a data source."""

from lit_pref.datamodules.code_pairs import CodePairsDataModule
from lit_pref.datamodules.demonstrations import DemonstrationsDataModule
from lit_pref.datamodules.execution import ExecutionPairsDataModule, Samples
from lit_pref.datamodules.files import SplitNames
from lit_pref.datamodules.labelled import ExecutionLabelsDataModule, LabelledDataModule
from lit_pref.datamodules.pairs import PairsDataModule
from lit_pref.datamodules.passing_samples import PassingSamplesDataModule
from lit_pref.datamodules.task_pairs import TaskPairsDataModule
from lit_pref.datamodules.trees import Loading

__all__ = [
    "CodePairsDataModule",
    "DemonstrationsDataModule",
    "ExecutionLabelsDataModule",
    "ExecutionPairsDataModule",
    "LabelledDataModule",
    "Loading",
    "PairsDataModule",
    "PassingSamplesDataModule",
    "Samples",
    "SplitNames",
    "TaskPairsDataModule",
]
