"""DPO against TRL's `DPOTrainer`: tokens a second, same weights, same batches of pairs in the same order, same steps.

    python -m benchmarks.dpo_vs_trl [--json FILE] [--workloads docstrings long_prompts ...] [--runs 5] [--quick]

Compared are the steps alone, against TRL as it comes and with `precompute_ref_log_probs`, and the whole epoch:
reading, tokenizing, all reference work and training. Before anything is timed, losses and log-probs of both sides must
agree. Memory is the most that a side's process has held resident; on a GPU, that tensors held there. bf16 is compared
only where the processor has instructions for it. `--quick` takes three steps of the first workload, once, and leaves
the precomputed reference out.

    python -m benchmarks.dpo_vs_trl --model FOLDER --pairs FILE [--batch_size 4] [--steps 4]

compares on a model of yours and on pairs of a file, with LoRA on both sides, against the precomputed reference.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks import command, paired, workloads
from benchmarks.paired import Side, Timing
from benchmarks.peers import lightning_epoch, optimizer, trl_epoch
from benchmarks.workloads import Workload
from lit_pref.losses import DPO
from lit_pref.models import LoRA
from lit_pref.modules import Compute, DPOModule

WORKLOADS = {each.name: each for each in workloads.ALL}
BETA = 0.1
SEED = 0  # of adapters, drawn alike on both sides
ADAPTER = LoRA(r=16, lora_alpha=32)  # as in configs/model/lora.yaml


class Real(NamedTuple):
    """A model's folder, and a file of pairs."""

    model: Path
    pairs: Path


def ours(folder: Path, batch_size: int, precision: str, device: str, compiled: bool, lora: bool) -> Timing:
    def module() -> DPOModule:
        policy, compute, adapter = str(folder / "model"), Compute(compile=compiled), ADAPTER if lora else None
        made = DPOModule(policy, DPO(BETA), adapter=adapter, compute=compute, optimizer=optimizer, scheduler=None)
        draw_adapter(made)
        return made

    return lightning_epoch(module, folder / "pairs.parquet", batch_size, precision, device)


def trl(
    folder: Path, batches: Sequence[Sequence[int]], precision: str, device: str, precompute: bool, lora: bool
) -> Timing:
    from peft import LoraConfig
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
        adapter = LoraConfig(**asdict(ADAPTER) | {"target_modules": "all-linear"}) if lora else None
        made = DPOTrainer(
            model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[clock], peft_config=adapter
        )
        draw_adapter(made.model)
        return made

    return trl_epoch(trainer, folder / "pairs.parquet", batches, precision, device)


def draw_adapter(model: nn.Module) -> None:
    """Draw an adapter's first matrices, which each side seeds in its own way, alike on both."""
    draws = torch.Generator().manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=draws)


def compare(
    workload: Workload, precision: str, device: str, runs: int, compiled: bool, quick: bool, real: Real | None = None
) -> dict[str, float]:
    """real: its model and pairs, with adapters, in place of the workload's."""
    arms = {"trl_precomputed": True} if real else {"trl": False} if quick else {"trl": False, "trl_precomputed": True}
    scratch, count, lora = Path(tempfile.mkdtemp()), workload.steps * workload.batch_size, real is not None
    try:
        if real is None:
            folder = workloads.materialize(workload, scratch / workload.name, count)
        else:
            folder = workloads.of_model(real.model, real.pairs, scratch / workload.name, count)
        given = (folder, workload.batch_size, precision, device)
        sides: dict[str, Side] = {"ours": partial(ours, *given, False, lora)}
        if compiled:
            sides["ours_compiled"] = partial(ours, *given, True, lora)
        with paired.Sides(*sides, *arms) as processes:
            mine = processes.turn(sides)["ours"]
            peers: dict[str, Side] = {
                name: partial(trl, folder, mine.batches, precision, device, precompute, lora)
                for name, precompute in arms.items()
            }
            # Rounding grows with every step; bf16 rounds each logit by up to 2^-8.
            tolerance = 1e-3 if precision == "fp32" else 0.03
            off = max(paired.check_equal(mine, theirs, tolerance) for theirs in processes.turn(peers).values())
            timings = processes.turns(sides | peers, runs)
        flops = workloads.useful_flops_per_token(folder, frozen=lora)
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
        **{
            name.replace("trl", "ratio_of_peak"): timings["ours"][-1].peak_bytes / timings[name][-1].peak_bytes
            for name in arms
        },
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
    parser.add_argument("--model", type=Path, help="a model folder, with --pairs, in place of the workloads")
    parser.add_argument("--pairs", type=Path, help="a file of pairs, as lit-pref synthesize writes it")
    parser.add_argument("--batch_size", type=int, default=4, help="pairs a step, with --model")
    parser.add_argument("--steps", type=int, default=4, help="of each run, with --model")
    arguments = command.parse(parser)
    if (arguments.model is None) != (arguments.pairs is None):
        parser.error("--model and --pairs go together")
    paired.be_quiet()
    paired.use_processors()
    host = paired.machine(arguments.device)
    print(paired.describe(host), flush=True)
    header = ["workload", "ours tok/s", "TRL", "precomp.", "ratio", "precomp.", "whole", "precomp.", "of matmul rate"]
    rows, results = [header], {}
    if arguments.model is not None:
        name = arguments.model.name
        workload = Workload(name, workloads.Shape(), arguments.batch_size, arguments.steps)
        settings = (arguments.device, arguments.runs, arguments.compile, arguments.quick)
        figures = compare(workload, "fp32", *settings, Real(arguments.model, arguments.pairs))
        command.write_json(arguments.json, {"machine": host, name: figures})
        print(paired.table([header, _row(name, figures)]))
        print(f"peak memory: {figures['ratio_of_peak_precomputed']:.2f} of TRL's")
        return
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
