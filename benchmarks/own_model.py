"""Memory and time of a model of your own: measured on folders, and by formula for models of 0.1B to 8B.

    python -m benchmarks.own_model --model FOLDER [FOLDER ...] [--full] [--json FILE] [--runs 3] [--quick]
    python -m benchmarks.own_model --from_json FILE [--gflops 400000]

Measured, each in a process of its own: DPO steps with LoRA and, with `--full`, of all weights (pairs of the standard
library's functions, 4 a step), prompts read, and completions sampled at temperature 1, in fp32 and, where the processor
has instructions for it, bf16. Time is processor seconds, so that a busy machine measures nearly as an idle one; a rate
is given as a share of the machine's matrix products, too. What a model of another size takes is told by formula
(`model_sizes.py`), for a machine like this one or, with `--gflops`, for one that multiplies so many a second and
reaches the same shares. Not covered: models that are split over devices, offloading, quantized weights.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import command, paired, workloads
from benchmarks.dpo_vs_trl import ADAPTER, BETA
from benchmarks.model_sizes import BATCH, PROMPT, RESPONSE, Measured, Shape, estimates, shape_of, static_bytes
from benchmarks.peers import lightning_epoch, optimizer
from lit_pref.data.formats.pairs import read_pairs
from lit_pref.data.formats.write import write_pairs
from lit_pref.generation.policy import open_policy
from lit_pref.losses import DPO
from lit_pref.modules import DPOModule
from lit_pref.types import Dtype, Sampling


class Load(NamedTuple):
    """What is measured: steps of so many pairs, prompts of so many tokens read, samples of some prompts."""

    batch: int = BATCH
    steps: int = 3
    read: int = 2048
    prompts: int = 8
    samples: int = 8
    new_tokens: int = 128


QUICK = Load(batch=2, steps=2, read=256, prompts=4, samples=4, new_tokens=32)


# --- measuring: each in a process of its own --------------------------------------------------------------------------


def seconds() -> float:
    """Of each processor: what an idle machine would take but for its caches, however busy this one is."""
    return time.process_time() / torch.get_num_threads()


def training(folder: Path, load: Load, dtype: Dtype, full: bool) -> Measured:
    shape, before = shape_of(folder / "model"), paired.peak_bytes()

    def module() -> DPOModule:
        adapter = None if full else ADAPTER
        return DPOModule(
            str(folder / "model"), DPO(BETA), adapter=adapter, dtype=dtype, optimizer=optimizer, scheduler=None
        )

    matrix_rate = _matrix_rate(dtype)
    timing = lightning_epoch(module, folder / "pairs.parquet", load.batch, "fp32", clock=seconds)
    flops = workloads.useful_flops_per_token(folder, frozen=not full)
    rest = timing.peak_bytes - before - static_bytes(shape, dtype, full)
    held = rest / (timing.whole_tokens / load.steps * shape.layers * shape.width)
    return Measured(timing.rate, timing.rate * flops / matrix_rate, timing.peak_bytes, held)


def sampling(folder: Path, load: Load, dtype: Dtype) -> Measured:
    policy, shape = open_policy(str(folder / "model"), dtype=dtype), shape_of(folder / "model")
    matrix_rate, drawn = _matrix_rate(dtype), Sampling(max_new_tokens=load.new_tokens)
    prompts = [pair.prompt for pair in read_pairs(folder / "pairs.parquet").records[: load.prompts]]
    start = seconds()
    completions = policy.generator().generate(prompts, load.samples, drawn, 0)
    rate = sum(len(each.token_ids) for several in completions for each in several) / (seconds() - start)
    return _forward(rate, shape, matrix_rate, shape.layers * shape.linear + shape.head)


def reading(folder: Path, load: Load, dtype: Dtype) -> Measured:
    """Prompts of 256 tokens, through the layers."""
    policy, shape = open_policy(str(folder / "model"), dtype=dtype), shape_of(folder / "model")
    matrix_rate, ids = _matrix_rate(dtype), torch.randint(shape.vocabulary // 2, (load.read // 256, 256))
    with torch.inference_mode():
        start = seconds()
        policy.model.base_model(input_ids=ids, use_cache=False)
    return _forward(ids.numel() / (seconds() - start), shape, matrix_rate, shape.layers * shape.linear)


def _forward(rate: float, shape: Shape, matrix_rate: float, weights: int) -> Measured:
    return Measured(rate, rate * 2 * weights / matrix_rate, 0, 0.0)


def _matrix_rate(dtype: Dtype) -> float:
    return paired.matmul_rate(torch.bfloat16 if dtype == "bfloat16" else torch.float32, clock=seconds)


def measure(folder: Path, load: Load, full: bool, runs: int) -> dict[str, Measured]:
    dtypes: list[Dtype] = ["float32", *(["bfloat16"] if paired.has_bf16() else [])]
    works: dict[str, Callable[[], Measured]] = {}
    for dtype in dtypes:
        works |= {f"{name} {dtype}": partial(work, folder, load, dtype) for name, work in _FORWARD.items()}
        works[f"lora {dtype}"] = partial(training, folder, load, dtype, False)
    if full:
        works["full float32"] = partial(training, folder, load, "float32", True)
    found = {}
    for name, work in works.items():
        several = []
        for _ in range(runs):
            with paired.Sides(name) as sides:
                several.append(sides.processes[name].submit(work).result())
        found[name] = Measured(*map(statistics.median, zip(*several, strict=True)))
        print(f"  {name}: {found[name].rate:,.0f} tokens/s, {found[name].share:.0%} of matrix products", flush=True)
    return found


_FORWARD: dict[str, Callable[[Path, Load, Dtype], Measured]] = {"reading": reading, "sampling": sampling}


def main() -> None:
    parser = command.parser(__doc__, runs=3)
    parser.add_argument("--model", type=Path, nargs="+", help="folders of models, the largest last")
    parser.add_argument("--full", action="store_true", help="also DPO of all weights: 16 bytes each")
    parser.add_argument("--from_json", type=Path, help="the figures of an earlier run, for the table by formula alone")
    parser.add_argument("--gflops", type=float, help="matrix products of the machine that times are for")
    arguments = command.parse(parser)
    if (arguments.model is None) == (arguments.from_json is None):
        parser.error("give --model or --from_json")
    if arguments.from_json:
        figures = json.loads(arguments.from_json.read_text())
    else:
        figures = _measured(arguments)
        command.write_json(arguments.json, figures)
    host = figures["machine"]
    print(paired.describe(host))
    rows = [["model", "work", "tokens/s", "of matrix products", "peak GB"]]
    for name, works in figures["models"].items():
        rows += [
            [name, work, f"{m[0]:,.0f}", f"{m[1]:.0%}", f"{m[2] / 1e9:.1f}" if m[2] else "–"]
            for work, m in works.items()
        ]
    print(paired.table(rows))
    merged: dict[str, Measured] = {}
    for works in figures["models"].values():  # the largest last
        merged |= {work: Measured(*values) for work, values in works.items()}
    rates = {"float32": host["matmul_gflops_fp32"], "bfloat16": host["matmul_gflops_bf16"] or 0}
    given = {dtype: arguments.gflops or rate for dtype, rate in rates.items()}
    print(f"\nby formula, 1,000 pairs and 1,000 completions of {PROMPT} + {RESPONSE} tokens, batches of {BATCH} pairs:")
    print(paired.table(estimates(merged, given)))


def _measured(arguments: argparse.Namespace) -> dict[str, object]:
    paired.be_quiet()
    paired.use_processors()
    load = QUICK if arguments.quick else Load()
    host, models, functions = paired.machine(), {}, list(workloads.mined_functions())
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    host |= {
        f"matmul_gflops_{name}": round(paired.matmul_rate(dtype, clock=seconds) / 1e9)
        for name, dtype in dtypes.items()
        if host[f"matmul_gflops_{name}"]
    }
    for model in arguments.model:
        print(model.name, flush=True)
        folder = Path(tempfile.mkdtemp())
        try:
            (folder / "model").symlink_to(model.resolve(), target_is_directory=True)
            tokenizer = workloads.load_tokenizer(str(model))
            pairs = workloads.docstring_pairs(functions, tokenizer, max(load.batch * load.steps, load.prompts), 0)
            write_pairs(folder / "pairs.parquet", pairs)
            models[model.name] = measure(folder, load, arguments.full, arguments.runs)
        finally:
            shutil.rmtree(folder)
    return {"machine": host, "runs": arguments.runs, "models": models}


if __name__ == "__main__":
    main()
