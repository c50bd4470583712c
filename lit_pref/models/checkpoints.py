"""A checkpoint of a run as the model that it was trained to be: all weights, or an adapter over its base."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_pref.errors import UserError
from lit_pref.models import LoRA, attach, difference, load_adapter, load_causal_lm, weights_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFIX = "model."


def checkpoint_model(checkpoint: Path, content: dict[str, Any]) -> "PreTrainedModel":
    """The model of what `read_checkpoint` gave, in eval mode; an adapter is attached to its base.

    Raises UserError where the adapter's base is no longer there.
    """
    saved, weights = content["lit_pref"], content["state_dict"]
    state = {name.removeprefix(_PREFIX): x for name, x in weights.items() if name.startswith(_PREFIX)}
    adapter = saved.get("adapter")
    if adapter is None:
        model = load_causal_lm(saved["policy"], random_init=True)
        if off := difference(model.state_dict(), state):
            raise UserError(f"--checkpoint: {checkpoint} does not hold the weights of {saved['policy']!r}: {off}")
        model.load_state_dict(state)
        return model.eval()
    dtype = saved.get("dtype", "float32")  # older ones have none
    model = load_causal_lm(saved["policy"], dtype=dtype, needs_lm_head="score_head.weight" not in weights)
    if weights_fingerprint(model) != saved["base_fingerprint"]:
        raise UserError(
            f"--checkpoint: {checkpoint} holds an adapter alone, and {saved['policy']!r} is no longer the base that it "
            "was trained on: put those weights back"
        )
    attach(model, LoRA(**adapter))
    load_adapter(model, state)
    return model.eval()
