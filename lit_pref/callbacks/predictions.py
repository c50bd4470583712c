"""`lit-pref predict` writes what a module predicts into the run folder: one Parquet row an item.

Not covered: predictions that are not named tensors of one value an item.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lit_pref.storage.shards import write_parquet


class PredictionsFile(BasePredictionWriter):
    """Writes `predictions.parquet`, ordered by its column `row`; with several ranks `predictions_rank<r>`."""

    def __init__(self) -> None:
        interval: Literal["epoch"] = "epoch"
        super().__init__(interval)

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        batches: Sequence[dict[str, Tensor]] = predictions
        if not batches:
            return
        columns = {name: torch.cat([batch[name].cpu() for batch in batches]) for name in batches[0]}
        if "row" in columns:
            order = columns["row"].argsort()
            columns = {name: values[order] for name, values in columns.items()}
        table = pa.table({name: values.numpy() for name, values in columns.items()})
        stem = "predictions" if trainer.world_size == 1 else f"predictions_rank{trainer.global_rank}"
        path = Path(trainer.default_root_dir) / f"{stem}.parquet"
        write_parquet(path, table.to_pylist(), table.schema)
        print(f"{len(table):,} predictions: {path}", flush=True)
