"""transformers: one class with a loss for every architecture that an auto-model knows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.sweep import tiny_configs as tiny
from benchmarks.sweep.parts import Inputs, integers, normal, own_loss, seeded, workload
from benchmarks.sweep.sources import NotBuilt
from benchmarks.zoo import Workload

# In this order: an architecture is built as the first class that has it and takes labels.
_TASKS = (
    *("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_CLASSIFICATION"),
    *("AUDIO_CLASSIFICATION", "CTC", "SPEECH_SEQ_2_SEQ", "VIDEO_CLASSIFICATION"),
    *("SEMANTIC_SEGMENTATION", "SEQUENCE_CLASSIFICATION", "MASKED_IMAGE_MODELING"),
    *("TOKEN_CLASSIFICATION", "TIME_SERIES_PREDICTION", "ZERO_SHOT_IMAGE_CLASSIFICATION"),
    *("PRETRAINING",),
)
_BATCH, _CLASSES = 4, 4
_SAMPLES = 2000  # of a waveform

# What the generic configuration gets wrong, by architecture: some names, and what they need.
_CHANGES: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = (
    # Latent attention has no groups of heads.
    (
        (
            *("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"),
            *("glm_moe_dsa", "longcat_flash", "minicpm3", "mistral_large4", "mistral4", "youtu"),
            *("esmc", "dots3_note", "moonshine", "moonshine_streaming", "nemotron"),
        ),
        {"num_key_value_heads": tiny.HEADS},
    ),
    (("gptj", "codegen"), {"rotary_dim": 4}),
    (
        ("swin", "donut-swin", "swinv2"),
        {
            "window_size": 2,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 4, 8],
        },
    ),
    (
        ("convnext", "convnextv2"),
        {"patch_size": 2, "hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 1, 1]},
    ),
    (("ministral", "hunyuan_v1_dense", "hunyuan_v1_moe", "nemotron"), {"head_dim": 8}),
    (("hunyuan_v1_moe",), {"moe_topk": 1, "num_experts": 2}),
    (("wav2vec2-bert", "wav2vec2-conformer"), {"vocab_size": tiny.VOCABULARY}),
    (("wav2vec2-bert",), {"feature_projection_input_dim": 16}),
    (
        ("data2vec-audio",),
        {"mask_time_length": 2, "mask_time_min_masks": 0, "mask_time_prob": 0.0},
    ),
    (
        ("bit",),
        {
            "hidden_sizes": [32, 32, 64, 64],
            "embedding_size": 32,
            "num_groups": 8,
            "depths": [1, 1, 1, 1],
        },
    ),
    (("diffllama",), {"attention_dropout": 0.0}),
    (("gpt_neo",), {"attention_types": [[["global", "local"], 1]]}),
    (("lilt",), {"channel_shrink_ratio": 2, "hidden_size": 48}),
    (("esm",), {"vocab_size": tiny.VOCABULARY, "pad_token_id": 1, "mask_token_id": 2}),
    (("mamba2",), {"num_heads": 8, "head_dim": 8, "expand": 2}),
    (
        ("mobilevit",),
        {
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
            "patch_size": 2,
        },
    ),
    (("mobilevitv2",), {"patch_size": 2}),
    (
        ("reformer",),
        {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    ),
    (("xmod",), {"languages": ["en"], "default_language": "en"}),
    (("speech_to_text",), {"input_feat_per_channel": 16}),
)


def changes(kind: str) -> dict[str, Any]:
    """What an architecture's configuration has otherwise than the generic one."""
    found: dict[str, Any] = {}
    for kinds, own in _CHANGES:
        if kind in kinds:
            found |= own
    return found


def classes() -> dict[str, tuple[str, str]]:
    """The task and the name of the class, by architecture."""
    from transformers.models.auto import modeling_auto

    found: dict[str, tuple[str, str]] = {}
    for task in _TASKS:
        for kind, name in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}).items():
            found.setdefault(kind, (task, name if isinstance(name, str) else name[0]))
    for kind, name in modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES.items():
        found.setdefault(kind, ("PRETRAINING", name))
    return found


