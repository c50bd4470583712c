"""`lit-pref synthesize` as a user meets it: a complete folder, resuming, decontamination, servers, mistakes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_pref.cli.main import main
from lit_pref.data.formats.pairs import read_pairs
from lit_pref.generation import LocalGenerator, OpenAIGenerator
from lit_pref.models import export_model, load_causal_lm, load_tokenizer, weights_fingerprint
from lit_pref.sandbox import level_in_force
from lit_pref.synthesis.checks.check_writing import write_checks
from lit_pref.tasks import CodeTask
from lit_pref.types import Completion, Drawn, Generator

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "synthesize" / "execution_pairs.yaml"
SMALL = ["synthesize", "--config", str(CONFIG), "--output", "out", "--problems", "16", "--samples", "6"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([*SMALL, *arguments])
        assert exit_.value.code == 2
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return shown.err.strip().splitlines()[-1].removeprefix("lit-pref: error: ")

    return run


def summary() -> Any:
    return json.loads(Path("out/summary.json").read_text())


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_a_folder_holds_samples_pairs_counts_and_where_they_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    main(SMALL)
    shown = capsys.readouterr().out
    pairs = read_pairs("out/pairs.parquet").records
    counts = summary()["counts"]
    assert 0 < len(pairs) == counts["pairs"]
    assert (counts["problems"], counts["samples"]) == (16, 96)
    reasons = ("problems all passed", "problems all failed", "problems without usable samples")
    assert counts["pairs"] + sum(counts[reason] for reason in reasons) == 16
    for name, count in counts.items():
        assert name in shown and f"{count:,}" in shown
    assert "--data.train out/pairs.parquet --model.policy embedded:coder" in shown
    provenance = summary()["provenance"]
    assert (provenance["task"], provenance["policy_name"]) == ("code", "embedded:coder")
    assert provenance["policy"] == weights_fingerprint(load_causal_lm("embedded:coder"))
    assert (provenance["strategy"], provenance["split"], provenance["seed"]) == ("random", "train", 1)
    assert summary()["sandbox"] == level_in_force() is not None

    task = CodeTask()
    problems = {problem.prompt: problem for problem in task.problems("train", 16, seed=1)}
    chosen = task.grade([problems[pair.prompt] for pair in pairs], [str(pair.chosen) for pair in pairs])
    rejected = task.grade([problems[pair.prompt] for pair in pairs], [str(pair.rejected) for pair in pairs])
    assert all(verdict.passed for verdict in chosen) and not any(verdict.passed for verdict in rejected)


def test_the_pairs_train(capsys: pytest.CaptureFixture[str]) -> None:
    main(SMALL)
    overlay = ["--config", str(ROOT / "configs/dpo.yaml"), "--config", str(ROOT / "configs/data/pairs.yaml")]
    small = ["--data.batch_size=2", "--trainer.max_steps=1", "--trainer.log_every_n_steps=1", "--run_name=run"]
    main(["fit", *overlay, "--data.train", "out/pairs.parquet", "--data.validation_size", "0.3", *small])
    assert json.loads(Path("runs/dpo/run/summary.json").read_text())["optimizer_steps"] == 1


def test_the_same_command_finds_all_and_another_strategy_makes_other_pairs_of_the_same_samples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(SMALL)
    first, pairs = summary(), Path("out/pairs.parquet").read_bytes()
    capsys.readouterr()
    main(SMALL)
    assert "Sampling" not in capsys.readouterr().out
    assert (summary(), Path("out/pairs.parquet").read_bytes()) == (first, pairs)
    main([*SMALL, "--strategy", "best_vs_worst", "--pairs_per_problem", "3"])
    assert "Sampling" not in capsys.readouterr().out
    assert summary()["counts"]["pairs"] > first["counts"]["pairs"]
    assert summary()["provenance"]["strategy"] == "best_vs_worst"


def test_an_interrupted_run_says_how_to_go_on_and_ends_with_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lit_pref.sampling.graded_samples._SHARD_PROBLEMS", 4)
    whole = [*SMALL[:3], "--output", "whole", *SMALL[5:]]
    main(whole)
    each = LocalGenerator.each
    calls: list[int] = []

    def stopped(self: LocalGenerator, *arguments: Any) -> Iterator[Drawn]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return each(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(LocalGenerator, "each", stopped)
        with pytest.raises(SystemExit) as exit_:
            main(SMALL)
    assert exit_.value.code == 130
    assert "interrupted; the same command goes on from what is finished" in capsys.readouterr().err
    assert not Path("out/pairs.parquet").exists()
    kept = {path: path.stat().st_mtime_ns for path in Path("out").rglob("part-*.parquet")}
    assert len(kept) == 1
    main(SMALL)
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert Path("out/pairs.parquet").read_bytes() == Path("whole/pairs.parquet").read_bytes()


# --- decontamination --------------------------------------------------------------------------------------------------


def test_problems_of_a_benchmark_are_dropped_and_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quoted = max(CodeTask().problems("train", 16, seed=1), key=lambda problem: len(problem.prompt))
    row = {
        "task_id": "Quoted/0",
        "prompt": f'def quoted(x):\n    """{quoted.prompt} among other words"""\n',
        "entry_point": "quoted",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }
    Path("benchmark.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = json.dumps([{"class_path": "HumanEval", "init_args": {"source": "benchmark.jsonl"}}])
    main([*SMALL, "--decontaminate_against", benchmark])
    dropped = summary()["decontaminated"]["human_eval"]
    assert 1 <= dropped < 16 and summary()["counts"]["problems"] == 16 - dropped
    assert summary()["provenance"]["decontaminated_against"] == ["human_eval"]
    overlaps = json.loads(Path("out/decontaminated.json").read_text())
    assert quoted.id in {overlap["problem_id"] for overlap in overlaps}
    assert "shared with human_eval" in capsys.readouterr().out
    assert quoted.prompt not in {pair.prompt for pair in read_pairs("out/pairs.parquet").records}


def test_nothing_left_is_an_error(refused: Callable[..., str]) -> None:
    one = CodeTask().problems("train", 1, seed=1)[0]
    row = {
        "task_id": "a",
        "prompt": f"{one.prompt}    pass\n",
        "entry_point": "solve",
        "canonical_solution": "",
        "test": "def check(candidate): ...",
    }
    Path("benchmark.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = json.dumps({"class_path": "HumanEval", "init_args": {"source": "benchmark.jsonl"}})
    message = refused("--problems", "1", "--decontaminate_against", benchmark)
    assert message == "no problem is left after decontamination; dropped by benchmark: {'human_eval': 1}"


# --- other generators -------------------------------------------------------------------------------------------------


def test_a_generator_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    task = CodeTask()
    references = {problem.prompt: problem.reference for problem in task.problems("train", 16, seed=1)}
    asked: list[OpenAIGenerator] = []

    def generate(self: OpenAIGenerator, prompts: Any, samples: int, *_: Any) -> list[list[Completion]]:
        asked.append(self)
        texts = [[references[prompt], *["    return nothing\n"] * (samples - 1)] for prompt in prompts]
        return [[Completion(text, (), (), True) for text in several] for several in texts]

    monkeypatch.setattr(OpenAIGenerator, "generate", generate)
    monkeypatch.setattr(OpenAIGenerator, "each", Generator.each)
    server = ["--policy", "null", "--generator", "OpenAIGenerator", "--generator.model", "big"]
    main([*SMALL, *server, "--generator.api_key", "secret-1", "--generator.concurrency", "3"])
    assert (asked[0].model, asked[0].concurrency, asked[0].api_key) == ("big", 3, "secret-1")
    pairs = read_pairs("out/pairs.parquet").records
    assert [pair.chosen for pair in pairs] == list(references.values())
    assert {(pair.chosen_ids, pair.rejected_ids) for pair in pairs} == {(None, None)}
    assert summary()["provenance"]["policy"] == {
        "generator": "OpenAIGenerator", "model": "big", "base_url": "http://localhost:8000/v1", "token_ids": False
    }  # fmt: skip
    assert summary()["counts"]["duplicate samples"] == 16 * 4  # five of six samples are one text
    assert not any(b"secret-1" in path.read_bytes() for path in Path("out").rglob("*") if path.is_file())
    # how it is asked makes no other samples
    main([*SMALL, *server, "--generator.concurrency", "5"])
    assert len(asked) == 1


def test_conversations_of_a_benchmark_become_pairs_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "task_id": f"Add/{n}",
            "prompt": f'def add{n}(x):\n    """Add {n} to x."""\n',
            "entry_point": f"add{n}",
            "canonical_solution": f"    return x + {n}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        }
        for n in range(4)
    ]
    Path("add.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad = "```python\ndef add{0}(x):\n    return x - 7\n```"
    answers = {f"def add{n}(": [f"```python\ndef add{n}(x):\n    return x + {n}\n```", bad.format(n)] for n in range(4)}
    answers["def add3("][1] = "I would rather not."

    def generate(self: OpenAIGenerator, prompts: Any, *_: Any) -> list[list[Completion]]:
        found = [next(two for name, two in answers.items() if name in turns[-1]["content"]) for turns in prompts]
        return [[Completion(text, (), (), True) for text in two] for two in found]

    monkeypatch.setattr(OpenAIGenerator, "generate", generate)
    monkeypatch.setattr(OpenAIGenerator, "each", Generator.each)
    chat = ["--task", "HumanEval", "--task.source", "add.jsonl", "--task.style", "chat", "--split", "test"]
    server = ["--policy", "null", "--generator", "OpenAIGenerator", "--generator.model", "m"]
    main([*SMALL, *chat, *server, "--problems", "null", "--samples", "2"])
    counts = summary()["counts"]
    assert (counts["problems"], counts["pairs"], counts["samples without code"]) == (4, 3, 1)
    for number, pair in enumerate(read_pairs("out/pairs.parquet").records):
        assert pair.prompt[-1]["role"] == "user"
        assert [pair.chosen, pair.rejected] == [
            ({"role": "assistant", "content": text},) for text in answers[f"def add{number}("]
        ]

    tokenizer = load_tokenizer("embedded:coder")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    export_model(load_causal_lm("embedded:coder"), tokenizer, Path("chat-model"))
    overlay = ["--config", str(ROOT / "configs/dpo.yaml"), "--config", str(ROOT / "configs/data/pairs.yaml")]
    small = ["--data.batch_size=3", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--run_name=run"]
    held_out = ["--data.train", "out/pairs.parquet", "--data.validation", "out/pairs.parquet"]
    main(["fit", *overlay, *held_out, "--model.policy", "chat-model", *small])
    assert json.loads(Path("runs/dpo/run/summary.json").read_text())["optimizer_steps"] == 1


def test_a_server_that_fails_is_said_in_a_line(refused: Callable[..., str]) -> None:
    none = ["--policy", "null", "--generator", "OpenAIGenerator", "--generator.model", "m", "--generator.retries", "0"]
    message = refused(*none, "--generator.base_url", "http://127.0.0.1:9/v1")
    assert message.startswith("http://127.0.0.1:9/v1/completions: no connection")


# --- a package's own examples -----------------------------------------------------------------------------------------

PACKAGE = """
def double(x):
    \"\"\"Twice a number.

    >>> double(2)
    4
    >>> double(-1)
    -2
    \"\"\"
    return 2 * x


