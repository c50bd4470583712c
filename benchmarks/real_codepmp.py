"""CodePMP (after arXiv 2410.02229) on pretrained models: a stronger coder over a weaker one, then word problems.

    python -m benchmarks.real_codepmp --model FOLDER --strong FOLDER --solutions example_model_solutions.jsonl
        [--arms no_pmp pmp] [--sizes 100 400] [--seeds 0 1 2]

`--strong` and `--model` write code from docstrings of the standard library; `--model` is pretrained on the pairs, once;
with that and without, a reward model is finetuned on right over wrong solutions of so many GSM8K questions. Measured on
a quarter of the questions, held out: pair accuracy, and the best of the four solutions by score beside majority vote,
their mean and the most that any score could reach. A seed redraws pairs, order, adapter and a fresh head. The commands
are a user's, by `configs/real/`. A cell is an arm, a size and a seed; its row is added to `real_codepmp.csv` when it is
done, and the same command goes on where it was interrupted. Then `python -m benchmarks.real_codepmp_figures`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cells import add_row, fitted, lit_pref, rows
from lit_pref.machine.processors import multiplies_bf16
from lit_pref.tasks import GSM8KSolutions
from lit_pref.tasks.grading.answers import to_number
from lit_pref.tasks.published.solution_pairs import Solution

ARMS = ("no_pmp", "pmp")
CODE_PAIRS = ["--config", "configs/real/code_pairs.yaml"]
PRETRAINING = ["--config", "configs/real/pmp_smollm2.yaml"]
FINETUNING = ["--config", "configs/real/reward_gsm8k_smollm2.yaml"]
UNMEASURED = ["--trainer.callbacks", "[]", "--data.validation_size", "0", "--data.test_size", "0"]


class Cell(NamedTuple):
    arm: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.size}-{self.seed}"


def cells(arms: Sequence[str], sizes: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    return [Cell(arm, size, seed) for seed in seeds for size in sizes for arm in arms]


def run_cell(cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row of a cell, all of whose parts are kept in the runs folder."""
    policy, pretraining = arguments.model, {}
    if cell.arm == "pmp":
        policy, pretraining = pretrained(arguments)
    given = [*FINETUNING, "--model.policy", str(policy), "--data.task.source", str(arguments.solutions)]
    given += ["--data.train_size", str(cell.size), "--seed_everything", str(cell.seed), *UNMEASURED]
    run = fitted([*given, "--model.dtype", arguments.dtype], arguments.runs_folder, cell.name)
    summary = json.loads((run / "summary.json").read_text())
    start = time.monotonic()
    found = held_out(run / "checkpoints" / "last.ckpt", arguments)
    seconds = {"train_seconds": round(summary["train_seconds"]), "score_seconds": round(time.monotonic() - start)}
    return {**cell._asdict(), **found, **seconds, **pretraining}


# --- pretraining ------------------------------------------------------------------------------------------------------


