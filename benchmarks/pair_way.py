"""A pair's way from its JSON line to its loss: which files, functions and lines of lit_pref one small fit goes through.

One `Trainer.fit` of four pairs, without validation, with cold caches, on the embedded model, under `sys.settrace`;
imports are not counted, nor is a line twice. `python -m benchmarks.pair_way [--files]`.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import warnings
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1] / "lit_pref"


class Way(NamedTuple):
    """Distinct lines by file, and functions as (file, first line)."""

    lines: dict[Path, set[int]]
    functions: set[tuple[Path, int]]


def way_of(run: Any) -> Way:
    """What a call of `run` goes through."""
    way = Way(defaultdict(set), set())
    prefix = str(ROOT)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(prefix) or code.co_name == "<module>":
            return None
        file = Path(code.co_filename)
        if event == "call":
            way.functions.add((file, code.co_firstlineno))
        elif event == "line":
            way.lines[file].add(frame.f_lineno)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    return way


def fit(folder: Path) -> Any:
    from lightning.pytorch import Trainer

    from lit_pref.datamodules import PairsDataModule
    from lit_pref.losses import DPO
    from lit_pref.modules import DPOModule

    rows = [{"prompt": f"x = {i}\n", "chosen": f"print(x + {i})", "rejected": f"print({i})"} for i in range(4)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    module = DPOModule("embedded:coder", DPO())
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet)  # type: ignore[arg-type]
    return lambda: trainer.fit(module, PairsDataModule(str(path), validation_size=0, batch_size=4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true", help="the lines of each file")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIT_PREF_CACHE"] = str(Path(folder) / "cache")
        way = way_of(fit(Path(folder)))
    if arguments.files:
        for file, lines in sorted(way.lines.items(), key=lambda item: -len(item[1])):
            print(f"{len(lines):5} {file.relative_to(ROOT)}")
    total = sum(map(len, way.lines.values()))
    print(f"{len(way.lines)} files, {len(way.functions)} functions, {total:,} distinct lines")


if __name__ == "__main__":
    main()
