"""Whether a checkpoint fits this run, checked before anything is computed or written.

Not covered: another model of the same shapes, which no checkpoint can tell from the one that was trained.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule

from lit_pref.errors import UserError
from lit_pref.machine.processors import tell_slow_bf16
from lit_pref.models import LoRA, difference
from lit_pref.types import Dtype

if TYPE_CHECKING:
    from lit_pref.modules.language_model import _LanguageModule


def check_dtype(dtype: Dtype, adapter: LoRA | None) -> Dtype:
    """Raise UserError for weights of half precision that are to be trained themselves."""
    if dtype != "float32" and adapter is None:
        raise UserError(
            f"model.dtype: {dtype} weights lose the small updates of training: add an adapter (--config model/lora), "
            "over which they stay as they are, or leave dtype out and give --trainer.precision bf16-mixed"
        )
    return dtype


def tell_precision(module: "_LanguageModule") -> None:
    """Say where half precision loses updates, and where the processor has no instructions for it."""
    if (precision := str(module.trainer.precision)) in ("bf16-true", "16-true"):
        mixed = precision.replace("true", "mixed")
        print(
            f"--trainer.precision {precision}: trained weights of half precision lose small updates; {mixed} keeps "
            "them in fp32, and --model.dtype rounds only the frozen ones under an adapter",
            flush=True,
        )
    if module.trainer.strategy.root_device.type != "cpu":
        return
    if precision.startswith("bf16"):
        tell_slow_bf16(f"--trainer.precision {precision}")
    elif module.weights_dtype == "bfloat16":
        tell_slow_bf16("--model.dtype bfloat16")


def run_names(module: "_LanguageModule") -> dict[str, str | None]:
    """What a resumed run must have in common with it, by name; for a module whose trainer has its optimizer."""
    trainer = module.trainer
    data = trainer.datamodule  # type: ignore[attr-defined]
    schedulers = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
    return {
        "module": type(module).__name__,
        "data": None if data is None else type(data).__name__,
        "optimizer": type(trainer.optimizers[0]).__name__ if trainer.optimizers else None,
        "scheduler": schedulers[0] if schedulers else None,
    }


def check_names(module: "_LanguageModule", content: dict[str, Any], data: LightningDataModule | None) -> None:
    """Raise UserError if a run of this module and data cannot be resumed from a checkpoint."""
    saved = _said(content)
    loops = content.get("loops")
    whole = isinstance(content.get("optimizer_states"), list) and isinstance(loops, dict) and "fit_loop" in loops
    if not whole or not isinstance(content.get("pytorch-lightning_version"), str):
        raise UserError(
            "the checkpoint holds weights only, and a run cannot go on from them: take the run's last.ckpt, or export "
            "it and give the folder as the policy"
        )
    _same("the module", saved.get("module"), type(module).__name__)
    name = None if data is None else type(data).__name__
    position = content.get(str(saved.get("data"))) or {}
    if saved.get("data") != name and not position.get("ended", True):
        _same("the data module", saved.get("data"), str(name))


def check_fits(
    module: "_LanguageModule", content: dict[str, Any], data: LightningDataModule | None, resumes: bool
) -> None:
    """Raise UserError if a checkpoint's weights have other shapes than the module's, or a run cannot resume from it."""
    if resumes:
        check_names(module, content, data)
        _check_optimizer(module, content)
    check_adapter(module, content)
    if module.adapter is None:
        off = difference(module.state_dict(), content["state_dict"])
        if off:
            raise UserError(
                f"the checkpoint's weights are not of this {type(module).__name__} of {module.policy!r}: {off}; it was "
                f"trained from {content['lit_pref']['policy']!r}"
            )


def check_adapter(module: "_LanguageModule", content: dict[str, Any]) -> None:
    """Raise UserError unless checkpoint and run have the same adapter, or both none: loading is not strict."""
    saved = _said(content)
    theirs = LoRA(**saved["adapter"]) if saved.get("adapter") else None
    if _shape(theirs) != _shape(module.adapter):
        raise UserError(
            f"the checkpoint was trained with adapter {theirs} and this run has {module.adapter}: give the same one, "
            "or export the checkpoint and take the exported folder as the policy"
        )
    if theirs is None:
        return
    _same("model.dtype", saved.get("dtype", "float32"), module.weights_dtype)
    if saved["base_fingerprint"] != module.base_fingerprint:
        raise UserError(
            f"the checkpoint's adapter was trained on other weights ({saved['policy']!r} as it was, fingerprint "
            f"{saved['base_fingerprint']}) than those of {module.policy!r} here ({module.base_fingerprint}): give the "
            "policy that it started from"
        )
    off = difference(module.trained(module.state_dict()), content["state_dict"])
    if off:
        raise UserError(f"the checkpoint does not fit this module: {off}")


def _shape(adapter: LoRA | None) -> dict[str, Any] | None:
    """The settings of an adapter that its weights depend on; dropout may change from run to run."""
    return None if adapter is None else asdict(adapter) | {"lora_dropout": 0.0}


def _said(content: dict[str, Any]) -> dict[str, Any]:
    """What a module of the kit says of itself in its checkpoints."""
    saved = content.get("lit_pref")
    if not isinstance(saved, dict):
        raise UserError("the checkpoint was not written by a lit_pref module: expected a run's last.ckpt")
    return saved


def _check_optimizer(module: "_LanguageModule", content: dict[str, Any]) -> None:
    optimizer = module.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    scheduler = None if module.make_scheduler is None else module.make_scheduler(optimizer)
    saved, states, schedules = content["lit_pref"], content["optimizer_states"], content.get("lr_schedulers") or []
    _same("model.optimizer", saved.get("optimizer"), type(optimizer).__name__)
    _same("model.scheduler", saved.get("scheduler", ...), None if scheduler is None else type(scheduler).__name__)
    # Older checkpoints name neither.
    if bool(schedules) != (scheduler is not None):
        there, here = ("one", "none") if schedules else ("none", type(scheduler).__name__)
        raise UserError(f"model.scheduler: the checkpoint was trained with {there}, this run has {here}: give the same")
    ours = optimizer.param_groups[0].keys() - {"initial_lr"}
    groups = states[0].get("param_groups") if states and isinstance(states[0], dict) else None
    if not groups or groups[0].keys() - {"initial_lr"} != ours:
        raise UserError(
            f"model.optimizer: the checkpoint's state is not of {type(optimizer).__name__}, whose settings are "
            f"{', '.join(sorted(ours))}: give the optimizer that it was trained with"
        )
    held = sum(len(group["params"]) for group in groups)
    trained = sum(p.requires_grad for p in module.parameters())
    if held != trained:
        raise UserError(
            f"model.optimizer: the checkpoint's state is of {held} weights and this run trains {trained}: give the "
            "module and adapter that it was trained with"
        )


def _same(what: str, there: Any, here: str | None) -> None:
    if there is not ... and there != here and not (there is None and what != "model.scheduler"):
        raise UserError(f"{what}: the checkpoint was trained with {there}, this run has {here}: give the same")
