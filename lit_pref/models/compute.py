"""How a policy is run: what changes speed and memory and, up to rounding, no result.

Numeric precision is the Trainer's (`--trainer.precision bf16-mixed`). Not covered: offloading, and other parts of the
model than its layers.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lit_pref.errors import UserError
from lit_pref.models.attention.last_layer import outermost_layers
from lit_pref.models.attention.tree_attention import Kernel, sharing_obstacle
from lit_pref.models.attention.tree_kernels import can_attend_by_tree
from lit_pref.types import RowLayout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layout = Literal["auto", "packed", "shared", "repeated"]


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class Compute:
    """Layout, attention and memory of the forward and backward pass.

    Args:
        layout: how completions of one prompt lie in a batch: `packed` puts all trees into one row without padding,
            `shared` one tree a row, `repeated` repeats the prompt before each completion; auto takes the first that the
            architecture allows.
        attention: the kernel for trees: `flex` is FlexAttention with block masks, `sdpa` scaled-dot-product attention
            tree by tree; auto is flex on CUDA and sdpa elsewhere.
        gradient_checkpointing: keep only each layer's input and compute the rest again in the backward pass.
        compile: compile each layer with torch.compile; needs a C++ compiler on CPU and pays after some hundred steps.
    """

    layout: Layout = "auto"
    attention: Kernel = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False


def row_layout(model: "PreTrainedModel", layout: Layout) -> RowLayout:
    """How a model's batches are laid out; auto is the first layout that its architecture allows.

    Raises UserError for a layout that it cannot take.
    """
    if layout == "repeated":
        return "repeated"
    obstacle = sharing_obstacle(model)
    if layout != "auto":
        if obstacle is not None:
            raise UserError(
                f"compute.layout: {obstacle}, so its completions cannot share a prompt; take repeated or auto"
            )
        return layout
    if obstacle is not None:
        return "repeated"
    return "packed" if can_attend_by_tree(model) else "shared"


def prepare_layers(model: "PreTrainedModel", compute: Compute) -> None:
    """Have the model's layers run as `compute` says, in place; names of weights stay as they are.

    Sampling with a cache runs as before. Raises UserError for a model whose layers cannot be found or checkpointed,
    and where there is no compiler.
    """
    if not compute.gradient_checkpointing and not compute.compile:
        return
    wanted = "gradient_checkpointing" if compute.gradient_checkpointing else "compile"
    layers = list(outermost_layers(model.base_model))
    if not layers or (compute.gradient_checkpointing and not model.supports_gradient_checkpointing):
        raise UserError(
            f"compute.{wanted}: {type(model).__name__} does not support it in transformers; set it to false"
        )
    if compute.compile:
        _check_compiler()
    for layer in layers:
        layer.forward = _LayerForward(layer, compute)


class _LayerForward:
    """A layer's `forward`, checkpointed and compiled as `compute` says.

    Not transformers' own switch for checkpointing, which acts only in training mode: there dropout would be on, and
    its probabilities lie in modules, attributes and configs of many names. Finds its layer's code at each call, so that
    a copied or sharded model's layers run on their own weights.
    """

    def __init__(self, layer: nn.Module, compute: Compute) -> None:
        self.layer, self.compute = layer, compute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from transformers import Cache

        forward = type(self.layer).forward
        if any(isinstance(value, Cache) for value in (*args, *kwargs.values())):
            # A cache must not be filled twice, and shapes that grow by a token would be compiled over and over.
            return forward(self.layer, *args, **kwargs)
        if self.compute.compile:
            forward = _compiled(forward)
        if self.compute.gradient_checkpointing and torch.is_grad_enabled():
            # Not reentrant: frozen embeddings, whose output needs no gradient, are no obstacle to adapters after them.
            return checkpoint(forward, self.layer, *args, use_reentrant=False, **kwargs)
        return forward(self.layer, *args, **kwargs)

    @property
    def plain(self) -> Callable[..., Any]:
        """The same neither compiled nor checkpointed, for a layer that runs at only some tokens (`last_layer.py`)."""
        return partial(type(self.layer).forward, self.layer)


@cache
def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Of a class's forward: compiled once for all layers of the class, and for rows of any length."""
    return torch.compile(forward, dynamic=True)


def _check_compiler() -> None:
    """Before data are made: torch.compile itself would ask for it in the first forward pass."""
    if torch.cuda.is_available():
        return  # kernels there are Triton's
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"compute.compile: torch.compile needs a C++ compiler on CPU, and there is no {compiler!r}: install one, "
            "name it in the environment variable CXX, or set compute.compile to false"
        )
