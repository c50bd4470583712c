"""Where the time of a DPO step goes, before and after this kit's kernels: milliseconds by kind of operation.

    python -m benchmarks.step_profile [--json FILE] [--runs 5] [--quick]

Docstring pairs in fp32, 8 at a time. `repeated` is the layout of peers, `dense` shares prompts under dense masks with
logits through autograd, `trees` is what the kit does, `compiled` the same with Compute(compile=True); the first two run
with the allocator as it comes. Each runs in a process of its own; figures are means over the profiled steps, and the
profiler itself takes its share of what is left over.
"""

import shutil
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import command, paired, workloads
from lit_pref.data.batches.order import Batching
from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.data.formats.pairs import read_pairs
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.losses import DPO, completion_logps, token_scores
from lit_pref.machine.allocator import keep_freed_memory
from lit_pref.models import lm_head, predictor_hidden_states
from lit_pref.modules import Compute, DPOModule
from lit_pref.types import PairLogps, RowBatch

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::linear"),
    "attention": ("aten::_scaled_dot_product", "aten::_flash_attention"),
    "softmax over the vocabulary": ("aten::_log_softmax", "aten::exp", "aten::linalg_vecdot", "aten::_softmax"),
    "optimizer and clipping": ("aten::_fused_adamw", "aten::linalg_vector_norm", "aten::_foreach"),
}
VARIANTS = {
    "repeated": Compute(layout="repeated"),
    "dense": Compute(layout="shared"),
    "trees": Compute(layout="packed"),
    "compiled": Compute(layout="packed", compile=True),
}


def batches(module: DPOModule, folder: Path, compute: Compute) -> list[RowBatch]:
    trees = tokenize(read_pairs(folder / "pairs.parquet").records, module.tokenizer).trees
    lengths = np.array([tree.shared_length for tree in trees], np.int32)
    order = Batching(lengths, workloads.DOCSTRINGS.batch_size).shuffled(np.random.default_rng([0, 0]))
    made = []
    for rows in map(order.__getitem__, range(len(order))):
        laid = lay_out([trees[row] for row in rows], compute.layout)
        pad_id, shared = module.tokenizer.pad_token_id, compute.layout != "repeated"
        made.append(collate_rows("pair", laid, rows, pad_id, shared=shared))
    return made


def measure(variant: str, folder: Path, steps: int) -> dict[str, float]:
    """Milliseconds a step by kind."""
    paired.be_quiet()
    paired.use_processors()
    compute, old = VARIANTS[variant], variant in ("repeated", "dense")
    if not old:
        keep_freed_memory()
    module = DPOModule(str(folder / "model"), DPO(0.1), compute=compute, scheduler=None)
    if old:
        module.model._supports_attention_backend = False
        head = lm_head(module.model)
        module.score = lambda trees: token_scores(  # type: ignore[method-assign]
            predictor_hidden_states(module.model, trees), lambda hidden: head(hidden), trees.target_N
        )
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

    def step(batch: RowBatch) -> None:
        trees = batch.trees
        logps_K = completion_logps(module.score(trees).logps_N, trees.completion_N, len(trees.length_K))
        length_K = trees.length_K.float()
        policy = PairLogps(logps_K[0::2], logps_K[1::2], length_K[0::2], length_K[1::2])
        loss = module.objective(policy, PairLogps(*(x.detach() for x in policy))).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    several = batches(module, folder, compute)
    for batch in several:
        step(batch)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(steps):
            step(several[number % len(several)])
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "the rest")
        spent[kind] += event.self_cpu_time_total / 1e3 / steps
    return dict(spent)


def main() -> None:
    arguments = command.parse(command.parser(__doc__))
    variants = [name for name in VARIANTS if not (arguments.quick and name == "compiled")]  # it compiles for minutes
    paired.be_quiet()
    paired.use_processors()
    host = paired.machine()
    folder, figures = Path(tempfile.mkdtemp()), {}
    try:
        workload = workloads.DOCSTRINGS
        made = workloads.materialize(workload, folder / workload.name, workload.steps * workload.batch_size)
        for variant in variants:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                figures[variant] = process.submit(measure, variant, made, 2 * arguments.runs).result()
    finally:
        shutil.rmtree(folder)
    rows = [["ms a step", *variants]]
    rows += [[kind, *(f"{figures[name].get(kind, 0):,.0f}" for name in variants)] for kind in (*KINDS, "the rest")]
    rows.append(["all", *(f"{sum(figures[name].values()):,.0f}" for name in variants)])
    print(paired.describe(host))
    print(paired.table(rows))
    command.write_json(arguments.json, {"machine": host, **figures})


if __name__ == "__main__":
    main()
