"""`lit-pref evaluate --recipe reward`: a reward model on pairs, best-of-N and multiple choice, with 95% intervals.

What is measured are the very evaluations that a run takes before and after training; of pairs their calibration is
given too. Not covered: models that need more than one device; single items (`lit-pref predict` writes those of pairs).
"""

import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from rich import get_console
from torch import Tensor

import lit_pref.generation
import lit_pref.tasks  # noqa: F401 - its classes are found by their bare name once imported
from lit_pref.callbacks.before_after import evaluate
from lit_pref.cli.export import read_option
from lit_pref.cli.functions import Recipe, results_folder, writable_folder
from lit_pref.data.tokens.encoding import tokenizer_identity
from lit_pref.errors import UserError
from lit_pref.evaluation import BestOfN, Evaluation, PairAccuracy, PassAtK
from lit_pref.evaluation.grading import HarnessError
from lit_pref.metrics import Interval, expected_calibration_error, mean_interval, pair_brier
from lit_pref.models import LoRA, saved_score_head, weights_fingerprint
from lit_pref.modules import RewardFinetuneModule
from lit_pref.reports.closing_table import is_share
from lit_pref.reports.record import circumstances, interval_json, table
from lit_pref.storage.files import JsonValue, write_json
from lit_pref.types import ChoiceTask, PairTask, Task

_DESCRIPTION = (
    "Recipe reward: measure a reward model on pairs, best-of-N or multiple choice, with 95% intervals over items. "
    "The arguments of a class: --evaluations.help BestOfN."
)
_EXAMPLE = "lit-pref evaluate --config evaluate/best_of_n --reward_model my-model"


class Measured(NamedTuple):
    """Per-item figures by name, [items] each, and what is one number for all pairs."""

    figures: dict[str, Tensor]
    calibration: dict[str, float]


def evaluate_reward(
    evaluations: Evaluation | list[Evaluation],
    reward_model: str | None = None,
    checkpoint: Path | None = None,
    append_eos: bool | None = None,
    calibration_bins: int = 10,
    output: Path | None = None,
) -> None:
    """Measure a reward model, in fp32, with 95% intervals over items.

    Args:
        evaluations: one or a list of PairAccuracy, BestOfN, MultipleChoiceAccuracy, or classes of your own; arguments
            as in --evaluations.pairs FILE.
        reward_model: a folder or hub id of a sequence classifier with one label, as `lit-pref export` writes it.
        checkpoint: or a run's `.ckpt` file.
        append_eos: whether responses are scored after an EOS; null is how the model was trained, and true where it
            does not say.
        calibration_bins: of equally many pairs each, for the calibration error `ece`.
        output: the folder for results.json; runs/evaluate/reward/<time> by default.
    """
    several = evaluations if isinstance(evaluations, list) else [evaluations]
    _check(several, reward_model, checkpoint, calibration_bins)
    folder = results_folder(output, "reward")
    module = _opened(reward_model, checkpoint, append_eos)
    folder = writable_folder("--output", folder)
    start = time.monotonic()
    measured = measure(module, several, calibration_bins)
    _report(measured, several, module, {"reward_model": reward_model, "checkpoint": checkpoint}, folder)
    print(f"measured in {time.monotonic() - start:.1f} s; results: {folder}")


def measure(module: RewardFinetuneModule, evaluations: Sequence[Evaluation], bins: int) -> Measured:
    """All figures; of pairs also `brier` and the calibration error, of best-of-N also its ceiling `oracle/N`.

    Raises UserError for two evaluations that give figures of one name.
    """
    try:
        figures = evaluate(evaluations, module, "test").figures
    except (ValueError, HarnessError) as error:
        hint = "; give one of them a prefix" if "another evaluation gives too" in str(error) else ""
        raise UserError(f"--evaluations: {error}{hint}") from error
    calibration: dict[str, float] = {}
    for evaluation in evaluations:
        if isinstance(evaluation, PairAccuracy):
            margin_P = figures[f"{evaluation.prefix}margin"]
            figures[f"{evaluation.prefix}brier"] = pair_brier(margin_P).float()
            calibration[f"{evaluation.prefix}ece"] = float(expected_calibration_error(margin_P, bins))
        elif isinstance(evaluation, BestOfN):
            figures |= evaluation.oracle(module)
    return Measured(figures, calibration)


# --- the model --------------------------------------------------------------------------------------------------------


