"""Ctrl-C in each stage: status 130, one line on how to go on, nothing half written, and it does go on.

Sampling and training are interrupted from outside, in processes of their own; the reference and the closing evaluation,
which are over too soon on the embedded world, by a signal from within.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_pref.callbacks import BeforeAfter
from lit_pref.cli.main import main
from lit_pref.modules.reference import Reference

CONFIG = """\
seed_everything: 1
model:
  class_path: DPOModule
  init_args:
    policy: embedded:coder
    objective: {class_path: DPO, init_args: {beta: 0.1}}
data:
  class_path: ExecutionPairsDataModule
  init_args: {train_size: 500, validation_size: 30, samples: {each: 2, sampling: {max_new_tokens: 32}}, batch_size: 4}
trainer:
  max_epochs: 4
  max_steps: 4
  log_every_n_steps: 1
  callbacks:
    - class_path: BeforeAfter
      init_args:
        evaluations:
          - class_path: PairAccuracy
"""
FIT = ["fit", "--config", "small.yaml", "--run_name=run"]
RUN = Path("runs/small/run")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("small.yaml").write_text(CONFIG)
    return tmp_path


def descendants(pid: int) -> set[int]:
    """Processes that stem from `pid`; none where there is no /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found - {pid}


def interrupt(arguments: list[str], ready: Callable[[], bool]) -> str:
    """Start a command, send Ctrl-C once `ready`, and check that it ends as it should; what it wrote to stderr."""
    with Path("shown.txt").open("w") as shown:
        command = [sys.executable, "-m", "lit_pref.cli.main", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 600
        while not ready():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=300)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in error
    deadline = time.monotonic() + 120
    while left := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"left over: {left} of {started}"
        time.sleep(0.05)
    return error


def finished() -> dict[str, object]:
    summary: dict[str, object] = json.loads((RUN / "summary.json").read_text())
    assert summary["status"] == "finished"
    return summary


def no_halves() -> bool:
    return not list(Path.cwd().rglob("*.tmp")) and not list(Path.cwd().rglob("*.part"))


def test_while_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    # 500 training problems are two shards; the signal comes once the held-out shard and the first of them are there.
    error = interrupt(FIT, lambda: len(list(Path("cache").rglob("part-*.parquet"))) == 2)
    assert "lit-pref: interrupted; the same command goes on from what is finished" in error
    assert no_halves()
    kept = {path: path.stat().st_mtime_ns for path in Path("cache").rglob("part-*.parquet")}
    assert len(kept) >= 2
    assert json.loads((RUN / "summary.json").read_text())["status"] == "interrupted"

    main(FIT)
    assert "Sampling and running 30 test" not in capsys.readouterr().out
    assert len(list(Path("cache").rglob("part-*.parquet"))) == 3
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert finished()["optimizer_steps"] == 4


def test_while_training() -> None:
    endless = ["--trainer.max_steps=100000", "--trainer.max_epochs=1000", "--data.train_size=60"]
    metrics = RUN / "metrics.csv"
    error = interrupt([*FIT, *endless], lambda: metrics.is_file() and metrics.read_text().count("\n") > 4)
    assert no_halves()
    at = json.loads((RUN / "summary.json").read_text())
    assert at["status"] == "interrupted"
    way_on = error.strip().splitlines()[-1].partition("go on with: lit-pref ")[2]
    assert way_on.endswith(f"--ckpt_path {RUN}/checkpoints/last.ckpt")

    steps = int(at["optimizer_steps"]) + 3
    main([*shlex.split(way_on), f"--trainer.max_steps={steps}"])
    summary = finished()
    assert summary["optimizer_steps"] == steps
    assert summary["before"] == at["before"]


def strike(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the first call of a method."""
    method = getattr(owner, name)

    def struck(*arguments: object) -> object:
        monkeypatch.setattr(owner, name, method)
        signal.raise_signal(signal.SIGINT)
        return method(*arguments)

    monkeypatch.setattr(owner, name, struck)


def test_while_the_reference_is_scored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = [*FIT, "--data.train_size=60"]
    strike(Reference, "_kept", monkeypatch)
    with pytest.raises(SystemExit) as exit_:
        main(few)
    assert exit_.value.code == 130
    # Lightning goes deaf to it at the first one; whoever calls main() from Python can interrupt again.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "the same command goes on from what is finished" in capsys.readouterr().err
    assert no_halves() and not list(Path("cache").rglob("*.npy")) and not (RUN / "checkpoints").exists()

    main(few)
    assert "Sampling" not in capsys.readouterr().out
    assert finished()["optimizer_steps"] == 4


def test_while_the_closing_evaluation_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = [*FIT, "--data.train_size=60"]
    strike(BeforeAfter, "on_train_end", monkeypatch)
    with pytest.raises(SystemExit) as exit_:
        main(few)
    assert exit_.value.code == 130
    way_on = capsys.readouterr().err.strip().splitlines()[-1].partition("go on with: lit-pref ")[2]
    assert way_on == shlex.join([*few, "--ckpt_path", f"{RUN}/checkpoints/last.ckpt"])
    at = json.loads((RUN / "summary.json").read_text())
    assert (at["status"], at["optimizer_steps"], at["after"]) == ("interrupted", 4, {})

    main(shlex.split(way_on))
    assert finished()["before"] == at["before"]
    assert finished()["after"].keys() == at["before"].keys()
