"""Classes of the working folder: found by every command and in every process that it starts, and their own mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_pref.cli.main import main

# A file named like a module of the standard library, which the processes below import after the path is set.
RANDOM = "raise RuntimeError('the working folder took the place of the standard library')\n"
LIGHT = "def double(x):\n    return 2 * x\n"
PARTS = """\
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ClassVar

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from lit_pref.datamodules import PairsDataModule
from lit_pref.losses import PairObjective
from lit_pref.modules import DPOModule
from lit_pref.tasks import CodeTask
from lit_pref.types import Outcome, Verdict
from my_light import double


@dataclass(frozen=True)
class Mine(PairObjective):
    beta: float = 0.3
    needs_reference: ClassVar[bool] = False

    def __call__(self, policy, reference):
        return -F.logsigmoid(self.beta * (policy.chosen - policy.rejected))


class Module(DPOModule): ...
class Data(PairsDataModule): ...
class Optimizer(torch.optim.SGD): ...


class Spawns(Callback):
    def on_train_start(self, trainer, pl_module):
        with get_context("spawn").Pool(1) as pool:
            print("a started process says", pool.map(double, [21]))


class AllPass(CodeTask):
    def grade(self, problems, completions):
        return [Verdict(Outcome.PASSED) for _ in completions]
"""
WRITER = """\
from dataclasses import dataclass

from lit_pref.types import Completion, Generator


@dataclass(frozen=True)
class Same(Generator):
    def generate(self, prompts, samples, sampling, seed):
        return [[Completion("    return x\\n", (), (), True)] * samples for _ in prompts]
"""
FIT = [
    *("fit", "--model", "my_parts.Module", "--model.policy", "embedded:coder-weak", "--model.objective=my_parts.Mine"),
    *("--model.objective.beta=0.2", "--model.optimizer", "my_parts.Optimizer", "--model.optimizer.lr", "1e-4"),
    *("--data", "my_parts.Data", "--data.train", "pairs.jsonl", "--data.batch_size=2", "--run_name=run"),
    *("--trainer.max_steps=2", "--trainer.log_every_n_steps=1"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in (("my_parts", PARTS), ("my_light", LIGHT), ("random", RANDOM)):
        Path(f"{name}.py").write_text(text)
    rows = [{"prompt": f"f{i}", "chosen": " yes", "rejected": " no"} for i in range(12)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`lit-pref` as its script starts it: not the working folder but the script's own stands on the path."""
    script = Path("scripts/lit-pref")
    script.parent.mkdir(exist_ok=True)
    script.write_text("from lit_pref.cli.main import main\n\nif __name__ == '__main__':\n    main()\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


def test_a_fit_of_nothing_but_own_classes() -> None:
    done = command(*FIT, "--trainer.callbacks=my_parts.Spawns", "--data.loading.num_workers=1")
    assert done.returncode == 0, done.stderr
    assert "a started process says [42]" in done.stdout
    summary = json.loads(Path("runs/Module/run/summary.json").read_text())
    assert (summary["module"], summary["data"], summary["optimizer_steps"]) == ("Module", "Data", 2)
    assert "class_path: my_parts.Mine\n      init_args:\n        beta: 0.2" in (
        Path("runs/Module/run/config.yaml").read_text()
    )


@pytest.mark.slow
def test_own_classes_on_all_ranks() -> None:
    # The name of a configuration of the kit too is found by the process that the first one starts.
    ranks = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]
    done = command("fit", "--config", "dpo", *FIT[1:], *ranks)
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("runs/dpo/run/summary.json").read_text())["world_size"] == 2


@pytest.mark.slow
def test_own_classes_in_ray() -> None:
    pytest.importorskip("ray")
    Path("source").mkdir()
    for i in range(3):
        code = f'def f{i}(x):\n    """Return x plus {i}, whatever x may be."""\n    y = x + {i}\n    return y\n'
        Path(f"source/f{i}.py").write_text(code)
    Path("my_writer.py").write_text(WRITER)
    recipe = ["synthesize", "--recipe=code_pairs", "--output=out", "--source=source", "--runner=ray"]
    done = command(*recipe, "--construction=OriginalChosen", "--weak=my_writer.Same", "--filters.syntax=false")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("out/summary.json").read_text())["counts"]["pairs"] == 3


def test_an_own_task_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--sampling.max_new_tokens=1", "--problems=3", "--output=out"]
    main(["evaluate", "--task", "my_parts.AllPass", "--policy", "embedded:coder-weak", *short])
    assert json.loads(Path("out/results.json").read_text())["figures"]["pass@1"]["mean"] == 1


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a_syntax", "x = 1\ny = (\n", "a_syntax.py:2: '(' was never closed"),
        ("an_error", "import math\n\nx = math.nope\n", "an_error.py:3: AttributeError: module 'math' has no attribute"),
        (
            "an_import",
            "import torch\nimport nowhere\n",
            "an_import.py:2: ModuleNotFoundError: No module named 'now",
        ),
        ("without_it", "x = 1\n", "model.objective: there is no class 'without_it.Mine'"),
        ("of_another_kind", "class Mine: ...\n", "model.objective: Mine is no PairObjective: expected DPO, "),
    ],
)
def test_a_module_with_a_mistake(name: str, text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(f"{name}.py").write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", "dpo", f"--model.objective={name}.Mine"])
    said = capsys.readouterr().err
    assert (exit_.value.code, said.count("\n")) == (2, 1)
    assert expected in said


def test_a_module_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", "dpo", "--model.objective=my_part.Mine"])
    assert "there is no module 'my_part'; did you mean 'my_parts'?" in capsys.readouterr().err
