"""Configurations of transformers made small by the names of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH, HEADS, LAYERS, VOCABULARY, LENGTH = 32, 4, 2, 128, 32
IMAGE, PATCH, FRAMES = 64, 8, 4

# Field by field, as far as a configuration has it.
SMALL: Mapping[str, Any] = {
    **dict.fromkeys(
        (
            *("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "hidden_dim", "emb_dim"),
            *("embedding_size", "word_embed_proj_dim", "projection_dim", "output_hidden_size"),
            *("decoder_hidden_size", "encoder_hidden_size", "lm_hidden_size", "model_dim"),
            *("rnn_hidden_size", "attention_hidden_size", "lru_width", "out_hidden_size"),
            *("text_embed_dim", "fusion_hidden_size", "conv_pos_dim", "mlp_hidden_size"),
            *("hidden_dim_head", "neck_hidden_size", "embed_dims", "codevector_dim"),
            *("classifier_proj_size", "proj_codevector_dim", "pooler_output_size"),
            *("bert_hidden_size", "cross_attention_hidden_size", "hidden_size_per_layer_input"),
            *("nhid", "rope_head_dim", "state_rank"),
        ),
        WIDTH,
    ),
    **dict.fromkeys(
        (
            *("intermediate_size", "d_ff", "d_inner", "ffn_dim", "n_inner", "ffn_hidden_size"),
            *("encoder_ffn_dim", "decoder_ffn_dim", "ffn_config", "feed_forward_size"),
            *("moe_intermediate_size", "shared_expert_intermediate_size", "mlp_dim", "dim_ff"),
            *("expert_ffn_hidden_size", "dense_intermediate_size", "intermediate_size_mlp"),
            *("shared_intermediate_size", "decoder_intermediate_size", "moe_ffn_hidden_size"),
            *("encoder_intermediate_size", "moe_shared_expert_intermediate_size"),
            *("mamba_intermediate_size", "hidden_layer_intermediate_size", "attention_ffn_dim"),
        ),
        2 * WIDTH,
    ),
    **dict.fromkeys(
        (
            *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
            *("decoder_layers", "num_decoder_layers", "num_encoder_layers", "layers"),
            *("encoder_num_hidden_layers", "decoder_num_hidden_layers", "depth"),
            *("num_encoder_blocks_", "num_mem_blocks_", "num_block_layers"),
        ),
        LAYERS,
    ),
    **dict.fromkeys(
        (
            *("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
            *("decoder_attention_heads", "num_decoder_attention_heads", "mamba_n_heads_"),
            *("num_encoder_attention_heads", "encoder_num_attention_heads", "attention_heads"),
            *(
                "decoder_num_attention_heads",
                "num_self_attention_heads",
                "num_cross_attention_heads",
            ),
        ),
        HEADS,
    ),
    **dict.fromkeys(
        (
            *("num_key_value_heads", "multi_query_group_num", "num_kv_heads"),
            *("decoder_num_key_value_heads", "encoder_num_key_value_heads"),
        ),
        HEADS // 2,
    ),
    **dict.fromkeys(
        ("head_dim", "d_kv", "attention_head_size", "v_head_dim", "kv_channels", "d_head"),
        WIDTH // HEADS,
    ),
    **dict.fromkeys(
        ("vocab_size", "vocab_size_or_config_json_file", "decoder_vocab_size", "n_vocab"),
        VOCABULARY,
    ),
    **dict.fromkeys(("vocab_size_per_layer_input",), VOCABULARY),
    **dict.fromkeys(
        (
            *("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"),
            *("max_target_positions", "max_text_positions", "seq_length", "model_max_length"),
            *("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
        ),
        4 * LENGTH,
    ),
    "max_source_positions": 2 * LENGTH,
    **dict.fromkeys(("image_size", "input_size", "img_size", "sample_size"), IMAGE),
    **dict.fromkeys(("patch_size",), PATCH),
    **dict.fromkeys(("num_frames", "frames_per_clip"), FRAMES),
    **dict.fromkeys(("tubelet_size",), 2),
    # Experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_k", "moe_topk"), 2
    ),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace",), 1),
    # Latent attention
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 16,
    # State spaces
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_d_head": 8,
    "mamba_chunk_size": 8,
    "chunk_size": 8,
    "time_step_rank": 4,
    "mamba_dt_rank": 4,
    "ssm_state_size": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # Speech
    "num_mel_bins": 16,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_codevectors_per_group": 8,
    "conv_channels": 16,
    "apply_spec_augment": False,
    # Others
    "sliding_window": 16,
    "attention_window": 16,
    "local_attention": 16,
    "window_size": 4,
    "query_pre_attn_scalar": 8,
    "type_vocab_size": 2,
    "num_labels": 4,
    "use_cache": False,
    "num_queries": 8,
    "num_latents": 16,
    "d_latents": WIDTH,
    "q_groups": 1,
    "dim_head": 8,
    # Half of the layers on average would be left out by a Python number: no graph holds that.
    **dict.fromkeys(("layerdrop", "encoder_layerdrop", "decoder_layerdrop", "layer_drop"), 0.0),
}
# Lists of one number a stage: the first is divided down to what is here, the others by as much.
_STAGES: Mapping[str, int] = {
    **dict.fromkeys(("hidden_sizes", "embed_dims", "embed_dim", "encoder_hidden_sizes"), 16),
    **dict.fromkeys(("num_attention_heads", "num_heads", "neck_hidden_sizes"), 1),
    **dict.fromkeys(("conv_dim", "tdnn_dim", "key_dim"), 16),
}


def tiny(cls: Any, changes: Mapping[str, Any]) -> Any:
    """The smallest usual configuration of a class; `changes` are the model's own."""
    return cls(**{**fields(cls), **changes})


def fields(cls: Any) -> dict[str, Any]:
    default = cls()
    found: dict[str, Any] = {}
    for name, value in vars(default).items():
        small = _small(name, value)
        if small is not value:
            found[name] = small
    for name in getattr(cls, "attribute_map", {}):
        found.pop(name, None)
    return found


def _small(name: str, value: Any) -> Any:
    """A field's small value, or the value itself."""
    if hasattr(value, "to_dict") and hasattr(value, "model_type"):
        return tiny(type(value), {})
    if value is None or name.startswith("_"):
        return value
    if isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        return _small_list(name, value)
    if isinstance(value, bool):
        return SMALL[name] if name in SMALL and isinstance(SMALL[name], bool) else value
    if name in SMALL and isinstance(value, (int, float)):
        # Small defaults are small for a reason.
        return min(SMALL[name], value) if name.startswith("num_") else SMALL[name]
    if isinstance(value, float) and value == 0 and _is_dropout(name):
        return 0.1
    if name.endswith(("_token_id", "_token_index", "_idx")) and isinstance(value, int):
        return value if value < VOCABULARY else VOCABULARY - 1 - sum(map(ord, name)) % 16
    return value


def _small_list(name: str, value: Any) -> Any:
    if name in ("depths", "layers", "num_blocks"):
        return type(value)(1 for _ in value)
    if name in _STAGES:
        divisor = max(1, value[0] // _STAGES[name])
        return type(value)(max(1, v // divisor) for v in value)
    return value


def _is_dropout(name: str) -> bool:
    return "dropout" in name or "pdrop" in name or name in ("drop_rate", "drop_path_rate")
