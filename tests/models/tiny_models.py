"""A tiny random model of any causal LM that the installed transformers has, by shrinking its default config."""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "dim", "embedding_size", "word_embed_proj_dim")
_WIDTHS += ("decoder_hidden_size", "attention_hidden_size", "lru_width", "input_embedding_size")
_INNER = ("intermediate_size", "ffn_dim", "n_inner", "d_inner", "decoder_ffn_dim", "encoder_ffn_dim", "dim_ff", "d_ff")
_INNER += ("ffn_hidden_size", "mlp_hidden_size", "intermediate_size_mlp", "dense_intermediate_size")
_EXPERT = ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size")
_EXPERT += ("shared_intermediate_size", "moe_shared_expert_intermediate_size")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
_LAYERS += ("num_decoder_layers", "num_encoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads")
_HEADS += ("num_decoder_attention_heads", "num_encoder_attention_heads")
_HEAD_WIDTHS = ("head_dim", "d_head", "d_kv", "kv_channels", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length")
_STATES = ("mamba_d_state", "state_size", "ssm_state_size", "time_step_rank", "mamba_n_heads", "mamba_d_head")
_STATES += ("mamba_num_heads", "mamba_head_dim")
_SIZES: dict[str, float] = {
    **dict.fromkeys(_WIDTHS, 32),
    **dict.fromkeys(_INNER, 48),
    **dict.fromkeys(_EXPERT, 16),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_HEAD_WIDTHS, 8),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_CHOSEN, 2),
    **dict.fromkeys(_POSITIONS, 64),
    **dict.fromkeys(_STATES, 8),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_groups", "first_k_dense_replace"), 1),
    **dict.fromkeys(("mamba_expand", "expand"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_head_dim"), 16),
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),  # near-flat predictions would hide a wrong mask
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "rotary_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
# What shrinking alone does not make consistent, or whose default is None.
_OWN: dict[str, dict[str, object]] = {
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"attention_chunk_size": 4, "floor_scale": 4},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8},
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 8), "is_decoder": True},
    "xlm": {"causal": True},
}
_MOST = 3_000_000  # parameters


def tiny_model(model_type: str) -> PreTrainedModel:
    """Random weights drawn wide, dropout off, as a decoder where a config says which. Raises whatever is in the way."""
    config = _shrunk(CONFIG_MAPPING[model_type]())
    if "is_decoder" in vars(config) and not config.is_encoder_decoder:
        config.is_decoder = True
    for name, value in _OWN.get(model_type, {}).items():
        setattr(config, name, value)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > _MOST:
        raise ValueError(f"{size:,} parameters after shrinking")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # drawn as zeros, which would hide a head that forgets its bias
                torch.nn.init.normal_(parameter, std=0.3)
        model(input_ids=torch.arange(3, 11)[None], use_cache=False)
    return model


def _shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    for name, value in _SIZES.items():
        known = name in vars(config) or name in (config.attribute_map or {})
        if known and type(getattr(config, name)) in (int, float):
            setattr(config, name, value)
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _shrunk(value)
        elif isinstance(value, float) and "drop" in name:
            setattr(config, name, 0.0)
        elif name in ("layer_types", "mlp_layer_types") and isinstance(value, list):
            kinds = list(dict.fromkeys(value))
            setattr(config, name, (kinds if len(kinds) > 1 else kinds * 2)[-2:])
    if "kv_lora_rank" in vars(config):  # keys and values of all heads come from one latent vector
        config.num_key_value_heads = config.num_attention_heads
    return config
