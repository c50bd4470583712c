"""Each old name gets one line that tells the new one, and the new one is there."""

import inspect
from pathlib import Path

import pytest

import lit_pref.datamodules
import lit_pref.evaluation
import lit_pref.modules
import lit_pref.sandbox
import lit_pref.synthesis
import lit_pref.tasks
from lit_pref.cli.main import main
from lit_pref.cli.old_names import CLASSES, COMMANDS, KEYS, new_class

PACKAGES = (
    lit_pref.modules,
    lit_pref.datamodules,
    lit_pref.tasks,
    lit_pref.sandbox,
    lit_pref.synthesis,
    lit_pref.evaluation,
)


@pytest.fixture(autouse=True)
def _without_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def test_what_names_are_called_now_is_there_and_the_old_ones_are_not() -> None:
    public = {name: getattr(each, name) for each in PACKAGES for name in each.__all__}
    arguments = {
        each for item in public.values() if inspect.isclass(item) for each in inspect.signature(item).parameters
    }
    for old, new in CLASSES.items():
        assert new.split()[0] in public and old not in public, old
    for old, said in KEYS.items():
        how, new = said.split()[:2]
        assert how in ("gone:", "no") or new.rstrip(",").split(".")[0] in arguments, old


def test_a_class_of_ones_own_may_have_an_old_name() -> None:
    assert new_class("my_tasks.CodeProblems") is None
    assert new_class("lit_pref.tasks.CodeProblems") == new_class("CodeProblems") == "CustomCodeTask"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data=ReasoningPairsDataModule"], "data: ReasoningPairsDataModule is now TaskPairsDataModule"),
        (["--data=lit_pref.datamodules.reasoning.ReasoningPairsDataModule"], "is now TaskPairsDataModule"),
        (["--model.engine=null"], "model: engine is now compute"),
        (["--model.engine.layout=packed"], "model: engine is now compute"),
        (["--data.sampler=my-model"], "data: sampler is now sampled_policy, in a data module samples.sampled_policy"),
        (["--data.held_out=test"], "data: held_out is gone: fit and validate read the validation split"),
        (["--data.held_out_problems=9"], "data: held_out_problems is now validation_size"),
        (["--data.sampling.temperature=1"], "data: sampling is now samples.sampling"),
        (["--config=old.yaml"], "old.yaml: model: engine is now compute"),
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=eval/loss"],
            "trainer.callbacks: monitor: eval/loss is now validation/loss",
        ),
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=eval/budget/chosen_fall"],
            "trainer.callbacks: monitor: eval/budget/chosen_fall is now validation/logps/chosen_fall",
        ),
    ],
)
def test_an_old_name_in_a_fit(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    old = "init_args: {policy: embedded:coder, objective: {class_path: DPO}, engine: {layout: packed}}"
    Path("old.yaml").write_text(f"model:\n  class_path: DPOModule\n  {old}\n")
    assert_said(["fit", "--config", "dpo", *arguments], expected, capsys)


def test_an_old_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert_said([command], f"{command} is no command any more", capsys)


def assert_said(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    said = capsys.readouterr().err
    assert (exit_.value.code, said.count("\n")) == (2, 1)
    assert expected in said
