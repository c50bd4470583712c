"""What a measurement or a cast must leave as it was. Not covered: what is random but dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off, and every part's mode as it was afterwards: an adapter's dropout has a mode of its own."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training


@contextmanager
def computed_buffers_kept(model: nn.Module) -> Iterator[None]:
    """Casts within change weights only: what a model computes for itself keeps its precision, as `from_pretrained` has
    it. Frequencies of rope that are rounded to bf16 are off by a radian some hundred tokens on."""
    computed = [
        (part, name, part._buffers[name]) for part in model.modules() for name in part._non_persistent_buffers_set
    ]
    yield
    for part, name, before in computed:
        after = part._buffers[name]
        if before is not None and after is not None and after.dtype != before.dtype:
            part.register_buffer(name, before.to(after.device), persistent=False)
