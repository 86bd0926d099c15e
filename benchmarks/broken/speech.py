"""Speech recognition with CTC: lengths of the data, masks that numpy draws, layers left out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.broken.step import BrokenStep, from_transformers
from benchmarks.zoo import Batch, Workload

SIZES = {
    "tiny": {"layers": 1, "width": 32, "channels": 8, "samples": 1600, "batch": 2, "letters": 4},
    "bench": {"layers": 3, "width": 96, "channels": 48, "samples": 8000, "batch": 3, "letters": 12},
}
_LETTERS = 32


def loss(model: nn.Module, sound: Tensor, mask: Tensor, letters: Tensor) -> Tensor:
    return model(input_values=sound, attention_mask=mask, labels=letters).loss


def build(n: Mapping[str, int], kind: str, own: Mapping[str, Any]) -> Workload:
    config = from_transformers(f"{kind}Config")(
        vocab_size=_LETTERS,
        hidden_size=n["width"],
        num_hidden_layers=n["layers"],
        num_attention_heads=4,
        intermediate_size=4 * n["width"],
        conv_dim=(n["channels"],) * 3,
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 4, 4),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        mask_time_length=2,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        **own,
    )

    def sample(generator: Generator) -> Batch:
        sound = torch.randn(n["batch"], n["samples"], generator=generator)
        mask = torch.ones(n["batch"], n["samples"], dtype=torch.long)
        mask[0, -n["samples"] // 4 :] = 0
        letters = torch.randint(1, _LETTERS, (n["batch"], n["letters"]), generator=generator)
        letters[0, -n["letters"] // 4 :] = -100
        return sound * mask, mask, letters

    return Workload(from_transformers(f"{kind}ForCTC")(config), sample, loss)


def step(name: str, kind: str, cause: str, **own: Any) -> BrokenStep:
    built = partial(build, kind=kind, own=own)
    return BrokenStep(name, f"transformers {kind}ForCTC", SIZES, built, cause=cause)


STEPS = (
    step(
        "wav2vec2-ctc",
        "Wav2Vec2",
        "`if` on a random tensor (layerdrop), masks drawn by numpy, labels by masked_select",
        layerdrop=0.1,
    ),
    step(
        "hubert-ctc",
        "Hubert",
        "requires_grad set on what convolutions return, labels checked and by masked_select",
        layerdrop=0.0,
        apply_spec_augment=False,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    ),
    step(
        "wavlm-ctc",
        "WavLM",
        "requires_grad set on the input, masks drawn by numpy, labels by masked_select",
        layerdrop=0.0,
    ),
)
