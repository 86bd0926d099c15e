"""A diffusion U-Net: skip connections across the whole depth, group norms, dropout."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from benchmarks.zoo.case import Batch, Case, Workload, images
from benchmarks.zoo.chain import Containers

SIZES = {
    "tiny": {"width": 8, "levels": 2, "resnets": 1, "groups": 4, "batch": 2, "side": 16},
    "bench": {"width": 32, "levels": 3, "resnets": 2, "groups": 8, "batch": 4, "side": 64},
    "quick": {"width": 32, "levels": 3, "resnets": 2, "groups": 8, "batch": 2, "side": 64},
    "cuda": {"width": 128, "levels": 4, "resnets": 2, "groups": 32, "batch": 16, "side": 128},
}


def loss(model: nn.Module, noisy: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    return nn.functional.mse_loss(model(noisy, times, return_dict=False)[0], noise)


def build(n: Mapping[str, int]) -> Workload:
    from diffusers import UNet2DModel

    levels = n["levels"]
    model = UNet2DModel(
        sample_size=n["side"],
        in_channels=3,
        out_channels=3,
        layers_per_block=n["resnets"],
        block_out_channels=tuple(n["width"] * min(2**i, 4) for i in range(levels)),
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        norm_num_groups=n["groups"],
        attention_head_dim=8,
        dropout=0.1,
    )

    def sample(generator: Generator) -> Batch:
        noisy = images(generator, n["batch"], 3, n["side"])
        noise = images(generator, n["batch"], 3, n["side"])
        return noisy, torch.randint(1000, (n["batch"],), generator=generator), noise

    paths = (
        *(f"down_blocks.{i}.resnets" for i in range(levels)),
        "mid_block.resnets",
        *(f"up_blocks.{i}.resnets" for i in range(levels)),
    )
    return Workload(model, sample, loss, Containers(paths, linear=False))


CASES = (Case("unet", "diffusers UNet2DModel", SIZES, build),)
