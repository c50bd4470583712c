"""DPO against TRL's `DPOTrainer`: tokens a second, same weights, same batches of pairs in the same order, same steps.

    python -m benchmarks.dpo_vs_trl [--json FILE] [--workloads docstrings long_prompts ...] [--runs 5]

Both sides train one epoch with AdamW (fused), clipping and a constant rate, one after the other in turns. Compared
are the steps alone, against TRL as it comes and with `precompute_ref_log_probs`, and the whole epoch: reading,
tokenizing, all reference work and training. The very batches that our data module draws are given to TRL, so that it
profits from their like lengths too. Before anything is timed, losses and log-probs of both sides must agree.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks import paired, workloads
from benchmarks.paired import Timing
from benchmarks.workloads import Workload
from lit_pref.data.row_files import file_rows
from lit_pref.datamodules import PairsDataModule
from lit_pref.losses import DPO
from lit_pref.modules import DPOModule, Engine

WORKLOADS = {each.name: each for each in workloads.ALL}
LEARNING_RATE = 1e-4


class _Steps(Callback):
    """When steps start and end, and what they hold."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.logps: list[float] = []
        self.batches: list[list[int]] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.starts.append(time.perf_counter())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.ends.append(time.perf_counter())
        self.tokens.append(batch.trees.num_tokens)
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.batches.append(batch.index_P.tolist())
        if batch_idx == 0:
            self.logps = [float(trainer.callback_metrics[f"train/logps/{side}"]) for side in ("chosen", "rejected")]


def ours(folder: Path, workload: Workload, precision: str, compiled: bool) -> Timing:
    steps = _Steps()
    with tempfile.TemporaryDirectory() as cache, patch.dict("os.environ", LIT_PREF_CACHE=cache):
        module = DPOModule(
            str(folder / "model"),
            DPO(beta=0.1),
            engine=Engine(compile=compiled),
            optimizer=partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0, fused=True),
            scheduler=None,
        )
        trainer = Trainer(
            max_epochs=1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            gradient_clip_val=1.0,
            accelerator="cpu",
            logger=False,
            callbacks=[steps],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=cache,
        )
        start = time.perf_counter()
        data = PairsDataModule(
            str(folder / "pairs.parquet"),
            validation_share=0.0,
            batch_size=workload.batch_size,
            seed=0,
        )
        trainer.fit(module, data)
        whole = time.perf_counter() - start
    seconds = steps.ends[-1] - steps.starts[1]
    tokens = sum(steps.tokens)
    held = steps.losses, steps.logps, steps.batches, paired.peak_bytes()
    return Timing(tokens - steps.tokens[0], seconds, tokens, whole, *held)


def trl(folder: Path, workload: Workload, precision: str, precompute: bool, order: Sequence[Sequence[int]]) -> Timing:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    datasets.disable_progress_bars()

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.starts: list[float] = []
            self.ends: list[float] = []
            self.logs: list[dict[str, float]] = []

        def on_step_begin(self, *arguments, **others) -> None:
            self.starts.append(time.perf_counter())

        def on_step_end(self, *arguments, **others) -> None:
            self.ends.append(time.perf_counter())

        def on_log(self, arguments, state, control, logs=None, **others) -> None:
            if logs and "loss" in logs:
                self.logs.append(logs)

    clock = Clock()
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        rows = [row.values for row in file_rows(folder / "pairs.parquet")]
        keys = ("prompt", "chosen", "rejected")
        data = datasets.Dataset.from_list([{key: rows[i][key] for key in keys} for batch in order for i in batch])
        config = DPOConfig(
            output_dir=output,
            per_device_train_batch_size=workload.batch_size,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            beta=0.1,
            max_length=None,
            precompute_ref_log_probs=precompute,
            precompute_ref_batch_size=workload.batch_size,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            bf16=precision == "bf16",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            dataset_num_proc=None,
        )
        trainer = DPOTrainer(
            model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[clock]
        )
        trainer.train()
        whole = time.perf_counter() - start
    tokens = [2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in trainer.train_dataset]
    first = len(order[0])
    seconds = clock.ends[-1] - clock.starts[1]
    logps = [float(clock.logs[0][f"logps/{side}"]) for side in ("chosen", "rejected")]
    losses = [float(log["loss"]) for log in clock.logs]
    held = losses, logps, list(map(list, order)), paired.peak_bytes()
    return Timing(sum(tokens[first:]), seconds, sum(tokens), whole, *held)