def _opened(reward_model: str | None, checkpoint: Path | None, append_eos: bool | None) -> RewardFinetuneModule:
    """The reward model with its trained head; Raises UserError where there is none."""
    if checkpoint is not None:
        module = _of_checkpoint(checkpoint, append_eos)
    else:
        assert reward_model is not None
        module = RewardFinetuneModule(reward_model, append_eos=append_eos)
        if saved_score_head(reward_model, module.model) is None:
            raise UserError(
                f"--reward_model: {reward_model!r} holds no score head: expected a sequence classifier of one label, "
                "as lit-pref export writes it of a reward model's checkpoint"
            )
    return module.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _of_checkpoint(checkpoint: Path, append_eos: bool | None) -> RewardFinetuneModule:
    content = read_option("--checkpoint", checkpoint)
    saved, state = content["lit_pref"], content["state_dict"]
    if "score_head.weight" not in state:
        raise UserError(f"--checkpoint: {checkpoint} is a policy, which scores nothing: give one of a reward model")
    adapter = LoRA(**saved["adapter"]) if saved.get("adapter") else None
    said = saved.get("append_eos", True) if append_eos is None else append_eos
    module = RewardFinetuneModule(saved["policy"], fresh_head=True, append_eos=said, adapter=adapter)
    module.on_load_checkpoint(content)  # refuses an adapter whose base has changed
    module.load_state_dict(state, strict=adapter is None)
    return module


# --- the record -------------------------------------------------------------------------------------------------------


def _report(
    measured: Measured,
    evaluations: Sequence[Evaluation],
    module: RewardFinetuneModule,
    origin: Mapping[str, str | Path | None],
    folder: Path,
) -> None:
    """The table, and results.json with all that the figures depend on."""
    intervals = {
        name: mean_interval(values, bounded=is_share(name, values)) for name, values in measured.figures.items()
    }
    record: dict[str, JsonValue] = {
        "figures": {name: interval_json(interval) for name, interval in intervals.items()},
        "calibration": dict(measured.calibration),
        "evaluations": [
            {"class": type(each).__name__, **_settings(each), "split": each.measured("test")} for each in evaluations
        ],
        **{name: str(value) for name, value in origin.items() if value is not None},
        "append_eos": module.append_eos,
        "weights": weights_fingerprint(module.model),
        "score_head": _fingerprint(module.score_head.weight),
        "tokenizer": tokenizer_identity(module.tokenizer),
        **circumstances(),
    }
    write_json(folder / "results.json", record)
    figures = ((name, _text(name, interval, measured), f"{interval.n:,} items") for name, interval in intervals.items())
    calibration = ((name, f"{value:.3f}") for name, value in measured.calibration.items())
    get_console().print(table("reward model", figures, calibration))


def _text(name: str, interval: Interval, measured: Measured) -> str:
    percent = is_share(name, measured.figures[name])
    return interval.text(1 if percent else 3, percent)


def _settings(of: object) -> dict[str, JsonValue]:
    """Public attributes; what JSON does not know as text, but a task by its own attributes."""
    return {name: _setting(value) for name, value in vars(of).items() if not name.startswith("_")}


def _setting(value: object) -> JsonValue:
    if isinstance(value, Task | ChoiceTask | PairTask):
        return {"class": type(value).__name__, **_settings(value)}
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _fingerprint(weight: Tensor) -> str:
    return blake2b(weight.detach().float().cpu().numpy().tobytes(), digest_size=16).hexdigest()


def _check(evaluations: Sequence[Evaluation], reward_model: str | None, checkpoint: Path | None, bins: int) -> None:
    if (reward_model is None) == (checkpoint is None):
        got = "both" if reward_model is not None else "neither of them"
        raise UserError(f"give --reward_model or --checkpoint, got {got}")
    if not evaluations:
        raise UserError("--evaluations: expected at least one, as PairAccuracy, BestOfN or MultipleChoiceAccuracy")
    for each in evaluations:
        if isinstance(each, PairAccuracy) and each.pairs is None:
            raise UserError("--evaluations: PairAccuracy measures a run's own pairs; give it --evaluations.pairs here")
        if isinstance(each, PassAtK):
            raise UserError("--evaluations: PassAtK measures what a policy writes; take --recipe pass_at_k")
    if bins < 1:
        raise UserError(f"--calibration_bins: must be >= 1, got {bins}")


REWARD = Recipe(evaluate_reward, _EXAMPLE, _DESCRIPTION)
