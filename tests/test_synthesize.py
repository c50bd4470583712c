"""`lit-pref synthesize` as a user meets it: a complete folder, resuming, decontamination, servers, mistakes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_pref.cli import main
from lit_pref.data.formats import read_pairs
from lit_pref.generation import LocalGenerator, OpenAIGenerator
from lit_pref.models import export_model, load_causal_lm, load_tokenizer, weights_fingerprint
from lit_pref.sandbox import level_in_force
from lit_pref.tasks import CodeTask
from lit_pref.types import Completion

ROOT = Path(__file__).parents[1]
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
    pairs = read_pairs("out/pairs.parquet").pairs
    counts = summary()["counts"]
    assert 0 < len(pairs) == counts["pairs"]
    assert (counts["problems"], counts["samples"]) == (16, 96)
    reasons = ("problems all passed", "problems all failed", "problems without usable samples")
    assert counts["pairs"] + sum(counts[reason] for reason in reasons) == 16
    for name, count in counts.items():
        assert name in shown and f"{count:,}" in shown
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
    main(["fit", *overlay, "--data.train", "out/pairs.parquet", "--data.validation_share", "0.3", *small])
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
    monkeypatch.setattr("lit_pref.synthesis.graded_samples._SHARD_PROBLEMS", 4)
    whole = [*SMALL[:3], "--output", "whole", *SMALL[5:]]
    main(whole)
    generate = LocalGenerator.generate
    calls: list[int] = []

    def stopped(self: LocalGenerator, *arguments: Any) -> list[list[Completion]]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(LocalGenerator, "generate", stopped)
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
    assert quoted.prompt not in {pair.prompt for pair in read_pairs("out/pairs.parquet").pairs}


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
    server = ["--policy", "null", "--generator", "OpenAIGenerator", "--generator.model", "big"]
    main([*SMALL, *server, "--generator.api_key", "secret-1", "--generator.concurrency", "3"])
    assert (asked[0].model, asked[0].concurrency, asked[0].api_key) == ("big", 3, "secret-1")
    pairs = read_pairs("out/pairs.parquet").pairs
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
    chat = ["--task", "HumanEval", "--task.source", "add.jsonl", "--task.style", "chat", "--split", "test"]
    server = ["--policy", "null", "--generator", "OpenAIGenerator", "--generator.model", "m"]
    main([*SMALL, *chat, *server, "--problems", "null", "--samples", "2"])
    counts = summary()["counts"]
    assert (counts["problems"], counts["pairs"], counts["samples without code"]) == (4, 3, 1)
    for number, pair in enumerate(read_pairs("out/pairs.parquet").pairs):
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


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--samples", "1"], "--samples: must be >= 2 to hold a passing and a failing one, got 1"),
        (["--problems", "0"], "--problems: must be >= 1, got 0"),
        (["--pairs_per_problem", "0"], "--pairs_per_problem: must be >= 1, got 0"),
        (["--strategy", "worst"], "strategy: expected one of 'random', 'best_vs_worst', got worst"),
        (["--split", "tset"], "split: expected one of 'train', 'validation', 'test', got tset"),
        (["--sampling.temperature", "-1"], "temperature must be >= 0, got -1.0"),
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
    message = refused("--sampling.temperature", "0")
    assert message.startswith("no pairs: 16 problems, ") and "80 duplicate samples" in message
    assert summary()["counts"]["pairs"] == 0


# --- help and configurations ------------------------------------------------------------------------------------------


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["synthesize", "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--output", "--task", "--generator", "--strategy {random,best_vs_worst}", "--decontaminate_against"):
        assert option in shown
    with pytest.raises(SystemExit):
        main(["synthesize", "--generator.help", "OpenAIGenerator"])
    assert "--generator.concurrency" in capsys.readouterr().out


@pytest.mark.parametrize("config", sorted((ROOT / "configs/synthesize").glob("*.yaml")), ids=lambda path: path.stem)
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
        else:
            assert resolved[name] == value


def test_help_of_the_command_needs_no_heavy_import() -> None:
    script = "import sys, lit_pref.cli as c; c.main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "lit-pref synthesize --config" in done.stdout
