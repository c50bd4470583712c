"""Which rows of a data set are held out: whole prompts, so that none is measured on that is trained on.

Not covered: prompts that say the same in other words; rows of several files, of which each is a data set of its own.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lit_pref.types import Split


def rows_of_splits(
    prompts_N: npt.NDArray[np.int64], sizes: Mapping[Split, int | float], seed: int
) -> dict[Split, npt.NDArray[np.int32]]:
    """The rows of each split that has a size, and of `train` all others; ascending.

    sizes: numbers of rows, or shares of all.
    """
    left = np.arange(len(prompts_N), dtype=np.int32)
    rows: dict[Split, npt.NDArray[np.int32]] = {}
    for split, size in sizes.items():
        count = size if isinstance(size, int) else size and max(1, round(size * len(prompts_N)))
        rows[split] = left[held_out_rows(prompts_N[left], int(count), seed)]
        left = np.setdiff1d(left, rows[split])
    return {"train": left, **rows}


def check_share(split: Split, size: int | float) -> None:
    """Raise ValueError for what is neither a share nor a number of rows."""
    if size < 0 or (isinstance(size, float) and size >= 1):
        raise ValueError(f"{split}_size must be a share in [0, 1) or a count >= 0, got {size}")


def held_out_rows(prompts_N: npt.NDArray[np.int64], wanted: int, seed: int) -> npt.NDArray[np.int32]:
    """Rows to hold out, ascending: drawn prompt by prompt with numpy, until they are as near to `wanted` as can be.

    prompts_N: equal for rows of the same prompt.
    wanted: above 0 at least one prompt is held out and at least one stays; none is where there is only one.
    """
    _, first, numbers_N, sizes = np.unique(prompts_N, return_index=True, return_inverse=True, return_counts=True)
    if wanted == 0 or len(sizes) < 2:
        return np.empty(0, np.int32)
    wanted, rows = min(wanted, len(prompts_N) - 1), 0
    in_order = np.argsort(first)  # by their first rows: the draw does not depend on how prompts are numbered
    taken: list[int] = []
    for prompt in in_order[np.random.default_rng(seed).permutation(np.arange(len(sizes), dtype=np.int32))]:
        if rows + sizes[prompt] <= wanted:
            taken.append(int(prompt))
            rows += sizes[prompt]
        if rows == wanted:
            break
    left = np.setdiff1d(in_order, taken)
    larger = left[np.argmin(sizes[left])]  # all that is left is too much: by how little?
    alone = in_order[np.argmin(np.abs(sizes[in_order] - wanted))]
    ways = [taken, [*taken, int(larger)], [int(alone)]]
    possible = [way for way in ways if 0 < len(way) < len(sizes)]
    best = min(possible, key=lambda way: abs(int(sizes[way].sum()) - wanted))
    return np.flatnonzero(np.isin(numbers_N, best)).astype(np.int32)
