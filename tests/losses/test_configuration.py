"""Objectives and regularizers as jsonargparse reads them from YAML and the command line."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from lit_pref.losses import DPO, ChosenNLL, LikelihoodBudget, PairObjective, Regularizer, SimPO


class Trainee:
    """Takes both, as a module does. An objective without a default keeps each class's own defaults: see below."""

    def __init__(self, objective: PairObjective, regularizer: Regularizer | None = None) -> None:
        self.objective, self.regularizer = objective, regularizer


class DefaultTrainee:
    """Takes an objective by default."""

    def __init__(self, objective: PairObjective = DPO(label_smoothing=0.1)) -> None:  # noqa: B008 - frozen
        self.objective = objective


def parser(trainee: type) -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_class_arguments(trainee, "x")
    return made


def build(trainee: type, *arguments: str) -> Trainee:
    reader = parser(trainee)
    built: Trainee = reader.instantiate(reader.parse_args(list(arguments))).x
    return built


def test_a_class_is_named_without_its_module():
    assert build(Trainee, "--x.objective", "DPO").objective == DPO()
    assert build(Trainee, "--x.objective", "SimPO").objective == SimPO()


def test_yaml_is_overridden_from_the_command_line(tmp_path: Path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "x:\n  objective: {class_path: SimPO, init_args: {margin: 0.5}}\n"
        "  regularizer: {class_path: LikelihoodBudget, init_args: {budget: 4.0, per: token}}\n"
    )
    built = build(Trainee, "--config", str(config), "--x.objective.beta", "0.3", "--x.regularizer.weight", "2")
    assert built.objective == SimPO(beta=0.3, margin=0.5)
    assert built.regularizer == LikelihoodBudget(budget=4.0, weight=2.0, per="token")


def test_a_default_instance_shows_in_the_resolved_config_and_can_be_overridden():
    reader = parser(DefaultTrainee)
    resolved = reader.parse_args(["--x.objective.beta", "0.3"]).x.objective
    assert resolved.class_path == "lit_pref.losses.DPO"
    assert vars(resolved.init_args) == {"beta": 0.3, "label_smoothing": 0.1}
    assert build(DefaultTrainee, "--x.objective.beta", "0.3").objective == DPO(beta=0.3, label_smoothing=0.1)


def test_a_chosen_class_keeps_its_own_defaults():
    # With a default instance jsonargparse hands its beta on to the class that replaces it (its issue 460): SimPO
    # would train with DPO's 0.1. Constructors that take objectives therefore have no default instance.
    assert build(Trainee, "--x.objective", "SimPO").objective.beta == 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--x.objective", "SimPOO"], "SimPOO"),
        (["--x.objective", "DPO", "--x.objective.betta", "1"], "'betta' is not accepted"),
        (["--x.objective", "DPO", "--x.objective.beta", "much"], "much"),
        (["--x.objective", "DPO", "--x.regularizer", "LikelihoodBudget"], "budget"),
        (["--x.objective", "DPO", "--x.regularizer", "ChosenNLL", "--x.regularizer.per", "word"], "word"),
        (["--x.objective", "ChosenNLL"], "ChosenNLL"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        parser(Trainee).parse_args(arguments)


def test_a_beta_below_zero_fails_at_its_owner():
    with pytest.raises(ValueError, match=r"beta must be > 0, got -1\.0"):
        build(Trainee, "--x.objective", "DPO", "--x.objective.beta", "-1")


def test_a_regularizer_is_built_by_name():
    built = build(Trainee, "--x.objective", "DPO", "--x.regularizer", "ChosenNLL", "--x.regularizer.weight", "0.2")
    assert built.regularizer == ChosenNLL(weight=0.2)
