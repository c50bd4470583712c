"""CodePMP (after arXiv 2410.02229) on the embedded world: does preference pretraining on code help a reward model?

    python -m benchmarks.codepmp --output benchmarks/results

One cell is an arm and a seed: a reward model pretrained on code pairs, or not, and finetuned apart on so many pairs of
word problems for each of several sizes; measured on the same held-out problems, by pair accuracy, best-of-N and
multiple choice. A seed redraws code problems, samples, code pairs, word problems, mistakes, heads and orders. Finished
cells are kept, so that an interrupted run goes on; the figures are `python -m benchmarks.codepmp_figures`.
Settings were chosen on the validation split with a seed of their own (`--validation`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_pref.modules import RewardFinetuneModule
    from lit_pref.synthesis.code_pairs.strong_weak import StrongWeakPairs
    from lit_pref.tasks.embedded.reasoning.grammar import Mistake
    from lit_pref.types import Split

START = "embedded:base"
DESCRIPTIONS = 12_000
SIZES = (100, 250, 500, 1000, 2000)
PRETRAINING = {"lr": 1e-3, "weight_decay": 0.1}
FRESH_HEAD_LR = 1e-3  # of a language model's finetuning: of 3e-4 and 1e-3 the better one; with PMP that is 3e-4
BATCH = 16  # of finetuning
# Mistakes of understanding; those of arithmetic, a result or a value carried on, no arm learns from so few pairs.
MISTAKES: tuple["Mistake", ...] = ("operation", "operand", "order")
HELD_OUT_PAIRS, BEST_OF_PROBLEMS, SAMPLES = 1000, 300, 16
N = (1, 2, 4, 8, 16)


def adamw(lr: float, weight_decay: float = 0.0) -> Any:
    """The optimizer that the kept figures were made with."""
    from torch.optim import AdamW

    return lambda params: AdamW(params, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95))


@dataclass(frozen=True)
class Arm:
    """How a reward model comes about before it is finetuned; without `descriptions` it is the language model.

    lr, epochs: of finetuning.
    pairs: fields of StrongWeakPairs, a construction by its name.
    others: also finetuned on the other tasks.
    solver: finetuned on right and wrong solutions that the language model samples, of like length, instead of on
        mistakes put into right ones; a size is then a number of problems.
    """

    sizes: Sequence[int] = (500,)
    descriptions: int = DESCRIPTIONS
    rm_coef: float = 1.0
    lm_coef: float = 1.0
    append_eos: bool = False
    fresh_head: bool = False
    lr: float = 3e-4
    epochs: int = 4
    pairs: dict[str, Any] = field(default_factory=dict)
    others: bool = False
    solver: bool = False


ABLATED, SOLVED = 500, 4000
ARMS: dict[str, Arm] = {
    "no PMP": Arm(SIZES, descriptions=0, lr=FRESH_HEAD_LR, others=True),
    "PMP": Arm(SIZES, others=True),
    "LM loss alone": Arm(rm_coef=0.0, fresh_head=True, lr=FRESH_HEAD_LR),
    "RM loss alone": Arm(lm_coef=0.0),
    "head drawn anew": Arm(fresh_head=True),
    "weak model at 61%": Arm(pairs={"weak": "embedded:coder"}),
    "verified pairs": Arm(pairs={"verified": True}),
    "mutants rejected": Arm(pairs={"construction": "MutatedRejected"}),
    "references chosen": Arm(pairs={"construction": "OriginalChosen"}),
    "clipped descriptions": Arm(pairs={"construction": "ClippedDescription"}),
    "end-of-code token": Arm(append_eos=True),
    "4,000 descriptions": Arm(descriptions=4_000),
    "1,000 descriptions": Arm(descriptions=1_000),
    "no PMP, solver's pairs": Arm((SOLVED,), descriptions=0, lr=FRESH_HEAD_LR, epochs=2, solver=True),
    "solver's pairs": Arm((SOLVED,), epochs=2, solver=True),
}


def run_cell(name: str, seed: int, split: "Split", scratch: Path) -> dict[str, Any]:
    """Pretrain and finetune an arm; figures by number of finetuning pairs."""
    from lit_pref.modules import RewardFinetuneModule
    from lit_pref.tasks import DeductionTask, ReasoningTask

    arm, found, policy = ARMS[name], {"arm": name, "seed": seed, "sizes": {}}, START
    if arm.descriptions:
        policy, found["pretraining"] = _pretrain(arm, seed, scratch)
    for size in arm.sizes:
        others = (ReasoningTask(), DeductionTask()) if arm.others and size == ABLATED else ()
        for task in (ReasoningTask(MISTAKES), *others):

            def module() -> RewardFinetuneModule:
                return RewardFinetuneModule(
                    policy, fresh_head=arm.fresh_head, append_eos=arm.append_eos, optimizer=adamw(arm.lr)
                )

            figures = _finetune(module, _data(arm, task, size, seed), arm.epochs, task, split)
            found["sizes"].setdefault(str(size), {}).update(figures)
    return found


def _pretrain(arm: Arm, seed: int, scratch: Path) -> tuple[str, dict[str, float]]:
    """The folder of the pretrained model, and what its last validation says."""
    from lightning.pytorch import seed_everything

    from lit_pref.datamodules import CodePairsDataModule
    from lit_pref.models import export_reward_model
    from lit_pref.modules import PMPretrainModule

    seed_everything(seed, verbose=False)
    module = PMPretrainModule(
        START, arm.rm_coef, arm.lm_coef, append_eos=arm.append_eos, optimizer=adamw(**PRETRAINING)
    )
    data = CodePairsDataModule(train_size=arm.descriptions, answers=_task_pairs(arm), seed=seed)
    trainer, seconds = _fit(module, data, epochs=1)
    folder = scratch / "pretrained"
    export_reward_model(module.model, module.score_head, module.tokenizer, folder, arm.append_eos)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("validation/")}
    return str(folder), {**figures, "pairs": len(data.data["train"]), "seconds": seconds}


def _task_pairs(arm: Arm) -> "StrongWeakPairs":
    from lit_pref.synthesis.code_pairs.constructions import constructions as code_pairs
    from lit_pref.synthesis.code_pairs.strong_weak import StrongWeakPairs

    fields = dict(arm.pairs)
    if "construction" in fields:
        fields["construction"] = getattr(code_pairs, fields["construction"])()
    return StrongWeakPairs(**fields)


def _data(arm: Arm, task: Any, size: int, seed: int) -> Any:
    from lit_pref.datamodules import ExecutionPairsDataModule, Samples, TaskPairsDataModule

    if not arm.solver:
        return TaskPairsDataModule(task, size, 16, batch_size=BATCH, seed=seed)
    samples = Samples(8, _sampling(), START)
    return ExecutionPairsDataModule(
        task, size, 100, samples=samples, strategy="length_matched", batch_size=BATCH, seed=seed
    )


def _sampling() -> Any:
    from lit_pref.types import Sampling

    return Sampling(max_new_tokens=96)


def _finetune(
    module_of: Callable[[], "RewardFinetuneModule"], data: Any, epochs: int, task: Any, split: "Split"
) -> dict[str, Any]:
    from lightning.pytorch import seed_everything

    from lit_pref.evaluation import BestOfN, MultipleChoiceAccuracy, PairAccuracy
    from lit_pref.tasks import ReasoningTask

    seed_everything(data.seed, verbose=False)
    module = module_of()
    _fit(module, data, epochs)
    correct = PairAccuracy(task, split, HELD_OUT_PAIRS)(module)["pair_accuracy"].float()
    if not isinstance(task, ReasoningTask):
        (chosen,) = MultipleChoiceAccuracy(task, split, HELD_OUT_PAIRS)(module).values()
        return {"deduction pairs": float(correct.mean()), "multiple choice": float(chosen.float().mean())}
    mistakes = [made.mistake for made in task.mistaken(split, HELD_OUT_PAIRS, 0)]
    name = "accuracy" if task.mistakes == MISTAKES else "of all mistakes"
    found = {name: float(correct.mean())}
    for mistake in task.mistakes:
        of_kind = [value for value, other in zip(correct.tolist(), mistakes, strict=True) if other == mistake]
        found[f"{name}, {mistake}"] = sum(of_kind) / len(of_kind)
    if name != "accuracy":
        return found
    best = BestOfN(task, START, N, SAMPLES, _sampling(), split, BEST_OF_PROBLEMS)
    figures = best(module) | best.oracle(module)
    return found | {figure: float(values.mean()) for figure, values in figures.items()}


def _fit(module: Any, data: Any, epochs: int) -> tuple[Any, float]:
    from lightning.pytorch import Trainer

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, gradient_clip_val=1.0, enable_checkpointing=False,
        num_sanity_val_steps=0, check_val_every_n_epoch=epochs, **quiet,
    )  # fmt: skip
    start = time.perf_counter()
    trainer.fit(module, data)
    return trainer, time.perf_counter() - start


# --- many cells -------------------------------------------------------------------------------------------------------


def _apart(name: str, seed: int, split: str, folder: Path) -> None:
    """A cell in a process of its own, on one thread, unless it is there."""
    kept = folder / f"{name.replace(' ', '_').replace(',', '')}-{seed}.json"
    if kept.exists():
        return
    command = [sys.executable, "-m", "benchmarks.codepmp", "--cell", name, str(seed), split, str(kept)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}, seed {seed}, failed:\n{done.stderr[-4000:]}")
    sizes = json.loads(kept.read_text())["sizes"]
    print(name, seed, {size: round(figures["accuracy"], 3) for size, figures in sizes.items()}, flush=True)


def _one(name: str, seed: str, split: Any, kept: str) -> None:
    import logging

    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        found = run_cell(name, int(seed), split, Path(scratch))
    Path(kept).write_text(json.dumps(found, indent=1) + "\n")


def _seeds(arm: str, arguments: argparse.Namespace) -> Sequence[int]:
    if arguments.validation:
        return [1000]
    return range(arguments.seeds if arm in ("no PMP", "PMP") else arguments.ablation_seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, default=5, help="of `no PMP` and `PMP`")
    parser.add_argument("--ablation_seeds", type=int, default=5, help="of all other arms")
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS], metavar="ARM", help="default: all")
    parser.add_argument("--processes", type=int, default=2, help="cells side by side, one thread each")
    parser.add_argument("--validation", action="store_true", help="on the validation split, as settings were chosen")
    parser.add_argument("--cell", nargs=4, metavar=("ARM", "SEED", "SPLIT", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        _one(*arguments.cell)
        return
    split = "validation" if arguments.validation else "test"
    folder = arguments.output / f"codepmp_{split}"
    folder.mkdir(parents=True, exist_ok=True)
    cells = [(name, seed) for name in arguments.arms for seed in _seeds(name, arguments)]
    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(lambda cell: _apart(*cell, split, folder), cells))
    print(f"now: python -m benchmarks.codepmp_figures {folder}")


if __name__ == "__main__":
    main()