def half(x):
    \"\"\"Half a number.

    >>> half(2)
    1.0
    >>> half(3)
    1.5
    \"\"\"
    return x / 2


def third(x):
    \"\"\"A third of a number.

    >>> third(3)
    1.0
    >>> third(6)
    2.0
    \"\"\"
    return x / 3
"""
BODY_SCRIPT = """
from dataclasses import dataclass

from lit_pref.types import Completion, Generator


@dataclass(frozen=True)
class Bodies(Generator):
    bodies: list[str]

    def generate(self, prompts, samples, sampling, seed):
        return [[Completion(f"    return {body}\\n", (), (), True) for body in self.bodies] for _ in prompts]
"""


def test_a_package_gives_pairs_of_its_own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("kit").mkdir()
    Path("kit/numbers.py").write_text(PACKAGE)
    Path("bodies.py").write_text(BODY_SCRIPT)
    monkeypatch.syspath_prepend(".")
    monkeypatch.delitem(sys.modules, "bodies", raising=False)
    script = ["--policy", "null", "--generator", "bodies.Bodies"]
    script += ["--generator.bodies", '["2 * x", "x / 2", "x / 3", "x"]']
    config = str(ROOT / "configs" / "synthesize" / "doctests.yaml")
    small = ["--output", "out", "--task.source", "kit", "--task.style", "completion", "--samples", "4"]
    small = ["synthesize", "--config", config, *small, "--decontaminate_against", "null"]
    main([*small, *script])
    pairs = read_pairs("out/pairs.parquet").records
    # Of three functions, one for each split, train holds one; one body of four is right.
    assert summary()["counts"]["problems"] == len(pairs) == 1
    name = pairs[0].prompt.partition("(")[0].removeprefix("def ")
    assert pairs[0].chosen.strip() == "return " + {"double": "2 * x", "half": "x / 2", "third": "x / 3"}[name]
    assert ">>> " in pairs[0].prompt and pairs[0].prompt.count(">>> ") == 1


def test_the_configuration_of_a_package_samples_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "configs" / "synthesize" / "doctests.yaml")
    small = ["--problems", "2", "--samples", "2", "--sampling.max_new_tokens", "8", "--policy", "embedded:coder"]
    style = ["--task.source", "statistics", "--task.style", "completion", "--decontaminate_against", "null"]
    with pytest.raises(SystemExit) as exit_:  # the embedded policy knows nothing of the library
        main(["synthesize", "--config", config, "--output", "out", *small, *style])
    assert exit_.value.code == 2
    shown = capsys.readouterr()
    assert "problems whose references pass" in shown.out
    assert "no pairs: " in shown.err
    assert summary()["counts"]["samples"] == 4


# --- tests for problems that have none --------------------------------------------------------------------------------

SCRIPT = """
import json
from dataclasses import dataclass
from pathlib import Path

