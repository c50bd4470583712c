"""Table and plots of `codepmp`: python -m benchmarks.codepmp_figures benchmarks/results/codepmp_test

Means over seeds with 95% t-intervals; differences are paired by seed, in points.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.codepmp import ABLATED, ARMS, DESCRIPTIONS, SIZES, SOLVED, N
from lit_pref.metrics import Interval, across_seeds_interval

Cells = dict[tuple[str, int], dict[int, dict[str, float]]]
"""By arm and seed: figures by number of finetuning pairs."""

MISTAKES = ("operation", "order", "operand")
ALL_MISTAKES = ("", ", operation", ", order", ", operand", ", result", ", carry")
DEDUCTION = ("deduction pairs", "multiple choice")
PAIR, SOLVER = ("no PMP", "PMP"), ("no PMP, solver's pairs", "solver's pairs")
SCALING = ("1,000 descriptions", "4,000 descriptions", "PMP")
COLOURS = {"PMP": "#1f77b4", "no PMP": "#7f7f7f"}


def read(folder: Path) -> tuple[Cells, dict[str, list[dict[str, float]]]]:
    """Cells, and what pretraining came to, by arm."""
    cells: Cells = {}
    pretraining: dict[str, list[dict[str, float]]] = {}
    for file in sorted(folder.glob("*.json")):
        cell: dict[str, Any] = json.loads(file.read_text())
        cells[cell["arm"], cell["seed"]] = {int(size): figures for size, figures in cell["sizes"].items()}
        if "pretraining" in cell:
            pretraining.setdefault(cell["arm"], []).append(cell["pretraining"])
    return cells, pretraining


def values(cells: Cells, arm: str, size: int, figure: str) -> dict[int, float]:
    """In points, by seed."""
    found = {seed: sizes for (name, seed), sizes in cells.items() if name == arm and size in sizes}
    return {seed: 100 * sizes[size][figure] for seed, sizes in found.items() if figure in sizes[size]}


def mean(cells: Cells, arm: str, size: int, figure: str = "accuracy") -> Interval:
    return across_seeds_interval(list(values(cells, arm, size, figure).values()))


def gain(
    cells: Cells, arm: str, size: int, figure: str = "accuracy", over: str = "no PMP", over_size: int = 0
) -> Interval:
    """Of one arm over another, seed by seed."""
    own, other = values(cells, arm, size, figure), values(cells, over, over_size or size, figure)
    return across_seeds_interval([own[seed] - other[seed] for seed in own.keys() & other.keys()])


def table(cells: Cells, pretraining: dict[str, list[dict[str, float]]]) -> str:
    arms = [arm for arm in ARMS if any(name == arm for name, _ in cells)]
    ablations = [arm for arm in arms if arm not in (*PAIR, *SOLVER)]
    lines = [
        "Held-out pair accuracy in %, mean over seeds; in brackets the gain over the control with the same seed and "
        "finetuning pairs, in points, with its 95% t-interval.",
        "",
        *_rows("arm", PAIR, SIZES, "pairs", lambda arm, size: _cell(cells, arm, size)),
        "",
        f"Mistakes that {ABLATED} pairs teach to see, and all five kinds in equal parts with arithmetic among them:",
        "",
        *_rows(
            "arm", [*PAIR, *ablations], MISTAKES, "", lambda arm, kind: _cell(cells, arm, ABLATED, f"accuracy, {kind}")
        ),
        "",
        *_rows("arm", PAIR, ALL_MISTAKES, "", lambda arm, kind: _cell(cells, arm, ABLATED, f"of all mistakes{kind}")),
        "",
        f"What does it: points over either, {ABLATED} finetuning pairs, {DESCRIPTIONS:,} descriptions if not said:",
        "",
        *_rows("arm", [*PAIR, *ablations], PAIR, "", lambda arm, over: _over(cells, arm, over)),
        "",
        "Best-of-N of the language model's own samples in %: finetuned on 2,000 pairs with mistakes put in, or on its "
        f"own right and wrong solutions of {SOLVED:,} problems:",
        "",
        *_rows("arm", PAIR, N, "of N", lambda arm, n: _cell(cells, arm, SIZES[-1], f"best_of_n/{n}")),
        *_rows("arm", SOLVER, N, "of N", lambda arm, n: _cell(cells, arm, SOLVED, f"best_of_n/{n}", SOLVER[0]))[2:],
        *_rows("arm", PAIR[:1], N, "", lambda arm, n: _oracle(cells, n))[2:],
        "",
        "Deduction, finetuned on its own pairs: pair accuracy, and the right one of four options:",
        "",
        *_rows("arm", PAIR, DEDUCTION, "", lambda arm, figure: _cell(cells, arm, ABLATED, figure)),
        "",
        "Half of the finetuning pairs with PMP against all without, in points:",
        "",
    ]
    for half, all_of in ((250, 500), (500, 1000), (1000, 2000)):
        if values(cells, "PMP", half, "accuracy") and values(cells, "no PMP", all_of, "accuracy"):
            ahead = gain(cells, "PMP", half, over_size=all_of)
            lines.append(f"- PMP on {half:,} pairs over no PMP on {all_of:,}: {_signed(ahead)}")
    lines += ["", "Code pairs held out of pretraining that its end ranks rightly, and seeds:", ""]
    for arm, several in pretraining.items():
        accuracy = across_seeds_interval([100 * each["validation/accuracy"] for each in several])
        lines.append(
            f"- {arm}: {accuracy.mean:.1f}% of those beside {several[0]['pairs']:,.0f} pairs, {len(several)} seeds"
        )
    return "\n".join(lines) + "\n"


def _rows(
    corner: str, arms: Sequence[str], columns: Sequence[Any], unit: str, cell: Callable[[str, Any], str]
) -> list[str]:
    """A table without rows that hold nothing."""
    heads = [
        f"{column:,} {unit}" if isinstance(column, int) else column.removeprefix(", ") or "all" for column in columns
    ]
    made = [[arm, *(cell(arm, column) for column in columns)] for arm in arms]
    filled = [row for row in made if any(row[1:])]
    return ["| " + " | ".join(row) + " |" for row in [[corner, *heads], ["---"] * (len(columns) + 1), *filled]]


def _oracle(cells: Cells, n: int) -> str:
    return f"{mean(cells, 'no PMP', SIZES[-1], f'oracle/{n}').mean:.1f} by scores that know"


def _cell(cells: Cells, arm: str, size: int, figure: str = "accuracy", over: str = "no PMP") -> str:
    if not values(cells, arm, size, figure):
        return ""
    own = f"{mean(cells, arm, size, figure).mean:.1f}"
    shared = values(cells, arm, size, figure).keys() & values(cells, over, size, figure).keys()
    return own if arm == over or not shared else f"{own} ({_signed(gain(cells, arm, size, figure, over))})"


def _over(cells: Cells, arm: str, over: str) -> str:
    """The accuracy, where an arm is compared with itself; else the gain."""
    if arm == over:
        return f"{mean(cells, arm, ABLATED).mean:.1f}"
    return _signed(gain(cells, arm, ABLATED, over=over))


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


# --- plots ------------------------------------------------------------------------------------------------------------


def plot(cells: Cells, path: Path) -> None:
    figure, panels = plt.subplots(1, 4, figsize=(17, 4.2), layout="constrained")
    _samples_axis(panels[0], cells)
    _best_of_n(panels[1], cells)
    _ablation(panels[2], cells)
    _scaling(panels[3], cells)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _line(
    axes: Axes, at: Sequence[float], found: Sequence[Interval], label: str, colour: str, style: str = "-"
) -> None:
    middle = [each.mean for each in found]
    spread = [[each.mean - each.low for each in found], [each.high - each.mean for each in found]]
    axes.errorbar(at, middle, spread, label=label, color=colour, marker="o", capsize=3, linestyle=style)


def _samples_axis(axes: Axes, cells: Cells) -> None:
    for arm in PAIR[::-1]:
        sizes = [size for size in SIZES if values(cells, arm, size, "accuracy")]
        _line(axes, sizes, [mean(cells, arm, size) for size in sizes], arm, COLOURS[arm])
    axes.set(xscale="log", xlabel="finetuning pairs", ylabel="held-out pair accuracy (%)", title="Word problems")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.legend(frameon=False)


def _best_of_n(axes: Axes, cells: Cells) -> None:
    for arm, size, style in (
        (PAIR[1], SIZES[-1], ":"),
        (PAIR[0], SIZES[-1], ":"),
        (SOLVER[1], SOLVED, "-"),
        (SOLVER[0], SOLVED, "-"),
    ):
        if values(cells, arm, size, "best_of_n/1"):
            found = [mean(cells, arm, size, f"best_of_n/{n}") for n in N]
            colour = PAIR[arm in (PAIR[1], SOLVER[1])]
            label = f"{colour}, {'its own solutions' if style == '-' else 'mistakes put in'}"
            _line(axes, N, found, label, COLOURS[colour], style)
    axes.set(xscale="log", xlabel="N", ylabel="right (%)", title="Best-of-N of the language model's samples")
    axes.set_xticks(N, [str(n) for n in N])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)


def _ablation(axes: Axes, cells: Cells) -> None:
    """Gains over the start without PMP."""
    arms = [arm for arm in ARMS if arm not in (PAIR[0], *SCALING[:2]) and values(cells, arm, ABLATED, "accuracy")]
    gains = [gain(cells, arm, ABLATED) for arm in arms]
    for place, each in enumerate(gains):
        spread = [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar(each.mean, place, xerr=spread, color=COLOURS.get(arms[place], "black"), marker="o", capsize=3)
    axes.axvline(0, color="black", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set(xlabel="gain over no PMP (points)", title=f"What does it, {ABLATED} finetuning pairs")


def _scaling(axes: Axes, cells: Cells) -> None:
    arms = {ARMS[name].descriptions: name for name in SCALING if values(cells, name, ABLATED, "accuracy")}
    done = sorted(arms)
    _line(axes, done, [gain(cells, arms[count], ABLATED) for count in done], "PMP", COLOURS["PMP"])
    axes.axhline(0, color="black", linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="descriptions pretrained on", ylabel="gain over no PMP (points)", title="Scaling")
    axes.set_xticks(done, [f"{count:,}" for count in done])
    axes.minorticks_off()


def write_csv(cells: Cells, path: Path) -> None:
    """One row a cell and size."""
    rows = [
        {"arm": arm, "seed": seed, "pairs": size, **figures}
        for (arm, seed), sizes in cells.items()
        for size, figures in sizes.items()
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    cells, pretraining = read(folder)
    target = folder.parent / folder.name.removesuffix("_test")
    write_csv(cells, target.with_suffix(".csv"))
    text = table(cells, pretraining)
    target.with_suffix(".md").write_text(text)
    plot(cells, target.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
