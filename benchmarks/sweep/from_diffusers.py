"""diffusers: denoisers and autoencoders of tiny configurations, a mean of squares as their loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.sweep.parts import (
    Inputs,
    Sample,
    constant,
    integers,
    mean_square,
    normal,
    seeded,
    workload,
)
from benchmarks.zoo import Workload

_B = 2


@dataclass(frozen=True)
class Recipe:
    """A class of diffusers with a tiny configuration and what its forward takes."""

    cls: str
    config: Mapping[str, Any]
    inputs: Inputs
    given: Mapping[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    return list(RECIPES)


def make(name: str) -> Workload:
    import diffusers

    recipe = RECIPES[name]
    cls = getattr(diffusers, recipe.cls)
    model = seeded(lambda: cls(**recipe.config))

    given = dict(recipe.given)
    if "return_dict" in inspect.signature(cls.forward).parameters:
        given["return_dict"] = False

    def loss(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        return mean_square(model, {**inputs, **given})

    return workload(model, recipe.inputs, loss)


def _times() -> Sample:
    return integers(0, 1000, _B)


def _latents(channels: int = 4, side: int = 16) -> Sample:
    return normal(_B, channels, side, side)


def _text(length: int = 8, width: int = 32) -> Sample:
    return normal(_B, length, width)


_BLOCKS = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4}
_CONDITIONED = {
    **_BLOCKS,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}
_TRANSFORMER = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2}


def _ids(length: int) -> Sample:
    return constant(torch.arange(3 * length).reshape(length, 3).float())


def _vae(cls: str, **config: Any) -> Recipe:
    return Recipe(cls, config, {"sample": normal(_B, 3, 32, 32)})


def _video_vae(cls: str, frames: int = 5, **config: Any) -> Recipe:
    return Recipe(cls, config, {"sample": normal(1, 3, frames, 32, 32)})


_FLUX_INPUTS: Inputs = {
    "hidden_states": _text(16, 16),
    "encoder_hidden_states": _text(8),
    "pooled_projections": normal(_B, 32),
    "timestep": normal(_B),
    "img_ids": _ids(16),
    "txt_ids": _ids(8),
    "guidance": normal(_B),
}

RECIPES: Mapping[str, Recipe] = {
    "UNet2DModel": Recipe(
        "UNet2DModel",
        {
            **_BLOCKS,
            "sample_size": 16,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 8,
            "dropout": 0.1,
        },
        {"sample": _latents(3), "timestep": _times()},
    ),
    "UNet2DModel-skip": Recipe(
        "UNet2DModel",
        {
            **_BLOCKS,
            "block_out_channels": (32, 32),
            "sample_size": 16,
            "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
            "attention_head_dim": 8,
        },
        {"sample": _latents(3), "timestep": _times()},
    ),
    "UNet2DConditionModel": Recipe(
        "UNet2DConditionModel",
        {
            **_CONDITIONED,
            "sample_size": 16,
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "dropout": 0.1,
        },
        {"sample": _latents(), "timestep": _times(), "encoder_hidden_states": _text()},
    ),
    "UNet3DConditionModel": Recipe(
        "UNet3DConditionModel",
        {
            **_BLOCKS,
            "sample_size": 16,
            "cross_attention_dim": 32,
            "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        {
            "sample": normal(_B, 4, 4, 16, 16),
            "timestep": _times(),
            "encoder_hidden_states": _text(),
        },
    ),
    "UNet1DModel": Recipe(
        "UNet1DModel",
        {"block_out_channels": (16, 32, 32), "sample_size": 64, "extra_in_channels": 32},
        {"sample": normal(_B, 2, 64), "timestep": _times()},
    ),
    "UNetSpatioTemporalConditionModel": Recipe(
        "UNetSpatioTemporalConditionModel",
        {
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "sample_size": 16,
            "cross_attention_dim": 32,
            "num_attention_heads": 4,
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
            "down_block_types": (
                "CrossAttnDownBlockSpatioTemporal",
                "DownBlockSpatioTemporal",
            ),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        },
        {
            "sample": normal(_B, 2, 8, 16, 16),
            "timestep": _times(),
            "encoder_hidden_states": _text(1),
            "added_time_ids": normal(_B, 3),
        },
    ),
    "UNetMotionModel": Recipe(
        "UNetMotionModel",
        {
            **_BLOCKS,
            "sample_size": 16,
            "cross_attention_dim": 32,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
            "transformer_layers_per_block": 1,
            "motion_max_seq_length": 8,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        },
        {
            "sample": normal(_B, 4, 4, 16, 16),
            "timestep": _times(),
            "encoder_hidden_states": _text(),
        },
    ),
    "ControlNetModel": Recipe(
        "ControlNetModel",
        {**_CONDITIONED, "conditioning_embedding_out_channels": (8, 16)},
        {
            "sample": _latents(),
            "timestep": _times(),
            "encoder_hidden_states": _text(),
            "controlnet_cond": normal(_B, 3, 32, 32),
        },
    ),
    "DiTTransformer2DModel": Recipe(
        "DiTTransformer2DModel",
        {
            **_TRANSFORMER,
            "sample_size": 16,
            "norm_num_groups": 4,
            "num_embeds_ada_norm": 16,
            "dropout": 0.1,
        },
        {
            "hidden_states": _latents(),
            "timestep": integers(0, 16, _B),
            "class_labels": integers(0, 10, _B),
        },
    ),
    "PixArtTransformer2DModel": Recipe(
        "PixArtTransformer2DModel",
        {
            **_TRANSFORMER,
            "sample_size": 16,
            "norm_num_groups": 4,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "use_additional_conditions": False,
        },
        {
            "hidden_states": _latents(),
            "timestep": _times(),
            "encoder_hidden_states": _text(),
        },
        {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
    ),
    "Transformer2DModel": Recipe(
        "Transformer2DModel",
        {
            **_TRANSFORMER,
            "in_channels": 16,
            "norm_num_groups": 4,
            "cross_attention_dim": 32,
            "dropout": 0.1,
        },
        {"hidden_states": _latents(16), "encoder_hidden_states": _text()},
    ),
    "SD3Transformer2DModel": Recipe(
        "SD3Transformer2DModel",
        {
            **_TRANSFORMER,
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 32,
        },
        {
            "hidden_states": _latents(),
            "encoder_hidden_states": _text(),
            "pooled_projections": normal(_B, 32),
            "timestep": _times(),
        },
    ),
    "FluxTransformer2DModel": Recipe(
        "FluxTransformer2DModel",
        {
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "in_channels": 16,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 4, 8),
        },
        _FLUX_INPUTS,
    ),
    "AuraFlowTransformer2DModel": Recipe(
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 64,
        },
        {"hidden_states": _latents(), "encoder_hidden_states": _text(), "timestep": normal(_B)},
    ),
    "HunyuanDiT2DModel": Recipe(
        "HunyuanDiT2DModel",
        {
            **_TRANSFORMER,
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "hidden_size": 32,
            "cross_attention_dim": 32,
            "cross_attention_dim_t5": 32,
            "pooled_projection_dim": 16,
            "text_len": 4,
            "text_len_t5": 4,
            "activation_fn": "gelu-approximate",
        },
        {
            "hidden_states": _latents(),
            "timestep": normal(_B),
            "encoder_hidden_states": _text(4),
            "text_embedding_mask": constant(torch.ones(_B, 4, dtype=torch.bool)),
            "encoder_hidden_states_t5": _text(4),
            "text_embedding_mask_t5": constant(torch.ones(_B, 4, dtype=torch.bool)),
            "image_meta_size": normal(_B, 6),
            "style": integers(0, 1, _B),
        },
    ),
    "Lumina2Transformer2DModel": Recipe(
        "Lumina2Transformer2DModel",
        {
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "hidden_size": 32,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 16,
            "axes_dim_rope": (4, 6, 6),
            "axes_lens": (64, 64, 64),
            "cap_feat_dim": 32,
        },
        {
            "hidden_states": _latents(),
            "timestep": normal(_B),
            "encoder_hidden_states": _text(),
            "encoder_attention_mask": constant(torch.ones(_B, 8, dtype=torch.bool)),
        },
    ),
    "SanaTransformer2DModel": Recipe(
        "SanaTransformer2DModel",
        {
            **_TRANSFORMER,
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "num_cross_attention_heads": 4,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "dropout": 0.1,
        },
        {"hidden_states": _latents(), "encoder_hidden_states": _text(), "timestep": _times()},
    ),
    "PriorTransformer": Recipe(
        "PriorTransformer",
        {
            **_TRANSFORMER,
            "embedding_dim": 32,
            "num_embeddings": 8,
            "additional_embeddings": 4,
            "dropout": 0.1,
        },
        {
            "hidden_states": normal(_B, 32),
            "timestep": _times(),
            "proj_embedding": normal(_B, 32),
            "encoder_hidden_states": _text(),
        },
    ),
    "UVit2DModel": Recipe(
        "UVit2DModel",
        {
            "hidden_size": 32,
            "cond_embed_dim": 32,
            "micro_cond_encode_dim": 8,
            "micro_cond_embed_dim": 40,
            "encoder_hidden_size": 32,
            "vocab_size": 64,
            "codebook_size": 60,
            "in_channels": 32,
            "block_out_channels": 32,
            "num_res_blocks": 1,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "hidden_dropout": 0.1,
            "sample_size": 16,
        },
        {
            "input_ids": integers(0, 60, _B, 16, 16),
            "encoder_hidden_states": _text(),
            "pooled_text_emb": normal(_B, 32),
            "micro_conds": normal(_B, 5),
        },
    ),
    "CogVideoXTransformer3DModel": Recipe(
        "CogVideoXTransformer3DModel",
        {
            **_TRANSFORMER,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 32,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 9,
            "max_text_seq_length": 8,
            "dropout": 0.1,
        },
        {
            "hidden_states": normal(_B, 3, 4, 8, 8),
            "encoder_hidden_states": _text(),
            "timestep": _times(),
        },
    ),
    "LTXVideoTransformer3DModel": Recipe(
        "LTXVideoTransformer3DModel",
        {
            **_TRANSFORMER,
            "in_channels": 8,
            "out_channels": 8,
            "cross_attention_dim": 32,
            "caption_channels": 32,
        },
        {
            "hidden_states": _text(32, 8),
            "encoder_hidden_states": _text(),
            "timestep": _times(),
            "encoder_attention_mask": constant(torch.ones(_B, 8)),
        },
        {"num_frames": 2, "height": 4, "width": 4},
    ),
    "WanTransformer3DModel": Recipe(
        "WanTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 32,
            "freq_dim": 32,
            "ffn_dim": 32,
            "num_layers": 2,
            "rope_max_seq_len": 32,
        },
        {
            "hidden_states": normal(_B, 4, 2, 16, 16),
            "timestep": _times(),
            "encoder_hidden_states": _text(),
        },
    ),
    "LatteTransformer3DModel": Recipe(
        "LatteTransformer3DModel",
        {
            **_TRANSFORMER,
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "caption_channels": 32,
            "cross_attention_dim": 32,
            "video_length": 2,
        },
        {
            "hidden_states": normal(_B, 4, 2, 8, 8),
            "timestep": _times(),
            "encoder_hidden_states": _text(),
        },
    ),
    "MochiTransformer3DModel": Recipe(
        "MochiTransformer3DModel",
        {
            **_TRANSFORMER,
            "patch_size": 2,
            "pooled_projection_dim": 16,
            "in_channels": 4,
            "text_embed_dim": 32,
            "time_embed_dim": 4,
            "max_sequence_length": 8,
        },
        {
            "hidden_states": normal(_B, 4, 2, 8, 8),
            "encoder_hidden_states": _text(),
            "timestep": _times(),
            "encoder_attention_mask": constant(torch.ones(_B, 8, dtype=torch.bool)),
        },
    ),
    "StableAudioDiTModel": Recipe(
        "StableAudioDiTModel",
        {
            "sample_size": 32,
            "in_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "num_key_value_attention_heads": 2,
            "out_channels": 4,
            "cross_attention_dim": 32,
            "time_proj_dim": 16,
            "global_states_input_dim": 32,
            "cross_attention_input_dim": 32,
        },
        {
            "hidden_states": normal(_B, 4, 32),
            "timestep": normal(_B),
            "encoder_hidden_states": _text(),
            "global_hidden_states": _text(1),
            "rotary_embedding": constant(torch.ones(2, 33, 4)),
        },
    ),
    "AutoencoderKL": _vae(
        "AutoencoderKL",
        **_BLOCKS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=32,
    ),
    "AsymmetricAutoencoderKL": _vae(
        "AsymmetricAutoencoderKL",
        down_block_types=("DownEncoderBlock2D",) * 2,
        down_block_out_channels=(16, 32),
        up_block_types=("UpDecoderBlock2D",) * 2,
        up_block_out_channels=(16, 32),
        norm_num_groups=4,
        sample_size=32,
    ),
    "AutoencoderTiny": _vae(
        "AutoencoderTiny",
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
    ),
    "VQModel": _vae(
        "VQModel",
        **_BLOCKS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        num_vq_embeddings=32,
    ),
    "AutoencoderDC": _vae(
        "AutoencoderDC",
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
    ),
    "AutoencoderKLCogVideoX": _video_vae(
        "AutoencoderKLCogVideoX",
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    ),
    "AutoencoderOobleck": Recipe(
        "AutoencoderOobleck",
        {
            "encoder_hidden_size": 12,
            "downsampling_ratios": [2, 4],
            "decoder_channels": 12,
            "decoder_input_channels": 6,
            "audio_channels": 2,
            "channel_multiples": [1, 2],
        },
        {"sample": normal(_B, 2, 256)},
    ),
}