from lit_pref.types import Completion, Generator


@dataclass(frozen=True)
class Script(Generator):
    answers: str

    def generate(self, prompts, samples, sampling, seed):
        scripted = json.loads(Path(self.answers).read_text())
        found = []
        for turns in prompts:
            told = turns[-1]["content"]
            kind = "tests" if "Do not solve it" in told else "solutions"
            texts = next(answers[kind] for name, answers in scripted.items() if f"`{name}`" in told)
            found.append([Completion(text, (), (), True) for text in texts])
        with open("asked.txt", "a") as asked:
            asked.write(f"{len(prompts)} {kind}\\n")
        return found
"""
BODIES = {"add": "a + b", "near": "abs(a - b)", "mul": "a * b", "neg": "-a - b"}  # two mutants each, but for neg
ANSWERS = {
    # add: both mutants fail, a - b and None. near: of a + b and None the second. mul: 2 * 3 is not 5.
    "add": {"tests": ["assert add(1, 2) == 3", "assert add(0, 1) == 1\nassert add(1, 1) == 1"]},
    "near": {"tests": ["assert near(0, 0) == 0", "I would rather not."]},
    "mul": {"tests": ["assert mul(2, 3) == 5", "assert mul(2, 3) == 5"]},
    "neg": {"tests": []},
}


@pytest.fixture
def untested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for four problems, the last with tests of its own, and a generator that is right every other time."""
    rows: list[dict[str, object]] = [
        {"id": name, "prompt": f"Write `{name}`.", "reference": f"def {name}(a, b):\n    return {body}\n"}
        for name, body in BODIES.items()
    ]
    rows[-1]["test_list"] = ["assert neg(1, 2) == -3"]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    solutions = {
        name: {"solutions": [f"```python\ndef {name}(a, b):\n    return {body}\n```" for body in (right, "a + 7")]}
        for name, right in BODIES.items()
    }
    Path("answers.json").write_text(json.dumps({name: ANSWERS[name] | solutions[name] for name in BODIES}))
    Path("script.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(".")
    monkeypatch.delitem(sys.modules, "script", raising=False)
    task = ["--task", "CustomCodeTask", "--task.source", "own.jsonl", "--task.style", "chat", "--problems", "null"]
    script = ["--policy", "null", "--generator", "script.Script", "--generator.answers", "answers.json"]
    return [*task, *script, "--samples", "2", "--min_kill_rate", "0.6"]


def checks() -> dict[str, Any]:
    lines = Path("out/checks.jsonl").read_text().splitlines()
    return {row.pop("problem_id"): row for row in map(json.loads, lines)}


def test_written_tests_are_kept_where_they_are_right_and_strong(
    untested: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SMALL, *untested, "--write_tests", "written"])
    found = checks()
    assert {name: (row["fate"], row["kill_rate"], row["asserts"], row["dropped"]) for name, row in found.items()} == {
        "add": ("kept", 1.0, 2, 1),
        "near": ("too weak", 0.5, 1, 0),
        "mul": ("reference failed", None, 0, 1),  # both answers are one assert
    }
    assert found["add"]["check"] == "assert add(1, 2) == 3\nassert add(0, 1) == 1\n"
    told = summary()["tests"]
    assert {name: count for name, count in told.items() if count} == {
        "problems": 3, "kept": 1, "too weak": 1, "reference failed": 1, "asserts": 3, "dropped asserts": 2,
        "kill rate": 0.75,  # (2 + 1) of (2 + 2) mutants
    }  # fmt: skip
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kill", "rate", "of", "all", "tests", "made", "75.0%"] in shown
    assert ["problems", "dropped,", "tests:", "too", "weak", "1"] in shown
    # add by its written tests, neg by its own
    pairs = read_pairs("out/pairs.parquet").records
    assert [pair.prompt[-1]["content"] for pair in pairs] == ["Write `add`.", "Write `neg`."]
    assert [BODIES["add"] in pairs[0].chosen[0]["content"], "a + 7" in pairs[0].rejected[0]["content"]] == [True] * 2
    assert summary()["counts"]["problems"] == 2


