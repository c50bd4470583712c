"""DPO against TRL's `DPOTrainer`: tokens a second, same weights, same batches of pairs in the same order, same steps.

    python -m benchmarks.dpo_vs_trl [--json FILE] [--workloads docstrings long_prompts ...] [--runs 5] [--quick]

Compared are the steps alone, against TRL as it comes and with `precompute_ref_log_probs`, and the whole epoch:
reading, tokenizing, all reference work and training. Before anything is timed, losses and log-probs of both sides must
agree. Memory is the most that a side's process has held resident; on a GPU, that tensors held there. bf16 is compared
only where the processor has instructions for it. `--quick` takes three steps of the first workload, once, and leaves
the precomputed reference out.
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
from benchmarks.paired import Side, Timing
from benchmarks.peers import lightning_epoch, optimizer, trl_epoch
from benchmarks.workloads import Workload
from lit_pref.losses import DPO
from lit_pref.modules import Compute, DPOModule

WORKLOADS = {each.name: each for each in workloads.ALL}
BETA = 0.1


def ours(folder: Path, batch_size: int, precision: str, device: str, compiled: bool) -> Timing:
    def module() -> DPOModule:
        policy, compute = str(folder / "model"), Compute(compile=compiled)
        return DPOModule(policy, DPO(BETA), compute=compute, optimizer=optimizer, scheduler=None)

    return lightning_epoch(module, folder / "pairs.parquet", batch_size, precision, device)


def trl(folder: Path, batches: Sequence[Sequence[int]], precision: str, device: str, precompute: bool) -> Timing:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")

    def trainer(rows: Any, settings: dict[str, Any], clock: Any) -> DPOTrainer:
        config = DPOConfig(
            **settings,
            beta=BETA,
            precompute_ref_log_probs=precompute,
            precompute_ref_batch_size=settings["per_device_train_batch_size"],
        )
        return DPOTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[clock])

    return trl_epoch(trainer, folder / "pairs.parquet", batches, precision, device)


def compare(
    workload: Workload, precision: str, device: str, runs: int, compiled: bool, quick: bool
) -> dict[str, float]:
    arms = {"trl": False} if quick else {"trl": False, "trl_precomputed": True}
    scratch = Path(tempfile.mkdtemp())
    try:
        folder = workloads.materialize(workload, scratch / workload.name, workload.steps * workload.batch_size)
        given = (folder, workload.batch_size, precision, device)
        sides: dict[str, Side] = {"ours": partial(ours, *given, False)}
        if compiled:
            sides["ours_compiled"] = partial(ours, *given, True)
        with paired.Sides(*sides, *arms) as processes:
            mine = processes.turn(sides)["ours"]
            peers: dict[str, Side] = {
                name: partial(trl, folder, mine.batches, precision, device, precompute)
                for name, precompute in arms.items()
            }
            # Rounding grows with every step; bf16 rounds each logit by up to 2^-8.
            tolerance = 1e-3 if precision == "fp32" else 0.03
            off = max(paired.check_equal(mine, theirs, tolerance) for theirs in processes.turn(peers).values())
            timings = processes.turns(sides | peers, runs)
        flops = workloads.useful_flops_per_token(folder)
    finally:
        shutil.rmtree(scratch)
    rate = paired.matmul_rate(torch.float32 if precision == "fp32" else torch.bfloat16, device)
    figures = {
        "runs": runs,
        "largest_relative_difference_of_losses": off,
        **{f"{name}_tokens_per_second": paired.median_rate(several) for name, several in timings.items()},
        **{f"{name}_tokens_per_second_whole": paired.median_rate(several, True) for name, several in timings.items()},
        **{f"{name}_peak_bytes": several[-1].peak_bytes for name, several in timings.items()},
        **{name.replace("trl", "ratio"): paired.ratio(timings, "ours", name) for name in arms},
        **{name.replace("trl", "ratio_whole"): paired.ratio(timings, "ours", name, whole=True) for name in arms},
        "share_of_matmul_rate": paired.median_rate(timings["ours"]) * flops / rate,
        "matmul_gflops": rate / 1e9,
    }
    if compiled:
        figures |= {
            **{name.replace("trl", "ratio_compiled"): paired.ratio(timings, "ours_compiled", name) for name in arms},
            "share_of_matmul_rate_compiled": paired.median_rate(timings["ours_compiled"]) * flops / rate,
        }
    return figures


def main() -> None:
    parser = command.parser(__doc__)
    on_cpu = [each.name for each in workloads.ALL]
    cases = [*on_cpu, "docstrings:bf16", f"{workloads.GPU.name}:bf16"]
    parser.add_argument("--workloads", nargs="+", choices=cases, help="default: those for a CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="also ours with Compute(compile=True)")
    arguments = command.parse(parser)
    paired.be_quiet()
    paired.use_processors()
    host = paired.machine(arguments.device)
    print(paired.describe(host), flush=True)
    header = ["workload", "ours tok/s", "TRL", "precomp.", "ratio", "precomp.", "whole", "precomp.", "of matmul rate"]
    rows, results = [header], {}
    for case in arguments.workloads or (cases[:1] if arguments.quick else cases[:-1]):
        name, _, precision = case.partition(":")
        if precision == "bf16" and not paired.has_bf16(arguments.device):
            print(f"{case}: left out, this processor has no bf16 instructions", flush=True)
            continue
        workload = WORKLOADS.get(name, workloads.GPU)
        workload = replace(workload, steps=min(3, workload.steps)) if arguments.quick else workload
        settings = (precision or "fp32", arguments.device, arguments.runs, arguments.compile, arguments.quick)
        figures = results[case] = compare(workload, *settings)
        rows.append(_row(case, figures))
        print(f"{case}: {figures['ratio']:.2f} times TRL", flush=True)
        command.write_json(arguments.json, {"machine": host, **results})  # what is there if the rest is cut off
    print(paired.table(rows))


def _row(case: str, figures: dict[str, float]) -> list[str]:
    rates = [figures.get(f"{side}_tokens_per_second") for side in ("ours", "trl", "trl_precomputed")]
    names = ("ratio", "ratio_precomputed", "ratio_whole", "ratio_whole_precomputed")
    cells = [*("–" if rate is None else f"{rate:,.0f}" for rate in rates)]
    cells += [f"{figures[name]:.2f}" if name in figures else "–" for name in names]
    return [case, *cells, f"{figures['share_of_matmul_rate']:.0%}"]


if __name__ == "__main__":
    main()
