"""`metrics.csv` in the run folder: a row a logging call, a column a metric.

Lightning's CSVLogger deletes the file that a resumed run finds; this one goes on below it. Not covered: remote file
systems, hyperparameters (they are in `config.yaml`).
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_pref.storage.files import replacing


class MetricsCSV(Logger):
    """Appends each call's metrics at once; a new metric widens the whole file, whole or not at all.

    run_dir: where `metrics.csv` lies; also what Lightning takes for checkpoints where nothing else says.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(run_dir)
        self.path = self._folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in the run folder's `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row; `step` is its first column, empty where there is none."""
        values = {name: x if isinstance(x, int) else float(x) for name, x in metrics.items()}
        row = {"step": "" if step is None else step, **values}
        if not self._columns and self.path.is_file():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        new = sorted(row.keys() - set(self._columns) - {"step"})
        if new or not self._columns:
            self._widen([*(self._columns or ["step"]), *new])
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def rows(self) -> int:
        """How many there are."""
        return len(self._read()[1])

    @rank_zero_only
    def go_on_from(self, step: int, rows: int | None) -> None:
        """Drop what was logged after the state that a run resumes, and will be logged again.

        step: that the state has reached; what is logged of it has a lower number.
        rows: that there were then, where its validation is run anew, which logs under the same number.
        """
        columns, logged = self._read()
        kept = [row for row in logged[:rows] if not row["step"] or int(row["step"]) < step]
        if len(kept) < len(logged):
            self._rewrite(columns, kept)

    def _widen(self, columns: list[str]) -> None:
        """Write the file again with these columns; earlier rows leave the new ones empty."""
        self._rewrite(columns, self._read()[1])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        if not self.path.is_file():
            return [], []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        return list(reader.fieldnames or []), rows

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.path) as stream:
            stream.write(text.getvalue().encode())
        self._columns = columns
