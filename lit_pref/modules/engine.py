"""How a policy is run: what changes speed and memory and, up to rounding, no result.

Numeric precision is the Trainer's (`--trainer.precision bf16-mixed`).
"""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["auto", "packed", "shared", "repeated"]
Attention = Literal["auto", "sdpa", "flex"]


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class Engine:
    """Layout, attention and memory of the forward and backward pass.

    Args:
        layout: how completions of one prompt lie in a batch: `packed` puts all trees into one row without padding,
            `shared` one tree a row, `repeated` repeats the prompt before each completion; auto takes the first that the
            architecture allows.
        attention: the kernel for trees: `flex` is FlexAttention with block masks, `sdpa` scaled-dot-product attention
            tree by tree; auto is flex on CUDA and sdpa elsewhere.
        gradient_checkpointing: keep each layer's input alone and compute the rest again in the backward pass.
        compile: compile each layer with torch.compile; needs a C++ compiler on CPU and pays after some hundred steps.
    """

    layout: Layout = "auto"
    attention: Attention = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