def test_recorded_tests_take_results_from_the_reference(untested: list[str]) -> None:
    main([*SMALL, *untested, "--write_tests", "recorded"])
    # mul(2, 3) is 6 in the reference: 2 + 3 and None fail; near(0, 0) is 0 in a + b too: 2 + 1 + 2 of 6 mutants
    assert {name: row["fate"] for name, row in checks().items()} == {"add": "kept", "near": "too weak", "mul": "kept"}
    assert summary()["tests"]["kill rate"] == pytest.approx(5 / 6)
    assert checks()["mul"]["check"] == "assert mul(2, 3) == 6\n"
    assert summary()["counts"]["pairs"] == 3


def test_a_second_run_asks_for_no_tests_and_an_interrupted_one_goes_on(
    untested: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lit_pref.synthesis.checks.written._SHARD_PROBLEMS", 2)
    command = [*SMALL, *untested, "--write_tests", "written"]

    def stopped(problems: Any, *arguments: Any) -> Any:
        if problems[0].id == "mul":
            raise KeyboardInterrupt
        return write_checks(problems, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr("lit_pref.synthesis.checks.written.write_checks", stopped)
        with pytest.raises(SystemExit) as exit_:
            main(command)
    assert exit_.value.code == 130 and not Path("out/checks.jsonl").exists()
    main(command)
    asked = Path("asked.txt").read_text().splitlines()
    assert asked == ["2 tests", "1 tests", "2 solutions"]
    first, written = summary(), Path("out/checks.jsonl").read_bytes()
    main(command)
    assert Path("asked.txt").read_text().splitlines() == asked
    assert (summary(), Path("out/checks.jsonl").read_bytes()) == (first, written)
    capsys.readouterr()
    for other, change in (
        (["--min_kill_rate", "0.4"], "min_kill_rate: 0.6 there, 0.4 now"),
        (["--write_tests", "recorded"], "expected: written there, recorded now"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *other])
        assert f"out/tests: was made otherwise ({change}); name another folder" in capsys.readouterr().err
    # what cannot be read is made again
    Path("out/tests/part-00001.parquet").write_bytes(b"PAR1")
    main(command)
    assert Path("asked.txt").read_text().splitlines() == [*asked, "1 tests"]
    assert (summary(), Path("out/checks.jsonl").read_bytes()) == (first, written)


def test_problems_without_tests_are_refused_by_default(untested: list[str], refused: Callable[..., str]) -> None:
    assert refused(*untested) == (
        "3 of 4 problems have no tests, the first is add: have them made by --write_tests written, or recorded from "
        "the references by --write_tests recorded"
    )
    assert not Path("out").exists() and not Path("asked.txt").exists()


def test_a_policy_that_writes_no_tests_leaves_no_problem(untested: list[str], refused: Callable[..., str]) -> None:
    here = ["--policy", "embedded:coder", "--generator", "null", "--task.style", "completion", "--problems", "1"]
    message = refused(*untested, *here, "--write_tests", "written", "--sampling.temperature", "0.00001")
    assert message.startswith("no problem is left; problems that had no tests: 1, problems dropped, tests: ")
    assert message.endswith("; out/checks.jsonl holds what was written") and len(checks()) == 1


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--samples", "1"], "--samples: must be >= 2 to hold a passing and a failing one, got 1"),
        (["--problems", "0"], "--problems: must be >= 1, got 0"),
        (["--pairs_per_problem", "0"], "--pairs_per_problem: must be >= 1, got 0"),
        (["--min_kill_rate", "1.5"], "--min_kill_rate: must be in [0, 1], got 1.5"),
        (["--write_tests", "yes"], "write_tests: expected one of 'no', 'written', 'recorded', got yes"),
        (["--strategy", "worst"], "strategy: expected one of 'random', 'best_vs_worst', 'length_matched', got worst"),
        (["--split", "tset"], "split: expected one of 'train', 'validation', 'test', got tset"),
        (["--sampling.temperature", "-1"], "temperature must be >= 0, got -1.0"),
        (["--sampling.temperature", "0"], "--samples: 6 greedy samples are all alike"),
        (["--task", "CodeTsk"], "there is no class 'CodeTsk'; did you mean 'CodeTask'?"),
        (["--task.bug_rate", "2"], "bug_rate must be in [0, 1], got 2.0"),
        (["--policy", "embedded:codr"], "no embedded model is called 'embedded:codr' (did you mean 'embedded:coder'?)"),
        (["--generator", "OpenAIGenerator", "--generator.model", "m"], "give --policy or --generator, not both"),
        (["--sampels", "3"], "there is no option 'sampels'"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
    ids=lambda value: value[0].removeprefix("--") if isinstance(value, list) else "",
)
def test_a_wrong_option(arguments: list[str], expected: str, refused: Callable[..., str]) -> None:
    assert expected in refused(*arguments)
    assert not Path("out").exists()


def test_a_folder_of_other_samples_is_refused(refused: Callable[..., str]) -> None:
    main([*SMALL, "--problems", "4"])
    message = refused()
    assert message.startswith("out/samples: was made otherwise (problems: ") and "name another folder" in message


def test_no_pairs_are_an_error_with_the_mend(refused: Callable[..., str]) -> None:
    message = refused("--sampling.temperature", "0.00001")  # all samples of a problem are alike
    assert message.startswith("no pairs: 16 problems, ") and "80 duplicate samples" in message
    assert summary()["counts"]["pairs"] == 0


# --- help and configurations ------------------------------------------------------------------------------------------


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["synthesize", "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--output",
        "--task",
        "--generator",
        "--strategy {random,best_vs_worst,length_matched}",
        "--decontaminate_against",
        "--write_tests {no,written,recorded}",
        "--min_kill_rate",
    ):
        assert option in shown
    with pytest.raises(SystemExit):
        main(["synthesize", "--generator.help", "OpenAIGenerator"])
    assert "--generator.concurrency" in capsys.readouterr().out


# Those of code pairs: test_code_pairs_cli.py.
CONFIGS = sorted(set((ROOT / "configs/synthesize").glob("*.yaml")) - set((ROOT / "configs").glob("*/code_pairs*")))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_begins_with_its_command_and_resolves(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = config.read_text().splitlines()[0].removeprefix("# lit-pref ").split()
    assert command[0] == "synthesize" and command[-1] == str(config.relative_to(ROOT))
    configs = [str(ROOT / each) if each.endswith(".yaml") else each for each in command]
    with pytest.raises(SystemExit) as exit_:
        main([*configs, "--print_config"])
    assert exit_.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(config.read_text())
    for name, value in written.items():
        if name == "decontaminate_against":
            assert [each["class_path"].split(".")[-1] for each in resolved[name]] == value
        elif isinstance(value, dict) and "class_path" in value:
            assert resolved[name]["class_path"].split(".")[-1] == value["class_path"]
            assert resolved[name]["init_args"].items() >= value.get("init_args", {}).items()
        elif isinstance(value, dict):
            assert resolved[name].items() >= value.items()
        else:
            assert resolved[name] == value


def test_help_of_the_command_needs_no_heavy_import() -> None:
    script = "import sys, lit_pref.cli.main as c; c.main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "lit-pref synthesize --config" in done.stdout
