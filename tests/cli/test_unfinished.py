"""An evaluation that is interrupted goes on sample by sample: nothing is drawn twice, and the figures are the same."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lit_pref.cli.evaluate import evaluate
from lit_pref.cli.main import main
from lit_pref.errors import UserError
from lit_pref.tasks import CodeTask
from lit_pref.types import Completion, Drawn, Generator, Sampling
from tests.journals import taken

SAMPLING = Sampling(1.0, max_new_tokens=9)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))


@dataclass
class Reciting(Generator):
    """Gives the references of even samples and nothing for odd ones, one by one; Ctrl-C after so many."""

    name: str = "reciting"
    stop_after: int = field(default=10**9, compare=False)
    drawn: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def generate(self, prompts, samples, sampling, seed):
        raise NotImplementedError

    def each(self, prompts, samples, sampling, seed, done=()):
        references = {p.prompt: p.reference for p in CodeTask().problems("test", 10, seed)}
        for row, prompt in enumerate(prompts):
            for sample in range(samples):
                if (row, sample) not in done:
                    if len(self.drawn) == self.stop_after:
                        raise KeyboardInterrupt
                    self.drawn.append((row, sample))
                    text = "" if sample % 2 else references[prompt]
                    yield Drawn(row, sample, Completion(text, (row,), (-0.1,), bool(row % 2)))


def run(generator: Generator, output: str | None = "out", **settings) -> None:
    given = {"problems": 10, "samples": 3, "sampling": SAMPLING, "k": [1, 2], "seed": 0} | settings
    evaluate(given.pop("task", CodeTask()), generator=generator, output=output and Path(output), **given)


def interrupted(stop_after: int, output: str | None = "out", **settings) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Reciting(stop_after=stop_after), output, **settings)


def record(folder: Path) -> dict:
    found = json.loads((folder / "results.json").read_text())
    return {key: found[key] for key in ("figures", "outcomes", "truncated", "problems", "samples", "generator")}


@pytest.mark.parametrize("stop_after", [0, 1, 17, 29])
def test_the_same_command_goes_on(stop_after, capsys):
    interrupted(stop_after)
    assert not Path("out/results.json").exists()
    generator = Reciting()
    run(generator)
    assert len(generator.drawn) == 30 - stop_after
    assert ("going on with the unfinished evaluation in out\n" in capsys.readouterr().out) == (stop_after > 0)
    run(Reciting(), "whole")
    assert Path("out/samples.jsonl").read_bytes() == Path("whole/samples.jsonl").read_bytes()
    found = json.loads(Path("out/results.json").read_text())
    assert found["figures"]["pass@1"]["mean"] == pytest.approx(2 / 3)
    assert found.get("completions_of_earlier_runs", 0) == stop_after
    assert sorted(path.name for path in Path("out").iterdir()) == ["results.json", "samples.jsonl"]


def test_without_an_output_the_unfinished_one_is_found():
    interrupted(5, None)
    interrupted(11, None, seed=1)
    first, second = sorted(Path("runs/evaluate/code").iterdir())
    generator = Reciting()
    run(generator, None)
    assert len(generator.drawn) == 25 and record(first)["samples"] == 30
    run(Reciting(), None)  # nothing is left to go on with: a folder of its own
    assert len(list(Path("runs/evaluate/code").iterdir())) == 3 and not (second / "results.json").exists()


def test_an_interrupted_grading_draws_nothing_again():
    class Interrupted(CodeTask):
        def grade(self, problems, completions):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Reciting(), task=Interrupted())
    generator = Reciting()
    run(generator)
    assert generator.drawn == [] and record(Path("out"))["samples"] == 30


def test_another_evaluations_folder_is_refused():
    interrupted(5)
    made = "out holds an unfinished evaluation that was made otherwise"
    with pytest.raises(UserError, match=rf"{made} \(.*seed: 0 there, 1 now"):
        run(Reciting(), seed=1)
    named = r"policy: .*'name': 'reciting'.* there, .*'name': 'other'.* now"
    with pytest.raises(UserError, match=named):
        run(Reciting("other"))
    generator = Reciting()
    run(generator, k=[1])  # other figures of the same samples
    assert len(generator.drawn) == 25


def test_two_at_once(capsys):
    interrupted(5, None)
    interrupted(5, "out")
    (begun,) = Path("runs/evaluate/code").iterdir()
    with taken(begun / "drawn.jsonl"), taken(Path("out/drawn.jsonl")):
        generator = Reciting()
        run(generator, None)  # in a folder of its own
        assert len(generator.drawn) == 30
        with pytest.raises(UserError, match=r"out/drawn\.jsonl: another process is writing it: wait for it to end"):
            run(Reciting(), "out")
    assert not (begun / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_policy_that_is_killed_goes_on(blow, capsys):
    options = ["--task=CodeTask", "--policy=embedded:coder", "--problems=600", "--sampling.temperature=1"]
    options += ["--sampling.max_new_tokens=96", "--max_tokens_per_batch=6000"]
    command = [sys.executable, "-m", "lit_pref.cli.main", "evaluate", *options, "--output=out"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    journal = Path("out/drawn.jsonl")
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(blow)
    process.communicate(timeout=120)
    before = journal.read_bytes().count(b"\n") - 1
    assert 39 <= before < 600
    main(["evaluate", *options, "--output=out"])
    assert "going on with the unfinished evaluation in out\n" in capsys.readouterr().out
    assert json.loads(Path("out/results.json").read_text())["completions_of_earlier_runs"] == before
    main(["evaluate", *options, "--output=whole"])
    assert Path("out/samples.jsonl").read_bytes() == Path("whole/samples.jsonl").read_bytes()