def names() -> list[str]:
    """Every task in turn; of classes that several architectures share, the first one's."""
    by_task: dict[str, list[str]] = {}
    seen: set[str] = set()
    for kind, (task, cls) in classes().items():
        if cls not in seen:
            by_task.setdefault(task, []).append(kind)
            seen.add(cls)
    ranked = [
        ((i + 0.5) / len(kinds), kind) for kinds in by_task.values() for i, kind in enumerate(kinds)
    ]
    return [kind for _, kind in sorted(ranked)]


def make(name: str) -> Workload:
    import transformers

    task, class_name = classes()[name]
    cls = getattr(transformers, class_name)
    config = tiny.tiny(cls.config_class, changes(name))
    if not isinstance(getattr(config, "num_labels", _CLASSES), int):
        raise NotBuilt("the configuration has no number of labels")
    model = seeded(lambda: cls(config))
    return workload(model, inputs(cls, config, task), own_loss)


def inputs(cls: Any, config: Any, task: str) -> Inputs:
    """Random inputs by the names of the forward's parameters."""
    parameters = inspect.signature(cls.forward).parameters
    main = cls.main_input_name
    found: dict[str, Any] = {}
    ids = integers(3, tiny.VOCABULARY - 20, _BATCH, tiny.LENGTH)
    if main == "input_ids" or "input_ids" in parameters:
        found["input_ids"] = ids
    if main == "pixel_values" or ("pixel_values" in parameters and "CLASSIFICATION" in task):
        found["pixel_values"] = _pictures(config, task)
    if main == "input_values":
        found["input_values"] = normal(_BATCH, _SAMPLES)
    if main == "input_features":
        found["input_features"] = _features(cls, config)
    if main == "pixel_values_videos":
        found["pixel_values_videos"] = _pictures(config, task)
    if "bbox" in parameters:
        found["bbox"] = _boxes
    if "decoder_input_ids" in parameters:
        found["decoder_input_ids"] = ids
    if "return_loss" in parameters:
        found["return_loss"] = lambda _: torch.tensor(True)
    elif "labels" in parameters:
        found["labels"] = _labels(config, task)
    else:
        raise NotBuilt(f"{cls.__name__} takes no labels")
    return found


def _labels(config: Any, task: str) -> Any:
    if task in (
        "CAUSAL_LM",
        "MASKED_LM",
        "SEQ_TO_SEQ_CAUSAL_LM",
        "SPEECH_SEQ_2_SEQ",
        "PRETRAINING",
    ):
        return integers(3, tiny.VOCABULARY - 20, _BATCH, tiny.LENGTH)
    if task == "CTC":
        return integers(1, 8, _BATCH, 3)
    if task == "TOKEN_CLASSIFICATION":
        return integers(0, config.num_labels, _BATCH, tiny.LENGTH)
    if task == "SEMANTIC_SEGMENTATION":
        return integers(0, config.num_labels, _BATCH, tiny.IMAGE, tiny.IMAGE)
    return integers(0, config.num_labels, _BATCH)


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", None) or config


def _pictures(config: Any, task: str) -> Any:
    vision = _vision(config)
    channels = getattr(vision, "num_channels", None) or getattr(vision, "in_channels", None) or 3
    side = getattr(vision, "image_size", None) or tiny.IMAGE
    sides = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
    if task == "VIDEO_CLASSIFICATION":
        return normal(_BATCH, tiny.FRAMES, channels, *sides)
    return normal(_BATCH, channels, *sides)


def _features(cls: Any, config: Any) -> Any:
    bins = getattr(config, "num_mel_bins", None) or getattr(config, "feature_size", None) or 16
    length = 2 * getattr(config, "max_source_positions", tiny.LENGTH)
    if "whisper" in cls.__module__:
        return normal(_BATCH, bins, length)
    return normal(_BATCH, length, bins)


def _boxes(generator: torch.Generator) -> torch.Tensor:
    """Boxes of words on a page: left, top, right, bottom."""
    corner = torch.randint(0, 60, (_BATCH, tiny.LENGTH, 2), generator=generator)
    size = torch.randint(1, 30, (_BATCH, tiny.LENGTH, 2), generator=generator)
    return torch.cat([corner, corner + size], dim=-1)