def pretrained(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The folder of the pretrained model, and what pretraining came to; made once."""
    runs, pairs = arguments.runs_folder, arguments.runs_folder / "code_pairs"
    if not (pairs / "summary.json").exists():
        who = ["--strong", arguments.strong, "--weak", arguments.model]
        who += [] if arguments.dtype == "float32" else ["--dtype", arguments.dtype]
        recipe = ["synthesize", *CODE_PAIRS, "--output", str(pairs), *who]
        lit_pref(recipe, log=runs / "logs" / "code_pairs.log")
    given = [*PRETRAINING, "--model.policy", arguments.model, "--data.train", str(pairs / "pairs")]
    precision = "32-true" if arguments.dtype == "float32" else "bf16-mixed"
    run = fitted([*given, "--trainer.precision", precision], runs, "pretraining")
    folder = runs / "pretrained_model"
    if not (folder / "config.json").exists():
        checkpoint = str(run / "checkpoints" / "last.ckpt")
        lit_pref(["export", "--checkpoint", checkpoint, "--output", str(folder)], log=runs / "logs" / "export.log")
    summary = json.loads((run / "summary.json").read_text())
    counts = json.loads((pairs / "summary.json").read_text())["counts"]
    return folder, {
        "pretraining/pairs": counts["pairs"],
        "pretraining/validation_accuracy": summary["after"]["pair_accuracy"],
        "pretraining/seconds": round(summary["wall_seconds"]),
    }


# --- held-out questions -----------------------------------------------------------------------------------------------


def held_out(checkpoint: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures over all questions of the test split, and of each what they are made of, in the order of the file.

    `ranked`: of each question with right and wrong solutions two digits, how many pairs of them are ranked rightly
    (strictly) and how many there are; `best`: of each question whether the solution with the highest score is right.
    """
    task = GSM8KSolutions(str(arguments.solutions))
    of_questions: dict[str, list[Solution]] = {}
    for solution in task.solutions("test"):
        of_questions.setdefault(solution.question, []).append(solution)
    several = list(of_questions.values())[: arguments.questions]
    mixed = [each for each in several if len({solution.right for solution in each}) == 2]
    scores = iter(scored(checkpoint, task, mixed, arguments.dtype))
    ranked, best = "", ""
    for each in several:
        if each not in mixed:
            best += str(int(each[0].right))
            continue
        values = next(scores)
        right = [value for value, solution in zip(values, each, strict=True) if solution.right]
        wrong = [value for value, solution in zip(values, each, strict=True) if not solution.right]
        ranked += f"{sum(a > b for a in right for b in wrong)}{len(right) * len(wrong)}"
        best += str(int(each[max(range(len(each)), key=values.__getitem__)].right))
    shares = [int(ranked[place]) / int(ranked[place + 1]) for place in range(0, len(ranked), 2)]
    return {
        "accuracy": mean(shares),
        "best_of_4": mean([float(mark) for mark in best]),
        "majority": mean([majority(each) for each in several]),
        "mean": mean([mean([float(solution.right) for solution in each]) for each in several]),
        "oracle": mean([float(any(solution.right for solution in each)) for each in several]),
        "ranked": f"p{ranked}",
        "best": f"p{best}",
    }


def scored(
    checkpoint: Path, task: GSM8KSolutions, several: Sequence[Sequence[Solution]], dtype: Any
) -> list[list[float]]:
    """The reward model's score of each solution."""
    from lit_pref.callbacks.checkpoint_io import read_checkpoint
    from lit_pref.models import LoRA
    from lit_pref.modules import RewardFinetuneModule
    from lit_pref.rewards.learned import Candidates, score

    content = read_checkpoint(checkpoint)
    saved = content["lit_pref"]
    module = RewardFinetuneModule(
        saved["policy"], fresh_head=True, append_eos=saved["append_eos"], adapter=LoRA(**saved["adapter"]), dtype=dtype
    )
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"], strict=False)
    prompts = [Candidates(task.prompt(each[0].question), [solution.text for solution in each]) for each in several]
    return [scores.tolist() for scores in score(module, prompts, max_tokens=4096)]


def majority(several: Sequence[Solution]) -> float:
    """How likely the answer that most solutions come to is right; answers of equally many share the vote."""
    answers = [to_number(solution.text.rpartition("A:")[2]) for solution in several]
    votes = Counter(answer for answer in answers if answer is not None)
    first = [answer for answer, count in votes.items() if count == max(votes.values())]
    right = {answer for answer, solution in zip(answers, several, strict=True) if solution.right}
    return mean([float(answer in right) for answer in first]) if first else 0.0


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", required=True, help="the reward model's start, and the weaker coder")
    made.add_argument("--strong", required=True, help="the stronger coder")
    made.add_argument("--solutions", type=Path, required=True, help="example_model_solutions.jsonl of GSM8K's authors")
    made.add_argument("--arms", nargs="+", default=[*ARMS], choices=ARMS, metavar="ARM", help="default: both")
    made.add_argument("--sizes", nargs="+", type=int, default=[100, 400], help="questions finetuned on, a pair each")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    made.add_argument("--questions", type=int, help="held-out questions at most; default: all, about 350")
    made.add_argument("--dtype", default="bfloat16" if multiplies_bf16() else "float32", help="of frozen weights")
    made.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="where the CSV lies")
    made.add_argument("--runs_folder", type=Path, default=Path("runs/real_codepmp"))
    return made


def main() -> None:
    arguments = parser().parse_args()
    table = arguments.results / "real_codepmp.csv"
    done = {(row["arm"], row["size"], row["seed"]) for row in rows(table)}
    for cell in cells(arguments.arms, arguments.sizes, arguments.seeds):
        if (cell.arm, str(cell.size), str(cell.seed)) in done:
            continue
        row = run_cell(cell, arguments)
        add_row(table, row)
        print(f"{cell.name}: accuracy {100 * row['accuracy']:.1f}, best of 4 {100 * row['best_of_4']:.1f}", flush=True)
    print(f"now: python -m benchmarks.real_codepmp_figures {table}")


if __name__ == "__main__":
    main()
