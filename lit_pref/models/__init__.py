"""Causal language models: loading, scoring token trees, adapters, heads, export."""

from lit_pref.models.adapters import (
    LoRA,
    adapter_off,
    adapter_state,
    adds_nothing,
    attach,
    base_fingerprint,
    computed_fingerprint,
    difference,
    load_adapter,
    merged,
    train_adapter_dropout,
)
from lit_pref.models.attention.last_layer import hidden_states_at, predictor_hidden_states
from lit_pref.models.attention.tree_attention import (
    apart_obstacle,
    check_scoring,
    sharing_obstacle,
)
from lit_pref.models.causal_lm import (
    EMBEDDED_FOLDER,
    check_vocabulary,
    load_causal_lm,
    load_tokenizer,
    round_weights,
    weights_fingerprint,
)
from lit_pref.models.export import export_model
from lit_pref.models.heads import lm_head
from lit_pref.models.modes import computed_buffers_kept, evaluating
from lit_pref.models.rope import forget_length, rope_regime
from lit_pref.models.score_head import (
    ScoreHead,
    export_reward_model,
    freeze_unused_lm_head,
    fresh_score_head,
    saved_append_eos,
    saved_score_head,
)

__all__ = [
    "EMBEDDED_FOLDER",
    "LoRA",
    "ScoreHead",
    "adapter_off",
    "adapter_state",
    "adds_nothing",
    "apart_obstacle",
    "attach",
    "base_fingerprint",
    "check_scoring",
    "check_vocabulary",
    "computed_buffers_kept",
    "computed_fingerprint",
    "difference",
    "evaluating",
    "export_model",
    "export_reward_model",
    "forget_length",
    "freeze_unused_lm_head",
    "fresh_score_head",
    "hidden_states_at",
    "lm_head",
    "load_adapter",
    "load_causal_lm",
    "load_tokenizer",
    "merged",
    "predictor_hidden_states",
    "rope_regime",
    "round_weights",
    "saved_append_eos",
    "saved_score_head",
    "sharing_obstacle",
    "train_adapter_dropout",
    "weights_fingerprint",
]
