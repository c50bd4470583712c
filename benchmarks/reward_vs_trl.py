"""Reward models against TRL's `RewardTrainer`: tokens a second, same weights and head, same batches of pairs.

    python -m benchmarks.reward_vs_trl [--json FILE] [--workloads docstrings long_prompts] [--runs 5] [--quick]

All sides start from one exported sequence classifier of one label. `ours` is reward finetuning. `pmp` is
preference-model pretraining without its language-model loss: the same training by another module. `pmp_lm` adds that
loss, which TRL does not compute. Compared are the steps alone and the whole epoch: reading, tokenizing and training.
Before anything is timed, the losses of all steps of `ours` and `pmp` must equal TRL's to 1e-5. `--quick` takes
three steps of the first workload.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import command, paired, workloads
from benchmarks.paired import Timing
from benchmarks.peers import lightning_epoch, optimizer, trl_epoch
from benchmarks.workloads import Workload
from lit_pref.models import export_reward_model, fresh_score_head, load_causal_lm, load_tokenizer
from lit_pref.modules import Compute, PMPretrainModule, RewardFinetuneModule

WORKLOADS = {each.name: each for each in (workloads.DOCSTRINGS, workloads.LONG_PROMPTS)}
TOLERANCE = 1e-5  # of fp32 losses, relative


def ours(folder: Path, batch_size: int, compiled: bool = False) -> Timing:
    def module() -> RewardFinetuneModule:
        policy, compute = str(folder / "classifier"), Compute(compile=compiled)
        return RewardFinetuneModule(policy, compute=compute, optimizer=optimizer, scheduler=None)

    return lightning_epoch(module, folder / "pairs.parquet", batch_size, "fp32")


def pmp(folder: Path, batch_size: int, lm_coef: float) -> Timing:
    def module() -> PMPretrainModule:
        policy = str(folder / "classifier")
        return PMPretrainModule(policy, lm_coef=lm_coef, append_eos=True, optimizer=optimizer, scheduler=None)

    return lightning_epoch(module, folder / "pairs.parquet", batch_size, "fp32")


def trl(folder: Path, batches: Sequence[Sequence[int]]) -> Timing:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(folder / "classifier", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "classifier")

    def trainer(rows: Any, settings: dict[str, Any], clock: Any) -> RewardTrainer:
        config = RewardConfig(**settings)
        return RewardTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[clock])

    return trl_epoch(trainer, folder / "pairs.parquet", batches, "fp32")


def compare(workload: Workload, runs: int, compiled: bool) -> dict[str, float]:
    scratch = Path(tempfile.mkdtemp())
    try:
        folder = workloads.materialize(workload, scratch / workload.name, workload.steps * workload.batch_size)
        model = load_causal_lm(str(folder / "model"))
        export_reward_model(
            model, fresh_score_head(model), load_tokenizer(str(folder / "model")), folder / "classifier"
        )
        rewards = {
            "ours": partial(ours, folder, workload.batch_size),
            "pmp": partial(pmp, folder, workload.batch_size, 0.0),
        }
        others = {"pmp_lm": partial(pmp, folder, workload.batch_size, 1.0)}
        if compiled:
            others["ours_compiled"] = partial(ours, folder, workload.batch_size, True)
        with paired.Sides(*rewards, *others, "trl") as processes:
            mine = processes.turn(rewards)
            peers = {"trl": partial(trl, folder, mine["ours"].batches)}
            theirs = processes.turn(peers)["trl"]
            off = max(paired.check_equal(timing, theirs, TOLERANCE) for timing in mine.values())
            processes.turn(others)  # warm too
            timings = processes.turns(rewards | others | peers, runs)
        flops = workloads.useful_flops_per_token(folder, rewards=True)
    finally:
        shutil.rmtree(scratch)
    rate = paired.matmul_rate(torch.float32)
    return {
        "runs": runs,
        "largest_relative_difference_of_losses": off,
        **{f"{name}_tokens_per_second": paired.median_rate(several) for name, several in timings.items()},
        **{f"{name}_tokens_per_second_whole": paired.median_rate(several, True) for name, several in timings.items()},
        "ratio": paired.ratio(timings, "ours", "trl"),
        "ratio_whole": paired.ratio(timings, "ours", "trl", whole=True),
        **{f"ratio_{name}": paired.ratio(timings, name, "trl") for name in timings if name not in ("ours", "trl")},
        "share_of_matmul_rate": paired.median_rate(timings["ours"]) * flops / rate,
        "matmul_gflops": rate / 1e9,
    }


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--workloads", nargs="+", choices=[*WORKLOADS], help="default: all")
    parser.add_argument("--compile", action="store_true", help="also ours with Compute(compile=True)")
    arguments = command.parse(parser)
    paired.be_quiet()
    paired.use_processors()
    host = paired.machine()
    print(paired.describe(host), flush=True)
    rows, results = [["workload", "ours tok/s", "TRL", "ratio", "whole", "PMP", "with LM loss", "of matmul rate"]], {}
    for name in arguments.workloads or list(WORKLOADS)[: 1 if arguments.quick else None]:
        workload = WORKLOADS[name]
        workload = replace(workload, steps=min(3, workload.steps)) if arguments.quick else workload
        figures = results[name] = compare(workload, arguments.runs, arguments.compile)
        rates = [f"{figures[f'{side}_tokens_per_second']:,.0f}" for side in ("ours", "trl")]
        ratios = [f"{figures[key]:.2f}" for key in ("ratio", "ratio_whole", "ratio_pmp", "ratio_pmp_lm")]
        rows.append([name, *rates, *ratios, f"{figures['share_of_matmul_rate']:.0%}"])
        print(f"{name}: {figures['ratio']:.2f} times TRL", flush=True)
        command.write_json(arguments.json, {"machine": host, **results})  # what is there if the rest is cut off
    print(paired.table(rows))


if __name__ == "__main__":
    main()