def compare(workload: Workload, precision: str, runs: int, compiled: bool) -> dict[str, float]:
    scratch = Path(tempfile.mkdtemp())
    try:
        folder = workloads.materialize(workload, scratch / workload.name, workload.steps * workload.batch_size)
        sides = {"ours": partial(ours, folder, workload, precision, False)}
        if compiled:
            sides["ours_compiled"] = partial(ours, folder, workload, precision, True)
        with paired.Sides(*sides, "trl", "trl_precomputed") as processes:
            mine = processes.turn(sides)["ours"]
            for name, precompute in (("trl", False), ("trl_precomputed", True)):
                sides[name] = partial(trl, folder, workload, precision, precompute, mine.batches)
            # TRL logs losses to four digits; bf16 rounds each logit by up to 2^-8.
            tolerance = 1e-3 if precision == "fp32" else 0.03
            theirs = processes.turn({name: sides[name] for name in ("trl", "trl_precomputed")})
            off = max(paired.check_equal(mine, timing, tolerance) for timing in theirs.values())
            timings = processes.turns(sides, runs)
        flops = workloads.useful_flops_per_token(folder)
    finally:
        shutil.rmtree(scratch)
    rate = paired.matmul_rate(torch.float32 if precision == "fp32" else torch.bfloat16)
    figures = {
        "runs": runs,
        "largest_relative_difference_of_losses": off,
        **{f"{name}_tokens_per_second": paired.median_rate(several) for name, several in timings.items()},
        **{f"{name}_tokens_per_second_whole": paired.median_rate(several, True) for name, several in timings.items()},
        "ratio": paired.ratio(timings, "ours", "trl"),
        "ratio_precomputed": paired.ratio(timings, "ours", "trl_precomputed"),
        "ratio_whole": paired.ratio(timings, "ours", "trl", whole=True),
        "ratio_whole_precomputed": paired.ratio(timings, "ours", "trl_precomputed", whole=True),
        "share_of_matmul_rate": paired.median_rate(timings["ours"]) * flops / rate,
        "matmul_gflops": rate / 1e9,
    }
    if compiled:
        figures["share_of_matmul_rate_compiled"] = paired.median_rate(timings["ours_compiled"]) * flops / rate
    return figures


def main() -> None:
    parser = paired.parser(__doc__)
    cases = [*WORKLOADS, "docstrings:bf16"]
    parser.add_argument("--workloads", nargs="+", default=cases, choices=cases, help="default: all")
    parser.add_argument("--compile", action="store_true", help="also ours with Engine(compile=True)")
    arguments = parser.parse_args()
    paired.be_quiet()
    paired.use_processors()
    host = paired.machine()
    print(paired.describe(host), flush=True)
    header = ["workload", "ours tok/s", "TRL", "precomp.", "ratio", "precomp.", "whole", "precomp.", "of matmul rate"]
    rows, results = [header], {}
    for case in arguments.workloads:
        name, _, precision = case.partition(":")
        figures = compare(WORKLOADS[name], precision or "fp32", arguments.runs, arguments.compile)
        results[case] = figures
        rows.append(_row(case, figures))
        print(f"{case}: {figures['ratio']:.2f} times TRL, {figures['ratio_precomputed']:.2f} precomputed", flush=True)
    print(paired.table(rows))
    paired.write_json(arguments.json, {"machine": host, **results})


def _row(case: str, figures: dict[str, float]) -> list[str]:
    rates = [f"{figures[f'{side}_tokens_per_second']:,.0f}" for side in ("ours", "trl", "trl_precomputed")]
    names = ("ratio", "ratio_precomputed", "ratio_whole", "ratio_whole_precomputed")
    return [case, *rates, *(f"{figures[name]:.2f}" for name in names), f"{figures['share_of_matmul_rate']:.0%}"]


if __name__ == "__main__":
    main()
