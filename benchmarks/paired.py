"""What the comparisons with peers share: paired runs, their medians, the machine and its matrix-multiplication rate.

Each side has a process of its own, so that nothing that one sets or leaves behind is the other's. They take turns, so
that what else the machine does falls on both; a figure is the median over runs of the ratio within a run. A turn
before them warms up and shows that both compute the same.
"""

import logging
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from lit_pref.machine.processors import multiplies_bf16, usable_processors


class Timing(NamedTuple):
    """One run. Tokens are prompt + chosen + prompt + rejected, whatever a side processes."""

    step_tokens: int  # of the timed steps: all but the first
    step_seconds: float  # from the start of the second step to the end of the last, loading included
    whole_tokens: int
    whole_seconds: float  # tokenizing, reference and training; not the import and the making of the model
    losses: list[float]  # of each step
    logps: list[float]  # of chosen, then of rejected, summed over tokens, mean of the first batch
    batches: list[list[int]]  # rows of each step
    peak_bytes: int  # the most that the process has ever held, of its device's memory

    @property
    def rate(self) -> float:
        return self.step_tokens / self.step_seconds

    @property
    def whole_rate(self) -> float:
        return self.whole_tokens / self.whole_seconds


Side = Callable[[], Timing]


class Sides:
    """Named sides of a comparison, each in a process that lives as long as the `with` block."""

    def __init__(self, *names: str) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process would begin with this one's memory
        self.processes = {name: ProcessPoolExecutor(1, context, initializer=_begin) for name in names}

    def __enter__(self) -> "Sides":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.shutdown()

    def turn(self, sides: Mapping[str, Side]) -> dict[str, Timing]:
        """One timing of each, one after the other."""
        timings = {}
        for name, side in sides.items():
            timings[name] = self.processes[name].submit(side).result()
            told = f"  {name}: {timings[name].rate:,.0f} tokens/s, {timings[name].whole_rate:,.0f} over the whole epoch"
            print(told, file=sys.stderr, flush=True)
        return timings

    def turns(self, sides: Mapping[str, Side], runs: int) -> dict[str, list[Timing]]:
        timings = [self.turn(sides) for _ in range(runs)]
        return {name: [turn[name] for turn in timings] for name in sides}


def _begin() -> None:
    be_quiet()
    use_processors()
    # Peers print every step; errors come back as exceptions.
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process


def peak_bytes(device: str = "cpu") -> int:
    """The most that this process has held resident, or that its tensors held on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ratio(timings: Mapping[str, Sequence[Timing]], ours: str, theirs: str, whole: bool = False) -> float:
    """How many times as many tokens a second `ours` trains on: the median over paired runs."""
    rates = [
        (a.whole_rate / b.whole_rate) if whole else (a.rate / b.rate)
        for a, b in zip(timings[ours], timings[theirs], strict=True)
    ]
    return statistics.median(rates)


def median_rate(timings: Sequence[Timing], whole: bool = False) -> float:
    return statistics.median(timing.whole_rate if whole else timing.rate for timing in timings)


def check_equal(ours: Timing, theirs: Timing, tolerance: float) -> float:
    """The largest relative difference of losses and log-probs; raises AssertionError beyond the tolerance."""
    mine, other = (torch.tensor([*timing.losses, *timing.logps]) for timing in (ours, theirs))
    off = float(((mine - other).abs() / other.abs().clamp(min=1e-3)).max())
    assert off <= tolerance, f"the two sides compute different losses: {mine.tolist()} against {other.tolist()}"
    return off


def matmul_rate(dtype: torch.dtype, device: str = "cpu", clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of a square matrix product: what a training step could reach at most."""
    size = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds: list[float] = []
    while len(seconds) < 15 and sum(seconds) < 5:
        start = clock()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return 2 * size**3 / statistics.median(seconds)


def has_bf16(device: str = "cpu") -> bool:
    return torch.cuda.is_bf16_supported() if device == "cuda" else multiplies_bf16()


def machine(device: str = "cpu") -> dict[str, object]:
    """What a figure was measured on; the rate of bf16 only where the machine has instructions for it."""
    names = [line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        **({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "matmul_gflops_fp32": round(matmul_rate(torch.float32, device) / 1e9),
        "matmul_gflops_bf16": round(matmul_rate(torch.bfloat16, device) / 1e9) if has_bf16(device) else None,
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def describe(host: Mapping[str, object]) -> str:
    bf16 = host["matmul_gflops_bf16"]
    return (
        f"{host.get('gpu', host['processor'])}, {host['processors']} processors, {host['threads']} threads, "
        f"torch {host['torch']}; matrix products {host['matmul_gflops_fp32']} GFLOP/s in fp32, "
        + (f"{bf16} in bf16" if bf16 else "no bf16 instructions")
    )


def use_processors() -> None:
    """As many threads as processors that this process may use."""
    torch.set_num_threads(min(torch.get_num_threads(), usable_processors()))


def be_quiet() -> None:
    """Nothing but the figures: neither side's progress bars, tips and warnings."""
    from transformers.utils import logging as transformers_logging

    warnings.filterwarnings("ignore")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns but for the first."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
