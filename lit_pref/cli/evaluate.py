"""`lit-pref evaluate`: pass@k of a policy, a server or a file of samples on a task, with its 95% interval.

Keeps every sample with its verdict, and what the figures were made of; an interrupted run goes on where it was, sample
by sample (`unfinished.py`). Not covered: models that need more than one device, which a server holds better; reward
models, whose recipe is `evaluate_reward.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from rich import get_console

import lit_pref.tasks  # noqa: F401 - its classes are found by their bare name once imported
from lit_pref.cli.evaluate_reward import REWARD
from lit_pref.cli.export import read_option
from lit_pref.cli.functions import Recipe, of_option, results_folder, run_command
from lit_pref.cli.unfinished import forget, unfinished
from lit_pref.data.reading.sample_files import Samples, read_samples, write_samples
from lit_pref.data.tokens.encoding import tokenizer_identity
from lit_pref.errors import UserError
from lit_pref.evaluation.grading import HarnessError, problems_of
from lit_pref.generation.local import MAX_TOKENS
from lit_pref.generation.policy import OpenPolicy, open_policy
from lit_pref.machine.progress import progress_bar
from lit_pref.models.checkpoints import checkpoint_model
from lit_pref.reports.record import circumstances
from lit_pref.reports.results import Results, evaluation_results
from lit_pref.sampling import Draw, SamplingJob
from lit_pref.sampling.drawing import draw_all, tell_cut
from lit_pref.sampling.grading import grade
from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.storage.files import JsonValue, write_json
from lit_pref.tasks.references import gradable
from lit_pref.types import Dtype, Generator, Problem, Sampling, Split, Task, Verdict

_DESCRIPTION = (
    "Recipe pass_at_k, the default (a reward model: --recipe reward --help). Measure pass@k of a policy, a server or "
    "a file of samples on a task, with 95% intervals over problems. The arguments of a class: --task.help HumanEval."
)
_EXAMPLE = "lit-pref evaluate --task HumanEval --policy my-model"


def evaluate(
    task: Task,
    policy: str | None = None,
    checkpoint: Path | None = None,
    generator: Generator | None = None,
    samples_file: Path | None = None,
    split: Split = "test",
    problems: int | None = None,
    k: int | list[int] = 1,
    samples: int = 1,
    sampling: Sampling = Sampling(temperature=0.0, max_new_tokens=512),  # noqa: B008 - frozen
    seed: int = 0,
    dtype: Dtype = "float32",
    max_tokens_per_batch: int = MAX_TOKENS,
    output: Path | None = None,
) -> None:
    """Measure pass@k with its 95% interval over problems; every sample is kept with its verdict.

    Args:
        task: CodeTask, HumanEval, HumanEvalPlus, MBPP, MBPPPlus, DoctestTask or CustomCodeTask; arguments as in
            --task.source FILE.
        policy: whose completions: an embedded model, a model folder, a .gguf file or a hub id, run in this process.
        checkpoint: or a run's `.ckpt` file.
        generator: or a Generator by its class, as OpenAIGenerator for a server.
        samples_file: or a file of rows with task_id and completion, as HumanEval's own harness takes them, or with
            solution, as EvalPlus does; at least one for every problem.
        split: of the task.
        problems: how many; null is all of a benchmark, and 1,000 of a task that can make any number.
        k: the figures pass@k to give: 1, or several as in [1,10].
        samples: completions a problem, at least the largest k; of a samples_file all are taken.
        sampling: how completions are drawn; greedy by default.
        seed: draws problems and samples.
        dtype: of a policy's or checkpoint's weights; bfloat16 halves memory, and time where the hardware has it.
        max_tokens_per_batch: tokens that a policy or checkpoint holds side by side; a completion counts with its prompt
            and the most that it may take.
        output: the folder for results.json and samples.jsonl; runs/evaluate/<task>/<time> by default. The same command
            goes on with what an interrupted run has left there.
    """
    origins = {"policy": policy, "checkpoint": checkpoint, "generator": generator, "samples_file": samples_file}
    named = [f"--{name}" for name, value in origins.items() if value is not None]
    if len(named) != 1:
        raise UserError(f"give one of --{', --'.join(origins)}, got {' and '.join(named) or 'none of them'}")
    ks = _checked_ks(k)
    folder = results_folder(output, task.name)
    with of_option("--problems"):
        chosen = problems_of(task, split, problems, seed)
    start = time.monotonic()
    if samples_file is not None:
        given, origin = read_samples(samples_file, chosen), _of_file(samples_file)
        _check_samples(given, chosen, ks)
        found = gradable(task, chosen)
        drawn = given.kept(chosen, found.problems)
    else:
        _check_settings(ks, samples, sampling, max_tokens_per_batch)
        found = gradable(task, chosen)
        sampled, origin = _opened(policy, checkpoint, generator, dtype)
        job = SamplingJob.of(task, found.problems, sampled, Draw(samples, sampling, seed), max_tokens_per_batch)
        with unfinished(output, job) as (folder, journal):
            drawn = _draw(job, journal)
        earlier = {"completions_of_earlier_runs": len(journal.found)} if journal and journal.found else {}
        origin |= {"sampling": asdict(job.sampling), **earlier}
    drawn_at = time.monotonic()
    verdicts = _graded(task, found.problems, drawn, folder / "samples.jsonl")
    seconds = {"sampling": drawn_at - start, "grading": time.monotonic() - drawn_at}
    try:
        results = evaluation_results(found.problems, drawn, verdicts, ks, found.left_out)
    except HarnessError as error:
        raise UserError(
            f"{error}; no figure is given, since it would blame the model. Verdicts: {folder / 'samples.jsonl'}"
        ) from error
    _report(results, seconds, task, split, {**origin, "seed": seed}, folder)
    forget(folder)


# --- samples ----------------------------------------------------------------------------------------------------------


def _opened(
    policy: str | None, checkpoint: Path | None, generator: Generator | None, dtype: Dtype
) -> tuple[OpenPolicy | Generator, dict[str, JsonValue]]:
    """Who samples, and what the record says of it."""
    if generator is not None:
        return generator, {"generator": repr(generator)}
    model = None
    if checkpoint is not None:
        content = read_option("--checkpoint", checkpoint)
        if "score_head.weight" in content["state_dict"]:
            raise UserError(f"--checkpoint: {checkpoint} is a reward model, which writes nothing: give one of a policy")
        policy, model = content["lit_pref"]["policy"], checkpoint_model(checkpoint, content)
    assert policy is not None
    opened = open_policy(policy, model, dtype=dtype)
    return opened, {
        **({} if checkpoint is None else {"checkpoint": str(checkpoint)}),
        "policy": policy,
        "weights": opened.weights,
        "dtype": dtype,
        "tokenizer": tokenizer_identity(opened.tokenizer),
    }


def _of_file(samples: Path) -> dict[str, JsonValue]:
    return {"samples_file": str(samples), "digest": blake2b(samples.read_bytes(), digest_size=16).hexdigest()}


def _draw(job: SamplingJob, journal: SampleJournal | None) -> Samples:
    prompts, draw = [problem.prompt for problem in job.problems], job.draw._replace(sampling=job.sampling)
    done = len(journal.found) if journal else 0
    with progress_bar(f"Sampling {job.task.name}", len(prompts) * draw.samples, done) as advance:
        completions = draw_all(job.generator, prompts, draw, journal, advance)
    tell_cut([each for several in completions for each in several], draw.sampling)
    return Samples(completions, ends_known=True)


def _graded(task: Task, problems: Sequence[Problem], drawn: Samples, path: Path) -> list[list[Verdict]]:
    """Verdicts, which stand beside the samples at `path` then."""
    write_samples(path, problems, drawn)
    texts = [[completion.text for completion in several] for several in drawn.completions]
    with progress_bar(f"Grading {task.name}", sum(map(len, texts))) as advance:
        verdicts = grade(task, problems, texts, advance)
    write_samples(path, problems, drawn, verdicts)
    return verdicts


def _report(
    results: Results, seconds: dict[str, float], task: Task, split: Split, origin: dict[str, JsonValue], folder: Path
) -> None:
    """The table, and results.json with all that the figures depend on; a server's key is in no generator's repr."""
    settings = {name: repr(value) for name, value in vars(task).items() if not name.startswith("_")}
    record: dict[str, JsonValue] = {
        **results.to_json(),
        "seconds": seconds,
        "task": {"name": task.name, "split": split, **settings},
        **origin,
        **circumstances(),
    }
    write_json(folder / "results.json", record)
    get_console().print(results.table(f"{task.name}, {split}"))
    print(f"sampled in {seconds['sampling']:.1f} s, graded in {seconds['grading']:.1f} s; results: {folder}")


# --- mistakes ---------------------------------------------------------------------------------------------------------


def _check_settings(ks: Sequence[int], samples: int, sampling: Sampling, max_tokens_per_batch: int) -> None:
    if max_tokens_per_batch < 1:
        raise UserError(f"--max_tokens_per_batch: must be >= 1, got {max_tokens_per_batch}")
    if samples < 1:
        raise UserError(f"--samples: must be >= 1, got {samples}")
    if samples < max(ks):
        raise UserError(f"--samples: pass@{max(ks)} needs at least {max(ks)} samples a problem, got {samples}")
    if samples > 1 and sampling.temperature == 0:
        raise UserError(f"--samples: {samples} greedy samples are all alike: give --sampling.temperature, as 0.8")


def _checked_ks(k: int | list[int]) -> list[int]:
    ks = [k] if isinstance(k, int) else k
    if not ks or min(ks) < 1:
        raise UserError(f"--k: expected numbers >= 1, got {ks}")
    return ks


def _check_samples(drawn: Samples, problems: Sequence[Problem], ks: Sequence[int]) -> None:
    fewest, name = min((len(several), each.id) for each, several in zip(problems, drawn.completions, strict=True))
    if fewest < max(ks):
        raise UserError(f"--k: pass@{max(ks)} needs at least {max(ks)} samples a problem, {name!r} has {fewest}")


def run(arguments: list[str]) -> None:
    run_command(arguments, {"pass_at_k": Recipe(evaluate, _EXAMPLE, _DESCRIPTION), "reward": REWARD})
