"""What data modules print: rows as the model sees them, rows that were left out, rows too long for a token budget."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pref.data.batches.loading import TreeDataset
from lit_pref.data.batches.order import Batching
from lit_pref.data.reading.rows import tell_unused
from lit_pref.datamodules.policy import PolicyModule
from lit_pref.storage.files import write_json
from lit_pref.types import Split

_PARTS = {
    "pair": ("chosen", "rejected"),
    "demonstration": ("completion",),
    "labelled": ("completion", "completion of another row"),
}
_VALUES = {"pair": "margin", "labelled": "label"}


def tell_rows(split: Split, data: TreeDataset, counts: Mapping[str, int], module: PolicyModule, rows: int) -> None:
    """The first rows, decoded, with the tokens of each part; counts: what became of the split's rows."""
    print(f"{split}: {len(data):,} rows ({', '.join(f'{n:,} {what}' for what, n in counts.items() if n)})")
    for row in range(min(rows, len(data))):
        tree = data.trees[row]
        value = "" if data.values is None else f"; {_VALUES[data.kind]} {data.values[row]:g}"
        print(f"row {row}: {tree.shared_length:,} tokens, the prompt counted once{value}")
        print(f"  prompt, {len(tree.prompt_ids):,} tokens: {module.tokenizer.decode(tree.prompt_ids)!r}")
        for name, ids in zip(_PARTS[data.kind], tree.completion_ids, strict=True):
            cut = module.append_eos and ids[-1] != module.tokenizer.eos_token_id
            print(f"  {name}, {len(ids):,} tokens{', cut at its end' * cut}: {module.tokenizer.decode(ids)!r}")


def tell_left_out(source: str, name: str, rows: int, skipped: Mapping[str, Any], folder: Path | None) -> None:
    """Print which columns were not used and how many rows were skipped, and write the latter into the run folder.

    name: of the file there. skipped: as `SkippedRows.to_json` gives it. folder: None without a run.
    """
    tell_unused(skipped["unused_columns"])
    if skipped["counts"]:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in skipped["counts"].items())
        print(f"{source}: {rows:,} rows; skipped rows: {counts}", flush=True)
        if folder is not None:
            write_json(folder / f"skipped_rows_{name}.json", skipped)


def tell_longer(split: Split, batching: Batching) -> None:
    """Print how many rows are longer than the token budget."""
    budget = batching.max_tokens
    longer = 0 if budget is None else int((batching.lengths_N > budget).sum())
    if longer:
        print(
            f"{split}: {longer:,} of {len(batching.lengths_N):,} rows are longer than max_tokens_per_batch {budget:,}, "
            f"the longest {batching.lengths_N.max():,} tokens: each is a batch of its own; raise the budget, or "
            "shorten or drop such rows (data.limits)",
            flush=True,
        )
