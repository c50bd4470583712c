"""Checkpoints as models: all weights, an adapter over its base, and an adapter whose base is gone."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lit_pref.errors import UserError
from lit_pref.models import LoRA, adapter_state, attach, load_causal_lm, weights_fingerprint
from lit_pref.models.checkpoints import checkpoint_model

HERE = Path("last.ckpt")


def content(model, **saved):
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return {"state_dict": weights, "lit_pref": {"policy": "embedded:coder", **saved}}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


def test_weights_are_those_of_the_checkpoint():
    strong = load_causal_lm("embedded:coder-strong")
    model = checkpoint_model(HERE, content(strong))
    assert not model.training
    torch.testing.assert_close(logits(model), logits(strong), rtol=0, atol=0)


@pytest.fixture
def adapted():
    """An adapter that changes what its base computes, and that base's fingerprint."""
    model, adapter = load_causal_lm("embedded:coder"), LoRA(r=2)
    base = weights_fingerprint(model)
    attach(model, adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    weights = {f"model.{name}": tensor for name, tensor in adapter_state(model).items()}
    saved = {"policy": "embedded:coder", "adapter": asdict(adapter), "base_fingerprint": base}
    return model.eval(), {"state_dict": weights, "lit_pref": saved}


def test_an_adapter_is_attached_to_its_base(adapted):
    model, kept = adapted
    torch.testing.assert_close(logits(checkpoint_model(HERE, kept)), logits(model), rtol=0, atol=0)
    assert (logits(model) - logits(load_causal_lm("embedded:coder"))).abs().max() > 0.1


def test_an_adapter_without_its_base(adapted):
    kept = adapted[1]
    kept["lit_pref"]["policy"] = "embedded:coder-weak"
    with pytest.raises(
        UserError, match=r"last\.ckpt holds an adapter alone, and 'embedded:coder-weak' is no longer the"
    ):
        checkpoint_model(HERE, kept)
