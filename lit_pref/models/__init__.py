"""Causal language models: loading, scoring token trees, heads, export."""

from lit_pref.models.causal_lm import (
    EMBEDDED_FOLDER,
    load_causal_lm,
    load_tokenizer,
    quiet_transformers,
    weights_fingerprint,
)
from lit_pref.models.export import export_model
from lit_pref.models.heads import lm_head
from lit_pref.models.tree_attention import can_share_prompts, predictor_hidden_states, sharing_obstacle

__all__ = [
    "EMBEDDED_FOLDER",
    "can_share_prompts",
    "export_model",
    "lm_head",
    "load_causal_lm",
    "load_tokenizer",
    "predictor_hidden_states",
    "quiet_transformers",
    "sharing_obstacle",
    "weights_fingerprint",
]
