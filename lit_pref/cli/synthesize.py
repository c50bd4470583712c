"""`lit-pref synthesize`: preference pairs from problems with tests, in a folder that a later run can go on with.

The folder holds `samples/` (graded samples in shards), `pairs.parquet`, `decontaminated.json` and `tests/` with
`checks.jsonl` where those were asked for, and `summary.json`: counts, and all that they depend on. Tests and samples
are made once for a folder; pairs are made again by each run, so another strategy costs seconds. Not covered: pairs of
several tasks in one folder; a model that needs more than one device (a server or vLLM holds it).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich import get_console

from lit_pref.cli.functions import Recipe, of_option, run_command, writable_folder
from lit_pref.cli.synthesize_code_pairs import CODE_PAIRS
from lit_pref.data.formats.write import write_pairs
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.errors import UserError
from lit_pref.evaluation.grading import problems_of
from lit_pref.generation.local import MAX_TOKENS
from lit_pref.generation.policy import OpenPolicy, open_policy
from lit_pref.reports.record import circumstances, counted, table
from lit_pref.sampling import Draw, ExecutionPairs, PairStrategy, SamplingJob, execution_pairs, kept_samples
from lit_pref.sandbox import level_in_force
from lit_pref.storage.files import JsonValue, write_json
from lit_pref.synthesis import KillFilter, WriteTests, decontaminate, refuse_untested, with_tests
from lit_pref.synthesis.checks.written import ProblemsWithTests
from lit_pref.synthesis.decontamination import Decontaminated
from lit_pref.tasks import CodeTask
from lit_pref.tasks.references import Gradable, gradable
from lit_pref.types import Dtype, Generator, Problem, Sampling, Split, Task

_DESCRIPTION = (
    "Recipe execution_pairs, the default (the other one: --recipe code_pairs --help). Sample a policy on problems, run "
    "its programs against their tests, and make pairs of what passed and what failed. "
    "The same command goes on where it was interrupted. The arguments of a class: --generator.help OpenAIGenerator."
)
_DEFAULT_POLICY = "embedded:coder"
_ENDLESS_PROBLEMS = 2000  # of a task that can make any number: about 1,200 pairs of the embedded world
_EXAMPLE = "lit-pref synthesize --output my-pairs --task HumanEval --policy my-model"


def synthesize(
    output: Path,
    task: Task | None = None,
    policy: str | None = None,
    generator: Generator | None = None,
    split: Split = "train",
    problems: int | None = None,
    samples: int = 8,
    sampling: Sampling = Sampling(max_new_tokens=96),  # noqa: B008 - frozen
    strategy: PairStrategy = "random",
    pairs_per_problem: int = 1,
    decontaminate_against: Task | list[Task] | None = None,
    write_tests: WriteTests = "no",
    min_kill_rate: float = 0.5,
    dtype: Dtype = "float32",
    max_tokens_per_batch: int = MAX_TOKENS,
    seed: int = 0,
) -> None:
    """Make execution-labelled preference pairs, after arXiv 2410.18585.

    Args:
        output: the folder to make, or to go on with.
        task: problems and their grading: the embedded CodeTask by default, HumanEval, MBPP, DoctestTask for the
            functions of a Python package, CustomCodeTask for a file of your own, or a class of your own.
        policy: who writes the samples, in this process: an embedded model (embedded:coder by default), a model
            folder, a .gguf file or a hub id.
        generator: or a Generator by its class: OpenAIGenerator for a server, VLLMGenerator, or a dataclass of your own.
        split: of the task; never train on the one that you will measure.
        problems: how many to sample, before decontamination; null is all of a benchmark, and 2,000 of a task that can
            make any number.
        samples: completions a problem; the default is ours.
        sampling: how they are drawn; the default is ours, and long enough for the embedded world alone: a pretrained
            model takes max_new_tokens of some 512.
        strategy: random pairs any passing with any failing completion; best_vs_worst takes the failing one that passed
            the fewest cases before its first wrong one.
        pairs_per_problem: at most; further ones take other completions where there are any.
        decontaminate_against: a benchmark or a list of them, as HumanEval: problems that share 10 words in a row with
            a prompt or a solution of its test split are dropped first, counted by benchmark.
        write_tests: for problems that have no tests: written takes asserts from the policy or generator, recorded its
            calls with what the reference gives; as many answers a problem as samples, drawn alike. The asserts that
            the reference fails are dropped. no refuses such problems.
        min_kill_rate: share of the reference's mutants (one slip each) that such tests must fail to be kept.
        dtype: of a policy's weights; bfloat16 halves memory, and time where the hardware has it.
        max_tokens_per_batch: tokens that a policy holds side by side; a completion counts with its prompt and the most
            that it may take.
        seed: draws problems, samples and pairs.
    """
    _check(policy, generator, samples, problems, pairs_per_problem, min_kill_rate)
    if max_tokens_per_batch < 1:
        raise UserError(f"--max_tokens_per_batch: must be >= 1, got {max_tokens_per_batch}")
    if sampling.temperature == 0:
        raise UserError(f"--samples: {samples} greedy samples are all alike: give --sampling.temperature, as 0.8")
    task = task if task is not None else CodeTask()
    benchmarks = _texts_of(decontaminate_against)
    with of_option("--problems"):
        chosen = problems_of(task, split, problems, seed, _ENDLESS_PROBLEMS)
    clean = decontaminate(chosen, benchmarks)
    if not clean.problems:
        raise UserError(f"no problem is left after decontamination; dropped by benchmark: {clean.counts}")
    if write_tests == "no":
        refuse_untested(clean.problems)
    opened = generator or open_policy(policy := policy or _DEFAULT_POLICY, dtype=dtype)
    vocabulary = vocabulary_fingerprint(opened.tokenizer) if isinstance(opened, OpenPolicy) else None
    job = SamplingJob.of(task, clean.problems, opened, Draw(samples, sampling, seed), max_tokens_per_batch)
    output = writable_folder("--output", output)
    tested = with_tests(output, job, write_tests, KillFilter(min_kill_rate))
    found = gradable(task, tested.problems)
    job = replace(job, problems=found.problems)
    graded = kept_samples(output / "samples", job, f"{len(job.problems):,} {split} problems x {samples}")
    made = execution_pairs(graded.samples, seed, strategy, pairs_per_problem)
    settings: dict[str, JsonValue] = {
        **job.provenance(),
        "policy_name": policy or type(generator).__name__,
        "split": split,
        "strategy": strategy,
        "pairs_per_problem": pairs_per_problem,
        "decontaminated_against": list(benchmarks),
        "write_tests": write_tests,
        "min_kill_rate": min_kill_rate,
    }
    _write(output, made, clean, tested, found, settings, vocabulary)
    shared = {f"problems dropped, shared with {name}": count for name, count in clean.counts.items()}
    failing = {"problems left out, the reference fails": len(found.left_out)} if found.left_out else {}
    rows = counted({**shared, **failing}), tested.table.items(), counted(made.counts)
    get_console().print(table(f"{task.name}, {split}", *rows))
    if not made.pairs:
        raise UserError(
            f"no pairs: {made.summary}; raise samples, problems or temperature, or take a policy that solves some of "
            "the problems"
        )
    overlay, trained = "--config dpo --config data/pairs", policy or "MODEL"
    print(f"to train on them: lit-pref fit {overlay} --data.train {output / 'pairs.parquet'} --model.policy {trained}")


# --- what is sampled --------------------------------------------------------------------------------------------------


def _texts_of(benchmarks: Task | Sequence[Task] | None) -> dict[str, list[Problem]]:
    """Each benchmark's test split; 1,000 problems of a task without end."""
    found: dict[str, list[Problem]] = {}
    for task in [benchmarks] if isinstance(benchmarks, Task) else benchmarks or ():
        found.setdefault(task.name, []).extend(problems_of(task, "test", None, seed=0))
    return found


