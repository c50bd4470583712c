"""Low-rank adapters through peft, put into a model in place: its class, backbone and config stay as they are.

The base weights are frozen; what stands here tells the adapter's from them, for checkpoints, fingerprints and export.
Not covered: several adapters at a time, quantized bases, adapters on fused expert weights, and kinds other than LoRA.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_pref.errors import UserError
from lit_pref.models.causal_lm import round_weights, weights_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ALL_LINEAR = "all-linear"  # peft's word for every linear layer but the LM head


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class LoRA:
    """Low-rank adaptation of linear layers (arXiv 2106.09685); names and defaults are peft's, but for r and alpha.

    The layer's weight W is frozen, and lora_alpha / r · B A x is added to W x; B starts at 0, so that the policy starts
    as its base. Needs the extra `lit-pref[lora]`.

    Args:
        r: rank of the added matrices.
        lora_alpha: scale of what is added, divided by r.
        lora_dropout: share of each adapted layer's input that training drops on its way to A; on whenever it is above
            0, whatever the module's `dropout` says of the model's own.
        target_modules: names of the layers to adapt, or their last parts (`[q_proj, v_proj]`); none is all linear
            layers but the LM head.
        use_rslora: divide lora_alpha by the root of r instead (arXiv 2312.03732).
    """

    r: int = 16
    lora_alpha: float = 32
    lora_dropout: float = 0.0
    target_modules: list[str] | None = None
    use_rslora: bool = False

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"r must be >= 1, got {self.r}")
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha must be > 0, got {self.lora_alpha}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
        if self.target_modules is not None and not self.target_modules:
            raise ValueError("target_modules must name a layer, got []; none adapts all linear layers")


def attach(model: "PreTrainedModel", lora: LoRA, seed: int = 0) -> None:
    """Put an adapter into the model, in place, and freeze everything else; the model's mode stays as it is.

    seed: of A's draws; the global random state stays as it was.
    Raises UserError where peft is missing or too old, for names which no layer has, and for layers that cannot be
    adapted or share their weight with another one, as a tied LM head does.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError("an adapter needs peft: pip install 'lit-pref[lora]'") from error
    if has_adapter(model):
        raise ValueError("the model has an adapter already")
    _check_targets(model, lora)
    config = LoraConfig(**(asdict(lora) | {"target_modules": lora.target_modules or _ALL_LINEAR}))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # GPT-2's layers keep their weights transposed; peft sees it, says so and does the right thing.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        torch.default_generator.manual_seed(seed)
        try:
            model.add_adapter(config)
        except (ImportError, ValueError) as error:
            raise UserError(f"adapter: {_first_line(error)}") from error
    for layer in _adapted_layers(model).values():
        for part in layer.adapter_layer_names:
            getattr(layer, part).float()  # peft takes the base's precision, in which small updates are lost
    model.train(model.training)  # fresh layers come in training mode


def has_adapter(model: "PreTrainedModel") -> bool:
    """Whether `attach` has put an adapter into the model."""
    return bool(model._hf_peft_config_loaded)


@contextmanager
def adapter_off(model: "PreTrainedModel") -> Iterator[None]:
    """The model as its base computes, bit for bit; nothing happens to a model without adapter."""
    layers = _adapted_layers(model).values()
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, requires_grad in trained:  # switching sets it
            parameter.requires_grad_(requires_grad)


def train_adapter_dropout(model: "PreTrainedModel") -> None:
    """Switch the adapter's own dropout on, whatever mode the model is in."""
    for layer in _adapted_layers(model).values():
        layer.lora_dropout.train()


def adapter_state(model: "PreTrainedModel") -> dict[str, Tensor]:
    """The adapter's weights by their names in the model's state dict; empty without adapter."""
    places = tuple(
        f"{name}.{part}." for name, layer in _adapted_layers(model).items() for part in layer.adapter_layer_names
    )
    return {name: value for name, value in model.state_dict().items() if name.startswith(places)}


def base_fingerprint(model: "PreTrainedModel") -> str:
    """`weights_fingerprint` of the model without its adapter, so that runs of all kinds share what belongs to it."""
    ours = adapter_state(model)
    original = {
        f"{name}.base_layer.{leaf}": f"{name}.{leaf}"
        for name, layer in _adapted_layers(model).items()
        for leaf in layer.get_base_layer().state_dict()
    }
    state = {original.get(name, name): value for name, value in model.state_dict().items() if name not in ours}
    return weights_fingerprint(model, state)


def computed_fingerprint(model: "PreTrainedModel") -> str:
    """`weights_fingerprint` of what the model computes: an adapter that is not trained yet adds nothing to its base."""
    return base_fingerprint(model) if adds_nothing(model) else weights_fingerprint(model)


def adds_nothing(model: "PreTrainedModel") -> bool:
    """Whether the model computes as its base does: it has no adapter, or one whose B is still 0."""
    return not any(bool(weight.any()) for name, weight in adapter_state(model).items() if ".lora_A." not in name)


def load_adapter(model: "PreTrainedModel", state: Mapping[str, Tensor]) -> None:
    """Set the adapter's weights. Raises UserError unless `state` holds each of them, in its shape, and nothing else."""
    ours = adapter_state(model)
    off = difference(ours, state)
    if off:
        raise UserError(f"these are not the weights of the model's adapter: {off}")
    model.load_state_dict(dict(state), strict=False)


def difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """The first name in which two states differ, or a shape, in words; empty where none does."""
    for name in sorted(expected.keys() | given.keys()):
        shapes = [f"{list(side[name].shape)}" if name in side else "absent" for side in (expected, given)]
        if shapes[0] != shapes[1]:
            return f"{name!r} should be {shapes[0]}, is {shapes[1]}"
    return ""


def merged(model: "PreTrainedModel") -> "PreTrainedModel":
    """A copy whose weights have the adapter added in: an ordinary model of the same class. Takes its memory again.

    Over a base of half precision the copy is in float32, since rounding the sum would lose most of what is added.
    """
    whole = copy.deepcopy(model)
    if has_adapter(whole):
        round_weights(whole, "float32")
    for name, layer in _adapted_layers(whole).items():
        layer.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(whole.get_submodule(parent), leaf, layer.get_base_layer())
    if has_adapter(whole):
        del whole.peft_config
        whole._hf_peft_config_loaded = False
    return whole.requires_grad_(True)


def _adapted_layers(model: "PreTrainedModel") -> dict[str, Any]:
    """peft's layers by name; none without adapter, so that peft need not be there."""
    if not has_adapter(model):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def _check_targets(model: "PreTrainedModel", lora: LoRA) -> None:
    """peft itself passes over a misspelt name if another one fits."""
    from transformers.pytorch_utils import Conv1D

    names = [name for name, _ in model.named_modules()]
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    shared = {name for sharing in owners.values() if len(sharing) > 1 for name in sharing}
    for target in lora.target_modules or ():
        fits = [name for name in names if name == target or name.endswith(f".{target}")]
        if not fits:
            linear = {name.split(".")[-1] for name, x in model.named_modules() if isinstance(x, nn.Linear | Conv1D)}
            raise UserError(
                f"adapter.target_modules: no layer of {type(model).__name__} is called {target!r}; "
                f"its linear layers are {', '.join(sorted(linear))}"
            )
        if tied := shared.intersection(fits):
            raise UserError(
                f"adapter.target_modules: {target!r} shares its weight with another layer ({', '.join(sorted(shared))})"
                f", which an adapter of {min(tied)!r} alone would part: leave it out"
            )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