# --- what is written --------------------------------------------------------------------------------------------------


def _write(
    output: Path,
    made: ExecutionPairs,
    clean: Decontaminated,
    tested: ProblemsWithTests,
    found: Gradable,
    settings: dict[str, JsonValue],
    vocabulary: str | None,
) -> None:
    """The summary last: where it stands, all of its run stands."""
    file = output / "summary.json"
    # A run that finds all samples opens no sandbox: they were run in the one of the run before.
    level = level_in_force() or (json.loads(file.read_text())["sandbox"] if file.exists() else None)
    file.unlink(missing_ok=True)
    write_pairs(output / "pairs.parquet", made.pairs, vocabulary)
    if settings["decontaminated_against"]:
        write_json(output / "decontaminated.json", [overlap._asdict() for overlap in clean.overlaps])
    summary: dict[str, JsonValue] = {
        "counts": made.counts,
        "decontaminated": clean.counts,
        "tests": tested.summary,
        "left_out": {"failing_references": {**found.left_out}},
        "provenance": settings,
        **circumstances(),
        "sandbox": level,
    }
    write_json(file, summary)


# --- the command ------------------------------------------------------------------------------------------------------


def _check(
    policy: str | None,
    generator: Generator | None,
    samples: int,
    problems: int | None,
    pairs_per_problem: int,
    min_kill_rate: float,
) -> None:
    if policy is not None and generator is not None:
        raise UserError("give --policy or --generator, not both")
    if samples < 2:
        raise UserError(f"--samples: must be >= 2 to hold a passing and a failing one, got {samples}")
    if problems is not None and problems < 1:
        raise UserError(f"--problems: must be >= 1, got {problems}")
    if pairs_per_problem < 1:
        raise UserError(f"--pairs_per_problem: must be >= 1, got {pairs_per_problem}")
    if not 0 <= min_kill_rate <= 1:
        raise UserError(f"--min_kill_rate: must be in [0, 1], got {min_kill_rate}")


def run(arguments: list[str]) -> None:
    run_command(arguments, {"execution_pairs": Recipe(synthesize, _EXAMPLE, _DESCRIPTION), "code_pairs": CODE_PAIRS})
